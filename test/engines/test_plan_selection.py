"""A machine runs the plan set that fits it and has been verified, and says why it runs none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lightvla_ros.backends.loading import load_engine
from lightvla_ros.backends.manifest import PARTS, Manifest, describe_file
from lightvla_ros.backends.tensorrt.plan import (
    Fingerprint,
    Machine,
    PlanPart,
    PlanSet,
    default_plan_directory,
)
from lightvla_ros.backends.tensorrt.plan_selection import choose_plans
from lightvla_ros.backends.verification import write_record
from lightvla_ros.core.errors import BundleError, EngineError

HERE = Machine(flavour="tensorrt-rtx", tensorrt_version="1.7", cuda_version="12", target="sm_86")


def this_machine(flavour: str) -> Machine:
    if flavour != HERE.flavour:
        raise EngineError(f"backend '{flavour}'", got="not installed", fix=f"pip install '{flavour}'")
    return HERE


def add_plans(bundle: Path, *, verified: bool | None = True, **changes: str) -> PlanSet:
    """Put a plan set beside the bundle as `lightvla build` does; the plans' bytes do not matter here."""
    fingerprint = replace(
        Fingerprint(
            flavour=HERE.flavour,
            tensorrt_version=HERE.tensorrt_version,
            cuda_version=HERE.cuda_version,
            target=HERE.target,
            precision="bfloat16",
            flags={},
            bundle_hash=Manifest.read(bundle).content_hash,
        ),
        **changes,
    )
    directory = default_plan_directory(bundle, fingerprint)
    directory.mkdir(parents=True)
    parts = {}
    for name in PARTS:
        path = directory / f"{name}.plan"
        path.write_bytes(name.encode())
        file = describe_file(path)
        parts[name] = PlanPart(file=file.name, num_bytes=file.num_bytes, sha256=file.sha256)
    plan_set = PlanSet(directory=directory, fingerprint=fingerprint, parts=parts)
    plan_set.write()
    if verified is not None:
        verdict = {"passed": verified, "failed": [] if verified else ["decoder"]}
        write_record(directory, verdict, fingerprint.digest)
    return plan_set


def choose(bundle: Path, **options: object) -> PlanSet:
    return choose_plans(bundle, Manifest.read(bundle), this_machine, **options)  # type: ignore[arg-type]


def test_the_set_for_this_gpu_and_library_is_taken(bundle_copy: Path) -> None:
    for changes in (
        {"target": "sm_120"},
        {"flavour": "tensorrt"},
        {"precision": "float16", "target": "sm_80"},
    ):
        add_plans(bundle_copy, **changes)
    fitting = add_plans(bundle_copy)
    assert choose(bundle_copy).directory == fitting.directory


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"target": "sm_89"},
            r"GPU of the plans.*got sm_89; expected sm_86.*lightvla build .*--target sm_86",
        ),
        ({"tensorrt_version": "1.6"}, r"TensorRT version.*got 1\.6.*lightvla build"),
        ({"bundle_hash": "0" * 64}, r"built from a bundle with hash 000000.*lightvla build"),
    ],
)
def test_a_set_that_does_not_fit_is_refused_with_the_command_that_mends_it(
    bundle_copy: Path, changes: dict[str, str], message: str
) -> None:
    add_plans(bundle_copy, **changes)
    with pytest.raises(BundleError, match=message):
        choose(bundle_copy)


@pytest.mark.parametrize(("verified", "message"), [(None, "no such file"), (False, "failed: decoder")])
def test_an_unverified_set_is_refused_unless_told_otherwise(
    bundle_copy: Path, verified: bool | None, message: str
) -> None:
    plan_set = add_plans(bundle_copy, verified=verified)
    with pytest.raises(BundleError, match=rf"{message}.*lightvla verify"):
        choose(bundle_copy)
    assert choose(bundle_copy, allow_unverified=True).directory == plan_set.directory


def test_a_set_may_lie_elsewhere_when_it_is_named(bundle_copy: Path, tmp_path: Path) -> None:
    plan_set = add_plans(bundle_copy)
    elsewhere = plan_set.directory.rename(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="no TensorRT plan"):
        choose(bundle_copy)
    assert choose(bundle_copy, plans=elsewhere).directory == elsewhere


def test_the_library_that_is_missing_is_named(bundle_copy: Path) -> None:
    add_plans(bundle_copy, flavour="tensorrt")
    with pytest.raises(EngineError, match=r"not installed.*pip install"):
        choose(bundle_copy)


def test_auto_runs_plans_only_where_there_is_a_gpu(bundle_copy: Path) -> None:
    from lightvla_ros.backends.tensorrt.cuda import device_info

    add_plans(bundle_copy)
    try:
        device_info()
    except EngineError:
        assert load_engine(bundle_copy).backend == "onnxruntime"
    else:
        pytest.skip("this machine has a GPU; the plans of this test are no real ones")
