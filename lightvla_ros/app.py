"""Composition root: an engine, preprocessing, prompt and statistics become a policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from lightvla_ros.backends.loading import LoadedEngine, find_directory, load_engine
from lightvla_ros.backends.manifest import MANIFEST_NAME, Manifest
from lightvla_ros.backends.tokenizer import TOKENIZER_NAME, load_encoder
from lightvla_ros.core.errors import BundleError
from lightvla_ros.core.normalize import ActionNormalizer, ProprioNormalizer
from lightvla_ros.core.policy import PolicySpec, PrunedPolicy
from lightvla_ros.core.policy_config import PolicyConfig
from lightvla_ros.core.preprocess import Fit
from lightvla_ros.core.prompt import PromptEncoder
from lightvla_ros.model.config import ModelConfig


def load_policy(
    path: str | Path,
    backend: str = "auto",
    *,
    num_threads: int | None = None,
    statistics_key: str | None = None,
    device: str = "auto",
    allow_unverified: bool = False,
    pruning: bool = True,
) -> PrunedPolicy:
    """Load a policy that turns observations into action chunks.

    Args:
        path: a checkpoint directory, a bundle directory, or the name of an installed bundle ("mini").
        backend: see `EngineOptions`, as are `num_threads`, `device` and `allow_unverified`.
        num_threads: CPU threads.
        statistics_key: data set whose statistics apply; None where there is only one.
        device: where torch runs.
        allow_unverified: run a TensorRT plan that `lightvla verify` has not passed.
        pruning: False decodes every visual token.

    Raises:
        BundleError: the bundle is incomplete, corrupt or of another version.
        CheckpointError: the checkpoint is.
        ConfigError: an option is unknown, or the statistics key is.
        EngineError: the backend is not installed or cannot run this directory.
    """
    loaded = load_engine(
        path,
        backend,
        num_threads=num_threads,
        statistics_key=statistics_key,
        device=device,
        allow_unverified=allow_unverified,
    )
    return make_policy(loaded, pruning=pruning)


def make_policy(
    loaded: LoadedEngine, encode: Callable[[str], Sequence[int]] | None = None, *, pruning: bool = True
) -> PrunedPolicy:
    """Put preprocessing, prompt and normalisation around an engine.

    Args:
        loaded: the engine.
        encode: text -> token ids, BOS first; None takes the tokenizer the engine came with.
        pruning: False decodes every visual token.

    Raises:
        BundleError: it came with none.
    """
    if encode is None:
        if loaded.tokenizer is None:
            raise _no_tokenizer(loaded.name)
        encode = load_encoder(loaded.tokenizer, loaded.model)
    config, stats = loaded.policy, loaded.policy.statistics
    return PrunedPolicy(
        spec=PolicySpec(
            name=loaded.name,
            backend=loaded.backend,
            camera_names=config.camera_names,
            grid=config.grid,
            chunk_size=config.chunk_size,
            action_names=config.action_names,
            proprio_dim=config.proprio_dim,
            step_period_ns=round(config.step_period_s * 1e9),
            fit=cast(Fit, config.fit),
            center_crop=config.center_crop,
        ),
        engine=loaded.engine,
        preprocessor=loaded.make_preprocessor(config),
        prompt_encoder=_prompt_encoder(config, encode),
        proprio_normalizer=ProprioNormalizer(stats.proprio_q01, stats.proprio_q99),
        action_normalizer=ActionNormalizer(stats.action_q01, stats.action_q99, stats.action_mask),
        pruning=pruning,
    )


def load_prompt_encoder(path: str | Path, *, statistics_key: str | None = None) -> PromptEncoder:
    """Load only what turns instructions into token ids, of a bundle or checkpoint: no engine.

    Args:
        path: as for `load_policy`.
        statistics_key: likewise; a checkpoint with several data sets is not read without it.

    Raises:
        BundleError: there is no tokenizer, or the directory is no bundle.
        CheckpointError: the checkpoint is incomplete.
        ConfigError: the statistics key is unknown.
    """
    directory = find_directory(path)
    if (directory / MANIFEST_NAME).is_file():
        manifest = Manifest.read(directory)
        model, policy, tokenizer = manifest.model, manifest.policy, manifest.tokenizer
    else:
        from lightvla_ros.model.checkpoint import read_statistics
        from lightvla_ros.model.policy_config import read_policy_config

        model = ModelConfig.from_directory(directory)
        policy = read_policy_config(directory, model, read_statistics(directory), statistics_key)
        tokenizer = TOKENIZER_NAME if (directory / TOKENIZER_NAME).is_file() else None
    if tokenizer is None:
        raise _no_tokenizer(directory.name)
    return _prompt_encoder(policy, load_encoder(directory / tokenizer, model))


def _prompt_encoder(config: PolicyConfig, encode: Callable[[str], Sequence[int]]) -> PromptEncoder:
    return PromptEncoder(
        encode=encode,
        template=config.prompt_template,
        max_tokens=config.max_prompt_tokens,
        action_prefix_id=config.action_prefix_id,
    )


def _no_tokenizer(name: str) -> BundleError:
    return BundleError(
        f"tokenizer of '{name}'",
        got="none",
        expected="tokenizer.json, which turns instructions into token ids",
        fix="put the checkpoint's tokenizer.json beside its config.json and export again; "
        "`load_engine` runs on token ids without it",
    )
