"""Which of a bundle's plan sets this machine runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from lightvla_ros.backends.manifest import Manifest
from lightvla_ros.backends.tensorrt.api import Flavour
from lightvla_ros.backends.tensorrt.plan import Machine, PlanSet, plan_sets
from lightvla_ros.backends.verification import require_verified
from lightvla_ros.core.errors import BundleError, LightVlaError


def choose_plans(
    directory: Path,
    manifest: Manifest,
    machine: Callable[[Flavour], Machine],
    *,
    plans: Path | None = None,
    allow_unverified: bool = False,
) -> PlanSet:
    """Return the first plan set that fits this machine and has passed verification.

    Args:
        directory: the bundle.
        manifest: its manifest.
        machine: flavour -> what this machine offers; may raise where the library is not installed.
        plans: the plan set to take, where it is given.
        allow_unverified: take plans that `lightvla verify` has not passed, too.

    Raises:
        BundleError: there is none, or none fits; the message is about the last one looked at.
        EngineError: the library that built it is not installed, or there is no GPU.
    """
    candidates = [plans] if plans else plan_sets(directory)
    reason: LightVlaError = BundleError(
        f"backend 'tensorrt' for {directory.name}",
        got="no TensorRT plan in this bundle",
        expected="plans built for this machine's GPU",
        fix=f"run `lightvla build {directory} --target current` on it, or use backend 'onnxruntime'",
    )
    for candidate in candidates:
        try:
            plan_set = PlanSet.read(candidate)
            plan_set.check_bundle(manifest)
            plan_set.check_machine(machine(cast(Flavour, plan_set.fingerprint.flavour)))
            if not allow_unverified:
                require_verified(candidate, plan_set.fingerprint.digest)
        except LightVlaError as error:
            reason = error
        else:
            return plan_set
    raise reason
