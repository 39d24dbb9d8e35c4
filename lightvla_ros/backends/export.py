"""Write a model as an engine bundle: four ONNX parts, the tokenizer and the manifest.

Weights keep their state-dict names (behind "model.") so that `model_from_bundle` reads them
back.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lightvla_ros import __version__
from lightvla_ros.backends.bundle_model import weights_hash
from lightvla_ros.backends.export_graphs import Graph, graphs
from lightvla_ros.backends.length_buckets import default_prompt_buckets, default_retained_buckets
from lightvla_ros.backends.manifest import MANIFEST_NAME, Manifest, Part, TensorSpec, describe_file
from lightvla_ros.backends.tokenizer import TOKENIZER_NAME
from lightvla_ros.core.errors import BundleError, SpecError
from lightvla_ros.core.policy_config import PolicyConfig
from lightvla_ros.model.lightvla import LightVla
from lightvla_ros.model.policy_config import check_policy_fits

# TensorRT-RTX builds this opset in float32 as it is; from 23 on attention becomes one operator.
_OPSET = 20


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
        for name, graph in graphs(model.eval(), policy).items():
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
            length_buckets=tuple(length_buckets or default_retained_buckets(model.config.num_patches)),
            prompt_buckets=default_prompt_buckets(policy.max_prompt_tokens - 1),
            tokenizer=None if tokenizer is None else TOKENIZER_NAME,
            notes=dict(notes or {}),
        )
        manifest.write(staging)
        _move_into_place(staging, directory)
    return manifest


def _export_part(name: str, graph: Graph, directory: Path) -> Part:
    program = _traced(graph)
    path = directory / f"{name}.onnx"
    program.save(path)  # beyond 2 GB the weights go into a file beside it
    files = [path, *sorted(directory.glob(f"{path.name}.*"))]
    return Part(
        files=tuple(describe_file(file) for file in files),
        inputs=_specs(program.model.graph.inputs),
        outputs=_specs(program.model.graph.outputs),
    )


def _traced(graph: Graph) -> Any:
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
    _forget_source(program.model.graph)
    return program


def _forget_source(graph: Any) -> None:
    """Drop the exporter's notes of where each node came from: stack traces with this machine's paths."""
    graph.metadata_props.clear()
    for node in graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()


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
