"""Load an engine from a bundle or a checkpoint: the one place that knows which backend is which."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lightvla_ros.backends.length_buckets import default_prompt_buckets, default_retained_buckets
from lightvla_ros.backends.manifest import MANIFEST_NAME, Manifest
from lightvla_ros.backends.tensorrt.plan import plan_sets
from lightvla_ros.backends.tokenizer import TOKENIZER_NAME
from lightvla_ros.core.errors import BundleError, ConfigError, EngineError
from lightvla_ros.core.normalize import statistics_for
from lightvla_ros.core.paths import engine_directory
from lightvla_ros.core.policy import Engine, Preprocessor
from lightvla_ros.core.policy_config import PolicyConfig, make_preprocessor
from lightvla_ros.model.config import ModelConfig

Backend = Literal["auto", "torch", "onnxruntime", "tensorrt"]
Device = Literal["auto", "cpu", "cuda"]

_CHECKPOINT_NAME = "config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedEngine:
    """An engine and what its source says about it.

    Attributes:
        engine: the stages, ready to run.
        name: the bundle's or checkpoint's name.
        backend: what runs it.
        model: sizes of the network.
        policy: everything besides weights.
        tokenizer: file of the tokenizer, or None where there is none.
        make_preprocessor: builds the image side, which may end where the engine begins.
    """

    engine: Engine
    name: str
    backend: str
    model: ModelConfig
    policy: PolicyConfig
    tokenizer: Path | None
    make_preprocessor: Callable[[PolicyConfig], Preprocessor] = make_preprocessor


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How an engine shall run.

    Attributes:
        backend: "torch", "onnxruntime", "tensorrt", or "auto": for a bundle TensorRT where a plan was
            built for it and a GPU is there, else ONNX Runtime; for a checkpoint torch.
        num_threads: CPU threads of one operator; None lets the backend choose.
        device: where torch runs, "cpu", "cuda", or "auto": the GPU where there is one.
        allow_unverified: run a TensorRT plan that `lightvla verify` has not passed.
        plans: TensorRT plan set to run; None takes the bundle's first that fits this machine.

    Raises:
        ConfigError: an option is unknown or out of range.
    """

    backend: str = "auto"
    num_threads: int | None = None
    device: str = "auto"
    allow_unverified: bool = False
    plans: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what no engine understands."""
        for name, known in (("backend", get_args(Backend)), ("device", get_args(Device))):
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(
                    name, got=repr(value), expected=f"one of {list(known)}", fix="leave it out for 'auto'"
                )
        if self.num_threads is not None and self.num_threads < 1:
            raise ConfigError(
                "num_threads",
                got=self.num_threads,
                expected="at least 1",
                fix="leave it out for the backend's own choice",
            )


def load_engine(
    path: str | Path,
    backend: str = "auto",
    *,
    num_threads: int | None = None,
    statistics_key: str | None = None,
    device: str = "auto",
    allow_unverified: bool = False,
    plans: Path | None = None,
) -> LoadedEngine:
    """Load only the engine, which needs no tokenizer; see `app.load_policy` and `EngineOptions`."""
    options = EngineOptions(
        backend=backend,
        num_threads=num_threads,
        device=device,
        allow_unverified=allow_unverified,
        plans=plans,
    )
    directory = find_directory(path)
    if (directory / MANIFEST_NAME).is_file():
        return _from_bundle(directory, options, statistics_key)
    return _from_checkpoint(directory, options, statistics_key)


def find_directory(path: str | Path) -> Path:
    """Resolve a directory or the name of an installed bundle.

    Raises:
        BundleError: nothing is there, or it is neither a bundle nor a checkpoint.
    """
    directory = engine_directory(path)
    if not any((directory / name).is_file() for name in (MANIFEST_NAME, _CHECKPOINT_NAME)):
        raise BundleError(
            str(directory),
            got=f"neither {MANIFEST_NAME} nor {_CHECKPOINT_NAME}",
            expected="an engine bundle or a checkpoint directory",
            fix="check the path; a checkpoint becomes a bundle with `lightvla export CHECKPOINT --out DIR`",
        )
    return directory.resolve()


def _from_bundle(directory: Path, options: EngineOptions, statistics_key: str | None) -> LoadedEngine:
    manifest = Manifest.read(directory)
    if statistics_key is not None:
        statistics_for({manifest.policy.statistics_key: {}}, statistics_key)
    backend = _choose_backend(directory) if options.backend == "auto" else options.backend
    load = {"onnxruntime": _onnxruntime_engine, "torch": _torch_engine, "tensorrt": _tensorrt_engine}[backend]
    return LoadedEngine(
        engine=load(directory, manifest, options),
        name=directory.name,
        backend=backend,
        model=manifest.model,
        policy=manifest.policy,
        tokenizer=None if manifest.tokenizer is None else directory / manifest.tokenizer,
        make_preprocessor=_torch_preprocessor(options) if backend == "torch" else make_preprocessor,
    )


def _onnxruntime_engine(directory: Path, manifest: Manifest, options: EngineOptions) -> Engine:
    from lightvla_ros.backends.onnxruntime_engine import OrtEngine

    return OrtEngine(directory, manifest, num_threads=options.num_threads)


def _torch_engine(directory: Path, manifest: Manifest, options: EngineOptions) -> Engine:
    _require_torch(options)
    import torch

    from lightvla_ros.backends.bundle_model import model_from_bundle
    from lightvla_ros.backends.torch_device import torch_device
    from lightvla_ros.backends.torch_graph_engine import torch_engine

    model = model_from_bundle(directory, manifest)
    if torch_device(options.device) == "cuda":
        half = torch.float16 if manifest.precision == "float16" else torch.bfloat16
        model = model.to("cuda", half)
    return torch_engine(model, manifest.length_buckets, manifest.prompt_buckets)


def _tensorrt_engine(directory: Path, manifest: Manifest, options: EngineOptions) -> Engine:
    from lightvla_ros.backends.tensorrt.engine import TensorRtEngine
    from lightvla_ros.backends.tensorrt.plan_selection import choose_plans
    from lightvla_ros.backends.tensorrt.runtime import machine

    plan_set = choose_plans(
        directory, manifest, machine, plans=options.plans, allow_unverified=options.allow_unverified
    )
    # Some microseconds a chunk buy stage latencies that mean what they say.
    return TensorRtEngine(directory, manifest, plan_set, synchronous=True)


def _choose_backend(directory: Path) -> str:
    """Take TensorRT where somebody built plans and a GPU can run them, else ONNX Runtime."""
    from lightvla_ros.backends.tensorrt.cuda import device_info

    if plan_sets(directory):
        with contextlib.suppress(EngineError):
            device_info()
            return "tensorrt"
    return "onnxruntime"


def _from_checkpoint(directory: Path, options: EngineOptions, statistics_key: str | None) -> LoadedEngine:
    if options.backend not in ("auto", "torch"):
        raise EngineError(
            f"backend '{options.backend}' for {directory.name}",
            got="a checkpoint directory",
            expected="an engine bundle",
            fix=f"run `lightvla export {directory} --out DIR` and load DIR",
        )
    _require_torch(options)
    import torch

    from lightvla_ros.backends.torch_device import torch_device
    from lightvla_ros.backends.torch_graph_engine import torch_engine
    from lightvla_ros.model.checkpoint import load_checkpoint
    from lightvla_ros.model.policy_config import read_policy_config

    device = torch_device(options.device)
    model = load_checkpoint(
        directory, dtype=torch.float32 if device == "cpu" else torch.bfloat16, device=device
    )
    policy = read_policy_config(directory, model.config, model.statistics, statistics_key)
    tokenizer = directory / TOKENIZER_NAME
    return LoadedEngine(
        engine=torch_engine(
            model,
            default_retained_buckets(model.config.num_patches),
            default_prompt_buckets(policy.max_prompt_tokens - 1),
        ),
        name=directory.name,
        backend="torch",
        model=model.config,
        policy=policy,
        tokenizer=tokenizer if tokenizer.is_file() else None,
        make_preprocessor=_torch_preprocessor(options),
    )


def _torch_preprocessor(options: EngineOptions) -> Callable[[PolicyConfig], Preprocessor]:
    from lightvla_ros.backends.torch_preprocess import preprocessor_for

    return preprocessor_for(options.device)


def _require_torch(options: EngineOptions) -> None:
    try:
        import torch
    except ImportError as e:
        raise EngineError(
            "backend 'torch'",
            got=str(e),
            expected="PyTorch",
            fix="pip install 'lightvla_ros[torch]', or run an exported bundle with backend 'onnxruntime'",
        ) from e
    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)
