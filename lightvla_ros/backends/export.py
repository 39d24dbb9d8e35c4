"""Write a model as an engine bundle: four ONNX parts, the tokenizer and the manifest.

The parts call the stages of `LightVla`; there is no second implementation. Weights keep their
state-dict names (behind "model.") so that `bundle_model.model_from_bundle` can read them back.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from lightvla_ros import __version__
from lightvla_ros.backends.bundle_model import EMBEDDING, weights_hash
from lightvla_ros.backends.manifest import MANIFEST_NAME, Manifest, Part, TensorSpec, describe_file
from lightvla_ros.backends.tokenizer import TOKENIZER_NAME
from lightvla_ros.core.errors import BundleError, SpecError
from lightvla_ros.core.policy_config import PolicyConfig
from lightvla_ros.model.lightvla import LightVla
from lightvla_ros.model.policy_config import check_policy_fits
from lightvla_ros.model.pruner import rms_normalize

# TensorRT-RTX builds this opset in float32 as it is; from 23 on attention becomes one operator.
_OPSET = 20
_SMALL_BUCKETS = (16, 32, 48, 64, 96, 128)


class _Prompt(nn.Module):
    def __init__(self, model: LightVla) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.model.embed_prompt(input_ids)
        return tokens, rms_normalize(tokens)


class _Vision(nn.Module):
    def __init__(self, model: LightVla) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model.encode_images(pixel_values)


class _Pruner(nn.Module):
    def __init__(self, model: LightVla) -> None:
        super().__init__()
        self.model = model

    def forward(self, patches: Tensor, prompt_keys: Tensor, proprio: Tensor) -> tuple[Tensor, Tensor]:
        retained = self.model.pruner.retained(self.model.prune(patches, prompt_keys, proprio))
        return retained.order, retained.count


class _Decoder(nn.Module):
    def __init__(self, model: LightVla) -> None:
        super().__init__()
        self.model = model

    def forward(  # noqa: PLR0917 (one per input of the graph)
        self,
        patches: Tensor,
        retained_indices: Tensor,
        retained_count: Tensor,
        prompt_tokens: Tensor,
        prompt_length: Tensor,
        proprio: Tensor,
    ) -> Tensor:
        """Decode; `retained_indices` and `prompt_tokens` may be padded behind their true lengths."""
        hidden = self.model.decode(
            patches.gather(1, retained_indices[:, :, None].expand(-1, -1, patches.shape[-1])),
            retained_indices,
            prompt_tokens,
            proprio,
            visual_mask=torch.arange(retained_indices.shape[1])[None] < retained_count[:, None],
            prompt_mask=torch.arange(prompt_tokens.shape[1])[None] < prompt_length[:, None],
        )
        return self.model.action_head(hidden)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Graph:
    """One part before export.

    Attributes:
        module: what to trace.
        inputs: name -> example.
        dynamic: input name -> {axis: dimension}; absent inputs are static.
        outputs: names in order.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    dynamic: Mapping[str, Mapping[int, Any]]
    outputs: tuple[str, ...]


