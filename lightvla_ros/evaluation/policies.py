"""The policies an evaluation compares: a bundle or checkpoint under a retention rule, or chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lightvla_ros.app import make_policy
from lightvla_ros.backends.loading import LoadedEngine, load_engine
from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.policy import Engine, Policy
from lightvla_ros.evaluation.random_policy import RandomPolicy
from lightvla_ros.evaluation.retention import Retention, RetentionEngine


def load_compared_policy(
    path: str | Path,
    *,
    backend: str = "auto",
    retention: Retention | None = None,
    num_threads: int | None = None,
) -> Policy:
    """Load a policy whose decoder sees what a rule says.

    Args:
        path: bundle or checkpoint, as `load_policy` takes it.
        backend: likewise.
        retention: the rule; None is the pruner's choice. "attention" needs the torch backend.
        num_threads: CPU threads.

    Raises:
        ConfigError: the rule does not fit the policy or its backend.
        LightVlaError: as `load_policy`.
    """
    retention = retention or Retention()
    loaded = load_engine(path, backend, num_threads=num_threads)
    return make_policy(replace(loaded, engine=_engine(loaded, retention)))


def load_random_policy(path: str | Path) -> Policy:
    """Return chance with the cameras, actions and chunks of a policy."""
    policy = make_policy(load_engine(path))
    policy.close()
    return RandomPolicy(replace(policy.spec, name="random", backend="none"))


def _engine(loaded: LoadedEngine, retention: Retention) -> Engine:
    if retention.kind == "pruner":
        return loaded.engine
    if retention.kind != "attention":
        return RetentionEngine(loaded.engine, retention, loaded.model.num_patches)
    if loaded.backend != "torch":
        raise ConfigError(
            "retention 'attention'",
            got=f"backend '{loaded.backend}'",
            expected="torch, the only one that shows its attention",
            fix="--backend torch",
        )
    from lightvla_ros.backends.torch_attention_engine import TorchAttentionEngine
    from lightvla_ros.backends.torch_engine import TorchEngine

    if not isinstance(loaded.engine, TorchEngine):
        raise ConfigError(
            "retention 'attention'",
            got="torch on a GPU",
            expected="torch on the CPU",
            fix="hide the GPU: CUDA_VISIBLE_DEVICES= lightvla eval ...",
        )
    return TorchAttentionEngine(loaded.engine.model, int(retention.amount or 0))
