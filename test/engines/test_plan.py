"""Plan sets on disk: what is read back, what is refused, and with which command to mend it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightvla_ros.backends.length_buckets import Profile
from lightvla_ros.backends.manifest import PARTS, Manifest, describe_file
from lightvla_ros.backends.tensorrt.plan import (
    PLAN_NAME,
    Fingerprint,
    Machine,
    PlanPart,
    PlanSet,
    default_plan_directory,
    plan_sets,
)
from lightvla_ros.core.errors import BundleError

MACHINE = Machine(flavour="tensorrt-rtx", tensorrt_version="1.7.1.116", cuda_version="13.0", target="sm_86")


@pytest.fixture
def plans(bundle_copy: Path) -> PlanSet:
    """A plan set inside a bundle; its plans are bytes that nothing loads here."""
    fingerprint = Fingerprint(
        flavour="tensorrt-rtx",
        tensorrt_version="1.7.1.116",
        cuda_version="12",
        target="sm_86",
        precision="bfloat16",
        flags={"strongly_typed": True, "tf32": False, "workspace_bytes": None},
        bundle_hash=Manifest.read(bundle_copy).content_hash,
    )
    directory = default_plan_directory(bundle_copy, fingerprint)
    directory.mkdir(parents=True)
    parts = {}
    for name in PARTS:
        path = directory / f"{name}.plan"
        path.write_bytes(name.encode() * 100)
        file = describe_file(path)
        parts[name] = PlanPart(
            file=file.name, num_bytes=file.num_bytes, sha256=file.sha256, num_layers=7, seconds=1.5
        )
    plan_set = PlanSet(
        directory=directory,
        fingerprint=fingerprint,
        parts=parts,
        profiles={"retained": (Profile(1, 16, 16), Profile(17, 32, 32)), "prompt": (Profile(1, 31, 31),)},
        created_by="lightvla_ros test",
    )
    plan_set.write()
    return plan_set


def test_a_plan_set_reads_back_as_it_was_written(plans: PlanSet) -> None:
    assert PlanSet.read(plans.directory) == plans
    assert plans.seconds == 6.0
    assert [path.name for path in plans.files] == [
        "prompt.plan",
        "vision.plan",
        "pruner.plan",
        "decoder.plan",
    ]


def test_a_bundle_lists_its_finished_plan_sets_only(plans: PlanSet, bundle_copy: Path) -> None:
    assert plans.directory == bundle_copy / "plans" / "sm_86-tensorrt-rtx-bfloat16"
    hidden = plans.directory.with_name(".sm_89-tensorrt-rtx-bfloat16.staging")
    unfinished = plans.directory.with_name("sm_120-tensorrt-rtx-bfloat16")
    hidden.mkdir()
    (hidden / PLAN_NAME).write_text("{}")
    unfinished.mkdir()
    assert plan_sets(bundle_copy) == [plans.directory]


def test_a_bundle_without_plans_lists_none(tiny_bundle: Path) -> None:
    assert plan_sets(tiny_bundle) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flavour", "tensorrt"),
        ("tensorrt_version", "1.8.0.1"),
        ("cuda_version", "13"),
        ("target", "sm_89"),
        ("precision", "float16"),
        ("flags", {"strongly_typed": True, "tf32": True, "workspace_bytes": None}),
        ("bundle_hash", "0" * 64),
    ],
)
def test_every_field_of_a_fingerprint_changes_its_digest(plans: PlanSet, field: str, value: Any) -> None:
    assert replace(plans.fingerprint, **{field: value}).digest != plans.fingerprint.digest
    assert replace(plans.fingerprint).digest == plans.fingerprint.digest


def test_a_fitting_machine_and_bundle_pass(plans: PlanSet, bundle_copy: Path) -> None:
    plans.check_machine(MACHINE)
    plans.check_bundle(Manifest.read(bundle_copy))
    plans.check_files()


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (replace(MACHINE, flavour="tensorrt"), "library of the plans.*got tensorrt-rtx; expected tensorrt,"),
        (replace(MACHINE, tensorrt_version="1.4.0"), r"TensorRT version.*got 1\.7\.1\.116; expected 1\.4\.0"),
        (replace(MACHINE, target="sm_120"), "GPU of the plans.*got sm_86; expected sm_120"),
    ],
)
def test_another_machine_is_told_the_command_that_builds_for_it(
    plans: PlanSet, bundle_copy: Path, machine: Machine, message: str
) -> None:
    with pytest.raises(BundleError, match=message) as error:
        plans.check_machine(machine)
    command = f"`lightvla build {bundle_copy} --backend {machine.flavour} --precision bfloat16 "
    assert f"{command}--target {machine.target}`" in error.value.fix


def test_plans_of_another_bundle_are_refused(plans: PlanSet, bundle_copy: Path) -> None:
    manifest = replace(Manifest.read(bundle_copy), checkpoint_hash="1" * 64)
    with pytest.raises(BundleError, match=r"built from a bundle with hash.*lightvla build .*--target sm_86"):
        plans.check_bundle(manifest)


def test_a_plan_set_outside_its_bundle_asks_for_the_bundle(plans: PlanSet, tmp_path: Path) -> None:
    moved = replace(plans, directory=tmp_path / "elsewhere")
    assert moved.build_command().startswith("lightvla build BUNDLE --backend tensorrt-rtx ")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "got"),
    [
        (Path.unlink, "no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "699 bytes; expected 700 bytes"),
        (_flip, "sha256"),
    ],
    ids=["missing", "truncated", "one bit"],
)
def test_a_damaged_plan_is_refused(plans: PlanSet, damage: Callable[[Path], object], got: str) -> None:
    damage(plans.directory / "decoder.plan")
    with pytest.raises(BundleError, match=rf"decoder\.plan; got {got}.*Fix: build it again: `lightvla build"):
        PlanSet.read(plans.directory).check_files()


def _edited(change: Callable[[Any], object]) -> Callable[[str], str]:
    def edit(text: str) -> str:
        content = json.loads(text)
        change(content)
        return json.dumps(content)

    return edit


@pytest.mark.parametrize(
    ("edit", "got"),
    [
        (lambda text: text[:40], "invalid JSON"),
        (lambda text: "[]", "schema_version None"),
        (_edited(lambda c: c.update(schema_version=99)), "schema_version 99; expected schema_version 1"),
        (_edited(lambda c: c.pop("created_by")), "KeyError"),
        (_edited(lambda c: c["parts"].pop("vision")), "ValueError: parts"),
        (_edited(lambda c: c["parts"]["vision"].update(colour="red")), "TypeError"),
        (_edited(lambda c: c["parts"]["vision"].update(file="../vision.plan")), "not a plain name"),
        (_edited(lambda c: c["fingerprint"].pop("target")), "TypeError"),
        (_edited(lambda c: c["profiles"]["retained"][0].pop("opt")), "TypeError"),
    ],
)
def test_a_wrong_plan_json_is_refused(plans: PlanSet, edit: Callable[[str], str], got: str) -> None:
    path = plans.directory / PLAN_NAME
    path.write_text(edit(path.read_text()))
    with pytest.raises(BundleError, match=rf"plan\.json; got .*{got}.*Fix: .*`lightvla build .* --force`"):
        PlanSet.read(plans.directory)


def test_a_directory_without_plan_json_is_no_plan_set(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"plan\.json; got no such file"):
        PlanSet.read(tmp_path)
