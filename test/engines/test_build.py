"""Plans really built by TensorRT-RTX, which needs no GPU for it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from lightvla_ros.backends.export import export_bundle
from lightvla_ros.backends.length_buckets import Profile
from lightvla_ros.backends.manifest import PARTS, Manifest, TensorSpec, describe_file
from lightvla_ros.backends.tensorrt.api import load, load_any
from lightvla_ros.backends.tensorrt.build import build_plans
from lightvla_ros.backends.tensorrt.cuda import device_info
from lightvla_ros.backends.tensorrt.network import PlanBuilder
from lightvla_ros.backends.tensorrt.plan import PlanSet, plan_sets
from lightvla_ros.backends.tensorrt.targets import known_targets
from lightvla_ros.cli import main
from lightvla_ros.core.errors import BundleError, ConfigError, EngineError
from lightvla_ros.core.paths import engine_directory
from lightvla_ros.model import LightVla
from lightvla_ros.model.policy_config import policy_config_for

pytest.importorskip(
    "tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'lightvla_ros[tensorrt-rtx]'"
)

RTX = "tensorrt-rtx"
TARGETS = ["sm_86", "sm_89", "sm_120"]


def build(bundle: Path, target: str = "sm_86", **options: object) -> PlanSet:
    (plan_set,) = build_plans(bundle, flavour=RTX, targets=[target], **options)
    return plan_set


def contents(plan_set: PlanSet) -> list[bytes]:
    return [path.read_bytes() for path in plan_set.files]


def has_gpu() -> bool:
    try:
        device_info()
    except EngineError:
        return False
    return True


@pytest.fixture(scope="module")
def built(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> PlanSet:
    """Plans of the tiny bundle for sm_86; read only."""
    return build(tiny_bundle, out=tmp_path_factory.mktemp("plans") / "set")


@pytest.fixture
def bundle(bundle_copy: Path) -> Path:
    """A bundle with plans of its own that a test may damage."""
    build(bundle_copy)
    return bundle_copy


def check_plan_sets(bundle: Path, sets: list[PlanSet], precision: str, profiles: list[Profile]) -> None:
    manifest = Manifest.read(bundle)
    for plan_set, target in zip(sets, TARGETS, strict=True):
        assert PlanSet.read(plan_set.directory) == plan_set
        plan_set.check_files()
        plan_set.check_bundle(manifest)
        assert plan_set.fingerprint.target == target
        assert plan_set.fingerprint.precision == precision
        assert list(plan_set.profiles["retained"]) == profiles
        assert set(plan_set.parts) == set(PARTS)
        assert all(part.num_layers > 0 for part in plan_set.parts.values())
    for part in range(len(PARTS)):
        assert len({contents(plan_set)[part] for plan_set in sets}) == len(TARGETS), (
            "a plan is for its target"
        )


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_every_part_of_the_mini_bundle_builds_with_four_profiles_for_every_target(
    precision: str, tmp_path: Path
) -> None:
    mini = engine_directory("mini")
    sets = build_plans(mini, flavour=RTX, targets=TARGETS, precision=precision, out=tmp_path / "plans")
    ends = [(1, 16), (17, 32), (33, 64), (65, 128)]
    check_plan_sets(mini, sets, precision, [Profile(start, end, end) for start, end in ends])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_random_model_of_1024x8_builds_with_four_profiles_for_every_target(
    precision: str, tmp_path: Path
) -> None:
    from lightvla_ros.commands._random_bundle import random_model_config
    from lightvla_ros.commands._random_size import RandomSize

    config = random_model_config(RandomSize(width=1024, layers=8))
    quantiles = {
        "action": {"q01": [-1.0] * 7, "q99": [1.0] * 7},
        "proprio": {"q01": [-1.0] * 8, "q99": [1.0] * 8},
    }
    bundle = tmp_path / "random"
    export_bundle(
        LightVla(config), policy_config_for(config, {"random": quantiles}), bundle, precision=precision
    )
    sets = build_plans(bundle, flavour=RTX, targets=TARGETS)
    assert sorted(plan_set.directory for plan_set in sets) == plan_sets(bundle)
    ends = [(1, 64), (65, 128), (129, 256), (257, 512)]
    check_plan_sets(bundle, sets, precision, [Profile(start, end, end) for start, end in ends])


def test_a_bundle_in_float32_builds_as_it_is(built: PlanSet, tiny_bundle: Path) -> None:
    assert built.fingerprint.precision == "float32"
    built.check_files()
    built.check_bundle(Manifest.read(tiny_bundle))
    assert built.profiles["retained"][-1] == Profile(17, 32, 32)
    assert built.profiles["prompt"] == (Profile(1, 31, 31),)


def check_same_plans(one: PlanSet, other: PlanSet) -> None:
    # TensorRT-RTX lists the outputs of a part that has two in either order; they are looked up by name.
    for name in ("vision", "decoder"):
        assert one.parts[name].sha256 == other.parts[name].sha256, name
    for name in ("prompt", "pruner"):
        assert one.parts[name].num_bytes == other.parts[name].num_bytes, name


def test_the_same_bundle_gives_the_same_plans(built: PlanSet, tiny_bundle: Path, tmp_path: Path) -> None:
    again = build(tiny_bundle, out=tmp_path / "again")
    check_same_plans(again, built)
    assert again.fingerprint.digest == built.fingerprint.digest


@pytest.mark.slow
def test_targets_and_precisions_give_plans_and_fingerprints_of_their_own(
    built: PlanSet, tiny_bundle: Path, tmp_path: Path
) -> None:
    others = [
        build(tiny_bundle, "sm_120", out=tmp_path / "target"),
        build(tiny_bundle, precision="bfloat16", out=tmp_path / "bfloat16"),
        build(tiny_bundle, precision="float16", out=tmp_path / "float16"),
    ]
    sets = [built, *others]
    assert len({plan_set.fingerprint.digest for plan_set in sets}) == len(sets)
    assert len({tuple(contents(plan_set)) for plan_set in sets}) == len(sets)
    assert {plan_set.fingerprint.bundle_hash for plan_set in sets} == {
        Manifest.read(tiny_bundle).content_hash
    }


def test_weights_beside_the_graphs_are_built_in(tiny_model: LightVla, built: PlanSet, tmp_path: Path) -> None:
    policy = policy_config_for(
        tiny_model.config, tiny_model.statistics, overrides={"jpeg": False, "max_prompt_tokens": 32}
    )
    export_bundle(tiny_model, policy, tmp_path / "external", inline_bytes=0)
    assert (tmp_path / "external" / "decoder.onnx.data").is_file()
    check_same_plans(build(tmp_path / "external"), built)


def test_plans_that_are_up_to_date_are_kept_unless_forced(bundle: Path) -> None:
    (directory,) = plan_sets(bundle)
    inode = (directory / "decoder.plan").stat().st_ino
    parts: list[str] = []
    kept = build(bundle, progress=lambda what, done, total: parts.append(what))
    assert (kept.directory, parts) == (directory, [])
    assert (directory / "decoder.plan").stat().st_ino == inode
    build(bundle, progress=lambda what, done, total: parts.append(what), overwrite=True)
    assert parts == [f"building {name} for sm_86" for name in PARTS]
    assert (directory / "decoder.plan").stat().st_ino != inode


def test_other_buckets_are_built_anew(bundle: Path) -> None:
    manifest = replace(Manifest.read(bundle), length_buckets=(8, 32))
    manifest.write(bundle)
    assert build(bundle).profiles["retained"] == (Profile(1, 8, 8), Profile(9, 32, 32))


def test_a_damaged_plan_is_built_anew(bundle: Path) -> None:
    (directory,) = plan_sets(bundle)
    (directory / "decoder.plan").write_bytes(b"damaged")
    build(bundle).check_files()


def test_an_interrupted_build_leaves_the_old_plans(bundle: Path) -> None:
    (directory,) = plan_sets(bundle)
    before = contents(PlanSet.read(directory))

    def interrupt(what: str, done: int, total: int) -> None:
        if "decoder" in what:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(bundle, overwrite=True, progress=interrupt)
    assert contents(PlanSet.read(directory)) == before
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


def test_a_killed_build_leaves_nothing_that_is_picked_up(bundle_copy: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from lightvla_ros.backends.tensorrt.build import build_plans\n"
        "def kill(what, done, total):\n"
        "    if 'decoder' in what: os.kill(os.getpid(), signal.SIGKILL)\n"
        "build_plans(Path(sys.argv[1]), flavour='tensorrt-rtx', targets=['sm_86'], progress=kill)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(bundle_copy)], check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert plan_sets(bundle_copy) == []
    plan_set = build(bundle_copy)
    assert plan_sets(bundle_copy) == [plan_set.directory]
    assert [path.name for path in plan_set.directory.parent.iterdir()] == [plan_set.directory.name]


def put_part(bundle: Path, part: str, model: onnx.ModelProto) -> None:
    """Put another graph into a bundle, with a manifest that says so."""
    manifest = Manifest.read(bundle)
    path = manifest.part_path(bundle, part)
    onnx.save(model, path)
    parts = {**manifest.parts, part: replace(manifest.parts[part], files=(describe_file(path),))}
    replace(manifest, parts=parts).write(bundle)


def unsupported(operator: str, domain: str) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Relu", ["input"], ["hidden"], name="first"),
        helper.make_node(operator, ["hidden"], ["output"], name="the_culprit", domain=domain),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "graph", [info("input", TensorProto.FLOAT, [1, 4])], [info("output", TensorProto.INT64, None)]
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("example.org", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


@pytest.mark.parametrize(("operator", "domain"), [("NonZero", ""), ("Frobnicate", "example.org")])
def test_an_error_of_the_parser_names_file_node_operator_and_reason(
    bundle_copy: Path, operator: str, domain: str
) -> None:
    put_part(bundle_copy, "pruner", unsupported(operator, domain))
    with pytest.raises(
        EngineError, match=rf"pruner\.onnx; got node 1 'the_culprit' \({operator}\): .*plugin"
    ):
        build(bundle_copy)
    assert plan_sets(bundle_copy) == []


@pytest.mark.parametrize(
    ("profiles", "reason"),
    [
        ([], "no optimization profile has been defined"),
        ([{"prompt": Profile(9, 3, 4)}], "Invalid optimization profiles for input tensors prompt_keys"),
    ],
)
def test_an_error_of_the_builder_names_file_target_and_reason(
    tiny_bundle: Path, profiles: list[dict[str, Profile]], reason: str
) -> None:
    inputs = Manifest.read(tiny_bundle).parts["pruner"].inputs
    with pytest.raises(EngineError, match=rf"builder of {RTX} .*pruner\.onnx for sm_86; got .*{reason}"):
        PlanBuilder(load(RTX), "sm_86").build(tiny_bundle / "pruner.onnx", inputs, profiles)


def test_one_profile_more_makes_another_plan(tiny_bundle: Path) -> None:
    inputs: tuple[TensorSpec, ...] = Manifest.read(tiny_bundle).parts["pruner"].inputs
    builder, ranges = (
        PlanBuilder(load(RTX), "sm_86"),
        [{"prompt": Profile(1, 8, 16)}, {"prompt": Profile(17, 31, 31)}],
    )
    sizes = [
        memoryview(builder.build(tiny_bundle / "pruner.onnx", inputs, ranges[:count])[0]).nbytes
        for count in (1, 2)
    ]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b"\0" * path.stat().st_size),
        Path.unlink,
    ],
    ids=["truncated", "corrupt", "missing"],
)
def test_a_damaged_bundle_is_refused_before_anything_is_built(
    bundle_copy: Path, damage: Callable[[Path], object]
) -> None:
    damage(bundle_copy / "vision.onnx")
    with pytest.raises(BundleError, match=r"vision\.onnx"):
        build(bundle_copy)
    assert not (bundle_copy / "plans").exists()


def test_a_quantized_bundle_is_refused(bundle_copy: Path) -> None:
    replace(Manifest.read(bundle_copy), quantization="int8").write(bundle_copy)
    with pytest.raises(BundleError, match=r"quantised to int8.*without --quant"):
        build(bundle_copy)


@pytest.mark.parametrize("target", ["86", "sm_8.6", "ampere", ""])
def test_a_target_that_is_no_compute_capability_is_refused(tiny_bundle: Path, target: str) -> None:
    with pytest.raises(ConfigError, match=r"target; got .*expected a compute capability as 'sm_86'"):
        build(tiny_bundle, target)


def test_a_target_the_library_does_not_build_for_names_those_it_does(tiny_bundle: Path) -> None:
    with pytest.raises(EngineError, match=r"target sm_90; .*builds for .*sm_86.*--backend tensorrt"):
        build(tiny_bundle, "sm_90")
    assert set(TARGETS) <= set(known_targets(load(RTX)))


@pytest.mark.skipif(has_gpu(), reason="this machine has a GPU to build for")
def test_without_a_gpu_the_current_target_must_be_named(tiny_bundle: Path) -> None:
    with pytest.raises(EngineError, match="name one with --target: .*sm_86"):
        build(tiny_bundle, "current")


@pytest.mark.skipif(not has_gpu(), reason="needs an NVIDIA GPU")
@pytest.mark.gpu
def test_the_current_target_is_that_of_the_gpu(tiny_bundle: Path, tmp_path: Path) -> None:
    assert build(tiny_bundle, "current", out=tmp_path / "plans").fingerprint.target == device_info().target


def test_an_unknown_precision_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="precision; got 'int3'"):
        build(tiny_bundle, precision="int3")


def test_something_else_at_out_is_left_alone(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("ten years of work")
    with pytest.raises(BundleError, match="something else is there"):
        build(tiny_bundle, out=tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_library_that_is_missing_names_its_extra(tiny_bundle: Path) -> None:
    script = (
        "import sys; sys.modules['tensorrt'] = sys.modules['tensorrt_rtx'] = None\n"
        "from lightvla_ros.cli import main\n"
        "for backend in (['--backend', 'tensorrt'], ['--backend', 'tensorrt-rtx'], []):\n"
        "    assert main(['build', sys.argv[1], *backend, '--target', 'sm_86']) == 1\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tiny_bundle)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert "lightvla_ros[tensorrt]" in errors[0]
    assert "lightvla_ros[tensorrt-rtx]" in errors[1]
    assert "lightvla_ros[tensorrt]" in errors[2]
    assert "lightvla_ros[tensorrt-rtx]" in errors[2]


def test_only_another_precision_needs_torch(tiny_bundle: Path, tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "from lightvla_ros.cli import main\n"
        "build = ['build', sys.argv[1], '--backend', 'tensorrt-rtx', '--target', 'sm_86']\n"
        "assert main([*build, '--out', sys.argv[2]]) == 0\n"
        "assert main([*build, '--out', sys.argv[2], '--precision', 'bf16']) == 1\n"
    )
    out = tmp_path / "plans"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tiny_bundle), str(out)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "plans in bfloat16 of a bundle in float32" in done.stderr
    assert "lightvla_ros[export]" in done.stderr
    assert PlanSet.read(out).fingerprint.precision == "float32", "what was there stays"


def test_the_installed_library_is_the_default() -> None:
    assert load_any().flavour in ("tensorrt", RTX)
    assert load(RTX).cuda_version().isdigit()


def test_the_loggers_lines_stay_few() -> None:
    log = load(RTX).make_logger()
    for number in range(300):
        log.log(load(RTX).module.ILogger.WARNING, f"line {number}")
    assert log.lines[-1] == "line 299"
    assert len(log.lines) == 100


def test_the_command_ends_with_one_json_object(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plans"
    arguments = ["--backend", RTX, "--precision", "fp32", "--target", "sm_86", "--out", str(out), "--json"]
    assert main(["build", str(tiny_bundle), *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    assert result["plans"] == [str(out / f"{name}.plan") for name in PARTS]
    assert result["profiles"][-1] == {"min": 17, "opt": 32, "max": 32}
    assert result["seconds"] == pytest.approx(PlanSet.read(out).seconds, abs=0.01)
    assert result["directories"] == [str(out)]
    assert result["fingerprints"][0]["digest"] == PlanSet.read(out).fingerprint.digest
    assert result["verified"] in ([None], [True])
    assert any(line.split()[:1] == ["decoder"] for line in lines)


@pytest.mark.skipif(has_gpu(), reason="this machine may run the plans")
def test_what_cannot_run_here_is_said_to_be_unverified(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "build",
        str(tiny_bundle),
        "--backend",
        RTX,
        "--target",
        "sm_86",
        "--out",
        str(tmp_path / "p"),
    ]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "not verified" in said
    assert f"`lightvla verify {tiny_bundle} --plans {tmp_path / 'p'}`" in said
    assert main([*arguments, "--no-verify"]) == 0
    assert "not verified" not in capsys.readouterr().out


def test_what_verifying_lacks_is_said_with_its_fix(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_args: object) -> int:
        raise BundleError("weights", got="rounded ones", expected="exact ones", fix="name SOURCE")

    monkeypatch.setattr("lightvla_ros.backends.tensorrt.runtime.machine", lambda _flavour: None)
    monkeypatch.setattr(PlanSet, "check_machine", lambda _self, _machine: None)
    monkeypatch.setattr("lightvla_ros.commands.verify.run", refuse)
    plans = tmp_path / "p"
    assert main(["build", str(tiny_bundle), "--backend", RTX, "--target", "sm_86", "--out", str(plans)]) == 0
    said = capsys.readouterr().out
    assert "not verified (weights; got rounded ones). Fix: name SOURCE\n" in said
    assert f"`lightvla verify {tiny_bundle} --plans {plans}`" in said


def test_several_targets_get_a_directory_each(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--backend", RTX, "--target", "sm_86", "sm_89", "sm_86", "--out", str(tmp_path), "--json"]
    assert main(["build", str(tiny_bundle), *arguments]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    names = ["sm_86-tensorrt-rtx-float32", "sm_89-tensorrt-rtx-float32"]
    assert result["directories"] == [str(tmp_path / name) for name in names]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert len(result["plans"]) == 2 * len(PARTS)


def test_wrong_usage_is_exit_code_2_and_a_failure_1(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as usage:
        main(["build", str(tiny_bundle), "--backend", "abacus"])
    assert usage.value.code == 2
    assert main(["build", str(tiny_bundle), "--backend", RTX, "--target", "sm_90"]) == 1
    assert "lightvla build: error: target sm_90" in capsys.readouterr().err


def test_a_copied_bundle_takes_its_plans_along(bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "elsewhere")
    (directory,) = plan_sets(copy)
    plan_set = PlanSet.read(directory)
    plan_set.check_files()
    plan_set.check_bundle(Manifest.read(copy))