def export_bundle(
    model: LightVla,
    policy: PolicyConfig,
    directory: Path,
    *,
    tokenizer: str | None = None,
    length_buckets: Sequence[int] | None = None,
    notes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Manifest:
    """Write a bundle; the directory appears whole or not at all.

    Args:
        model: float32, on the CPU.
        policy: everything besides weights.
        directory: where the bundle goes.
        tokenizer: contents of `tokenizer.json`; None writes a bundle that takes token ids only.
        length_buckets: retained counts for engines with static shapes; None chooses up to N.
        notes: how the model was trained, how it did.
        overwrite: replace a bundle that is already there.
        progress: called with a part's name before it is exported.

    Raises:
        BundleError: the directory is in use.
        ConfigError: policy and model contradict each other.
        SpecError: the model is not float32 on the CPU.
    """
    check_policy_fits(policy, model.config)
    _check_exportable(model)
    _check_target(directory, overwrite=overwrite)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as scratch:
        staging = Path(scratch) / directory.name
        staging.mkdir()
        parts = {}
        for name, graph in _graphs(model.eval(), policy).items():
            if progress is not None:
                progress(name)
            parts[name] = _export_part(name, graph, staging)
        if tokenizer is not None:
            (staging / TOKENIZER_NAME).write_text(tokenizer, encoding="utf-8")
        manifest = Manifest(
            created_by=f"lightvla_ros {__version__}",
            checkpoint_hash=weights_hash(model),
            precision="float32",
            model=model.config,
            policy=policy,
            parts=parts,
            length_buckets=tuple(length_buckets or default_buckets(model.config.num_patches)),
            tokenizer=None if tokenizer is None else TOKENIZER_NAME,
            notes=dict(notes or {}),
        )
        manifest.write(staging)
        _move_into_place(staging, directory)
    return manifest


def default_buckets(num_patches: int) -> tuple[int, ...]:
    """Choose retained counts for static shapes: fine where pruned sets usually lie, N last."""
    counts = [count for count in (*_SMALL_BUCKETS, 192, 256, 384) if count < num_patches]
    return (*counts, num_patches)


def _graphs(model: LightVla, policy: PolicyConfig) -> dict[str, _Graph]:
    config = model.config
    N, D, S = config.num_patches, config.hidden_size, config.image_size
    channels = 3 * len(config.towers) * config.num_cameras
    longest = policy.max_prompt_tokens - 1  # BOS is not among the prompt tokens
    M, K = max(2, longest // 2), max(2, N // 2)
    prompt_axis = {1: Dim("prompt", min=1, max=longest)}
    patches, prompt, proprio = torch.randn(1, N, D), torch.randn(1, M, D), torch.randn(1, config.proprio_dim)
    body = _without_vocabulary(model)
    return {
        "prompt": _Graph(
            module=_Prompt(model),
            inputs={"input_ids": torch.ones(1, M + 1, dtype=torch.int64)},
            dynamic={"input_ids": {1: Dim("ids", min=2, max=longest + 1)}},
            outputs=("prompt_tokens", "prompt_keys"),
        ),
        "vision": _Graph(
            module=_Vision(model),
            inputs={"pixel_values": torch.randn(1, channels, S, S)},
            dynamic={},
            outputs=("patches",),
        ),
        "pruner": _Graph(
            module=_Pruner(body),
            inputs={"patches": patches, "prompt_keys": prompt, "proprio": proprio},
            dynamic={"prompt_keys": prompt_axis},
            outputs=("order", "count"),
        ),
        "decoder": _Graph(
            module=_Decoder(body),
            inputs={
                "patches": patches,
                "retained_indices": torch.arange(K)[None],
                "retained_count": torch.tensor([K]),
                "prompt_tokens": prompt,
                "prompt_length": torch.tensor([M]),
                "proprio": proprio,
            },
            dynamic={"retained_indices": {1: Dim("retained", min=1, max=N)}, "prompt_tokens": prompt_axis},
            outputs=("normalized_actions",),
        ),
    }


def _without_vocabulary(model: LightVla) -> LightVla:
    """Return a model of the same weights whose embedding table holds only the three special rows.

    The exporter would otherwise write the whole table into every part that reads a row of it.
    """
    config = model.config
    state = model.state_dict()
    state[EMBEDDING] = state[EMBEDDING][[config.bos_id, config.stop_id, config.action_prefix_id]]
    small = replace(config, vocab_size=3, bos_id=0, stop_id=1, action_prefix_id=2)
    with torch.device("meta"):
        body = LightVla(small)
    body.load_state_dict(state, assign=True)
    return body.eval()


def _export_part(name: str, graph: _Graph, directory: Path) -> Part:
    program = _traced(graph)
    path = directory / f"{name}.onnx"
    program.save(path)  # beyond 2 GB the weights go into a file beside it
    files = [path, *sorted(directory.glob(f"{path.name}.*"))]
    return Part(
        files=tuple(describe_file(file) for file in files),
        inputs=_specs(program.model.graph.inputs),
        outputs=_specs(program.model.graph.outputs),
    )


def _traced(graph: _Graph) -> Any:
    from onnxscript import optimizer

    logging.getLogger("torch.onnx").setLevel(
        logging.ERROR
    )  # its warnings are about libraries nobody uses here
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            graph.module.eval(),
            tuple(graph.inputs.values()),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes={name: graph.dynamic.get(name) for name in graph.inputs},
            opset_version=_OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    # The exporter's own optimiser merges and transposes weights under new names; this folds the rest.
    optimizer.inline(program.model)
    optimizer.fold_constants_ir(program.model, onnx_shape_inference=True, should_fold=_reads_no_weight)
    optimizer.remove_unused_nodes(program.model)
    return program


def _reads_no_weight(node: Any) -> bool | None:
    # None leaves the decision to the optimiser.
    return False if any(value is not None and value.is_initializer() for value in node.inputs) else None


def _specs(values: Sequence[Any]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=value.name,
            dtype=str(value.dtype.numpy()),
            shape=tuple(axis if isinstance(axis, int) else str(axis) for axis in value.shape),
        )
        for value in values
    )


def _check_exportable(model: LightVla) -> None:
    weight = model.projector.fc1.weight
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        raise SpecError(
            "model to export",
            got=f"{weight.dtype} on {weight.device}",
            expected="float32 on the CPU",
            fix="load the checkpoint with dtype=torch.float32",
        )


def _check_target(directory: Path, *, overwrite: bool) -> None:
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    if not overwrite or not (directory / MANIFEST_NAME).is_file():
        raise BundleError(
            str(directory),
            got="something is there already",
            expected="a new directory, or an older bundle and leave to replace it",
            fix="choose another --out, or pass --force to replace a bundle",
        )


def _move_into_place(staging: Path, directory: Path) -> None:
    if directory.exists():
        retired = staging.with_name(f"{directory.name}.old")
        directory.rename(retired)  # goes with the scratch directory
    shutil.copymode(directory.parent, staging)
    staging.rename(directory)
