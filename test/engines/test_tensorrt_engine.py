"""The TensorRT engine on the double of CUDA and TensorRT; `test_tensorrt_gpu.py` is the same on a GPU."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_double import VERSION, CudaDouble, RuntimeDouble
from tensorrt_cases import EngineCases, Rig

from lightvla_ros.backends.comparison import compare
from lightvla_ros.backends.length_buckets import retained_profiles
from lightvla_ros.backends.loading import load_engine
from lightvla_ros.backends.manifest import PARTS, Manifest, describe_file
from lightvla_ros.backends.onnxruntime_engine import OrtEngine
from lightvla_ros.backends.tensorrt.engine import TensorRtEngine
from lightvla_ros.backends.tensorrt.inspection import round_to, to_float32
from lightvla_ros.backends.tensorrt.plan import Fingerprint, PlanPart, PlanSet
from lightvla_ros.commands._inputs import random_samples
from lightvla_ros.core.errors import BundleError, EngineError, LightVlaError, SpecError
from lightvla_ros.core.paths import engine_directory

Range = tuple[list[int], list[int]]
MakeEngine = Callable[..., TensorRtEngine]


def profiles_of(manifest: Manifest) -> dict[str, list[dict[str, Range]]]:
    """Return the profiles that `lightvla build` gives the parts: input -> (smallest, largest shape)."""
    longest = manifest.prompt_buckets[-1]

    def ranges(part: str, sizes: Mapping[str, tuple[int, int]]) -> dict[str, Range]:
        return {
            spec.name: tuple(
                [size if isinstance(size, int) else sizes[spec.name][end] for size in spec.shape]
                for end in (0, 1)
            )
            for spec in manifest.parts[part].inputs
        }

    return {
        "prompt": [ranges("prompt", {"input_ids": (2, longest + 1)})],
        "vision": [ranges("vision", {})],
        "pruner": [ranges("pruner", {"prompt_keys": (1, longest)})],
        "decoder": [
            ranges("decoder", {"retained_indices": (p.min, p.max), "prompt_tokens": (1, longest)})
            for p in retained_profiles(manifest.length_buckets)
        ],
    }


def write_plans(bundle: Path, manifest: Manifest, directory: Path, edit: Callable[[Any], object]) -> PlanSet:
    """Write what stands for plans of the double: each names the ONNX part it executes."""
    directory.mkdir(parents=True)
    profiles = profiles_of(manifest)
    edit(profiles)
    parts = {}
    for part in PARTS:
        path = directory / f"{part}.plan"
        onnx = str(manifest.part_path(bundle, part).resolve())
        path.write_text(json.dumps({"onnx": onnx, "profiles": profiles[part]}))
        parts[part] = PlanPart(**plan_part(path))
    return plan_set(manifest, directory, parts)


def plan_part(path: Path) -> dict[str, Any]:
    file = describe_file(path)
    return {"file": path.name, "num_bytes": file.num_bytes, "sha256": file.sha256}


def plan_set(manifest: Manifest, directory: Path, parts: Mapping[str, PlanPart]) -> PlanSet:
    fingerprint = Fingerprint(
        flavour="tensorrt",
        tensorrt_version=VERSION,
        cuda_version="12",
        target="sm_86",
        precision=manifest.precision,
        flags={},
        bundle_hash=manifest.content_hash,
    )
    return PlanSet(directory=directory, fingerprint=fingerprint, parts=parts)


class Workshop:
    """Makes engines on doubles and closes them."""

    def __init__(self, bundle: Path, scratch: Path) -> None:
        self.bundle, self.manifest = bundle, Manifest.read(bundle)
        self._scratch = scratch
        self.reference = OrtEngine(bundle, self.manifest, num_threads=1)
        self.engines: list[TensorRtEngine] = []
        self.device = CudaDouble()

    def plans(self, edit: Callable[[Any], object] = lambda profiles: None) -> PlanSet:
        directory = self._scratch / str(len(list(self._scratch.iterdir())))
        return write_plans(self.bundle, self.manifest, directory, edit)

    def engine(
        self, *, plans: PlanSet | None = None, manifest: Manifest | None = None, **options: Any
    ) -> TensorRtEngine:
        self.device = CudaDouble()
        options = {"runtime": RuntimeDouble(), "device": self.device, **options}
        plans = plans or self.plans()
        self.engines.append(TensorRtEngine(self.bundle, manifest or self.manifest, plans, **options))
        return self.engines[-1]

    def rig(self, **options: Any) -> Rig:
        return Rig(
            manifest=self.manifest,
            reference=self.reference,
            engine=self.engine(**options),
            tolerance=1e-4,
            min_iou=1.0,
        )

    def close(self) -> None:
        for engine in self.engines:
            engine.close()


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    workshop = Workshop(tiny_bundle, tmp_path_factory.mktemp("plans"))
    yield workshop
    workshop.close()


@pytest.fixture(scope="module", params=["tiny", "mini"])
def rig(
    request: pytest.FixtureRequest, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    bundle = tiny_bundle if request.param == "tiny" else engine_directory("mini")
    workshop = Workshop(bundle, tmp_path_factory.mktemp("plans"))
    yield workshop.rig()
    workshop.close()


class TestOnTheDouble(EngineCases):
    """Every case, on doubles of CUDA and TensorRT."""


def frame(rig: Rig, engine: TensorRtEngine, ids: Any, retained: Any, seed: int = 0) -> np.ndarray:
    patches, prompt = engine.encode_images(rig.pixels(seed)), engine.encode_prompt(ids)
    return engine.decode(patches, retained, prompt, rig.proprio(seed))


# -- memory, graphs and waiting ---------------------------------------------------------------------


def test_one_graph_per_pair_of_buckets_is_captured_when_the_engine_is_made(tiny: Workshop) -> None:
    engine = tiny.engine()
    num_prompts, num_retained = len(tiny.manifest.prompt_buckets), len(tiny.manifest.length_buckets)
    expected = 1 + num_prompts + num_prompts * num_retained
    assert tiny.device.num_captures == engine.statistics.num_graphs == expected


def test_serving_neither_allocates_nor_captures(tiny: Workshop) -> None:
    rig = tiny.rig()
    engine, device = rig.engine, tiny.device
    counts = device.num_allocations, device.num_captures, device.allocated_bytes
    for seed in range(200):
        ids = rig.prompt_ids(1 + seed % tiny.manifest.prompt_buckets[-1], seed)
        patches, prompt = engine.encode_images(rig.pixels(seed)), engine.encode_prompt(ids)
        retained = engine.prune(patches, prompt, rig.proprio(seed))
        engine.decode(patches, retained, prompt, rig.proprio(seed))
    assert (device.num_allocations, device.num_captures, device.allocated_bytes) == counts


def test_nothing_is_read_that_was_not_written_for_this_frame(tiny: Workshop) -> None:
    rig = tiny.rig()
    engine = rig.engine
    for length, count in ((20, 32), (3, 1), (17, 5)):
        tiny.device.poison()  # NaN in every buffer, padding included
        ids = rig.prompt_ids(length)
        patches, prompt = engine.encode_images(rig.pixels()), engine.encode_prompt(ids)
        pruned = engine.prune(patches, prompt, rig.proprio())
        rig.assert_same_set(pruned, rig.expected_set(ids))
        for retained in (pruned, rig.some_indices(count)):
            actions = engine.decode(patches, retained, prompt, rig.proprio())
            rig.assert_close(actions, rig.expected(ids, retained))


def test_the_pruned_set_is_not_sent_back_to_the_device(tiny: Workshop) -> None:
    rig = tiny.rig()
    engine = rig.engine
    patches, prompt = engine.encode_images(rig.pixels()), engine.encode_prompt(rig.prompt_ids(5))
    pruned = engine.prune(patches, prompt, rig.proprio())
    before = tiny.device.num_uploads
    engine.decode(patches, pruned.copy(), prompt, rig.proprio())
    assert tiny.device.num_uploads == before, "the graph holds the only upload, that of proprio"
    engine.decode(patches, rig.some_indices(3), prompt, rig.proprio())
    assert tiny.device.num_uploads == before + 2


def test_it_can_be_compared_with_torch_part_by_part(tiny: Workshop) -> None:
    loaded = load_engine(tiny.bundle, "torch")
    engine = tiny.engine()
    allocations = []
    for sample in random_samples(loaded, 3, seed=4):
        comparison = compare(loaded.engine, engine, sample)
        assert comparison.kept_iou == 1.0
        assert comparison.max_abs_error < 1e-4
        assert comparison.prompt_error < 1e-4
        assert comparison.vision_cosine > 0.99999
        assert comparison.non_finite == ()
        allocations.append(tiny.device.num_allocations)
    assert len(set(allocations)) == 1, "staging memory is taken once"


@pytest.mark.parametrize(("synchronous", "waits"), [(False, [0, 1, 1]), (True, [1, 1, 1])])
def test_a_stage_waits_only_where_the_host_needs_its_result(
    tiny: Workshop, synchronous: bool, waits: list[int]
) -> None:
    rig = tiny.rig(synchronous=synchronous)
    engine, device = rig.engine, tiny.device
    prompt = engine.encode_prompt(rig.prompt_ids(5))
    counts = [device.num_synchronizations]
    patches = engine.encode_images(rig.pixels())
    counts.append(device.num_synchronizations)
    retained = engine.prune(patches, prompt, rig.proprio())
    counts.append(device.num_synchronizations)
    engine.decode(patches, retained, prompt, rig.proprio())
    counts.append(device.num_synchronizations)
    assert np.diff(counts).tolist() == waits


def test_what_is_returned_does_not_change_with_the_next_frame(tiny: Workshop) -> None:
    rig = tiny.rig()
    engine = rig.engine
    prompt = engine.encode_prompt(rig.prompt_ids(5))
    patches = engine.encode_images(rig.pixels())
    retained = engine.prune(patches, prompt, rig.proprio())
    actions = engine.decode(patches, retained, prompt, rig.proprio())
    kept_set, kept_actions = retained.copy(), actions.copy()
    frame(rig, engine, rig.prompt_ids(9), rig.some_indices(20), seed=3)
    np.testing.assert_array_equal(retained, kept_set)
    np.testing.assert_array_equal(actions, kept_actions)


def test_closing_waits_for_what_is_under_way(tiny: Workshop) -> None:
    rig = tiny.rig()
    rig.engine.encode_images(rig.pixels())
    rig.engine.close()  # the double refuses to run a plan that was freed first
    assert tiny.device.allocated_bytes == 0


def test_closing_frees_everything_and_may_be_repeated(tiny: Workshop) -> None:
    rig = tiny.rig()
    engine = rig.engine
    patches, prompt = engine.encode_images(rig.pixels()), engine.encode_prompt(rig.prompt_ids(5))
    engine.close()
    engine.close()
    assert tiny.device.allocated_bytes == 0
    calls: list[Callable[[], object]] = [
        lambda: engine.encode_images(rig.pixels()),
        lambda: engine.encode_prompt(rig.prompt_ids(5)),
        lambda: engine.prune(patches, prompt, rig.proprio()),
        lambda: engine.decode(patches, rig.some_indices(3), prompt, rig.proprio()),
    ]
    for call in calls:
        with pytest.raises(EngineError, match="closed"):
            call()


# -- where there is no graph ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["not_capturable", "breaks_capture"])
def test_a_key_that_cannot_be_captured_runs_its_exact_shape(
    tiny: Workshop, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    D, bucket, prompt = tiny.manifest.model.hidden_size, 16, tiny.manifest.prompt_buckets[0]
    rig = tiny.rig(runtime=RuntimeDouble(**{how: [((1, bucket), (1, prompt, D))]}))
    engine = rig.engine
    assert engine.statistics.capture_failures == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    for count, fallbacks in ((bucket, 1), (bucket - 3, 2), (bucket, 3), (bucket + 1, 3)):
        ids, retained = rig.prompt_ids(5), rig.some_indices(count)
        rig.assert_close(frame(rig, engine, ids, retained), rig.expected(ids, retained))
        assert engine.statistics.exact_launches == fallbacks
    assert tiny.device.num_captures == engine.statistics.num_graphs + (how == "breaks_capture")


def test_an_engine_without_any_graph_still_serves(tiny: Workshop) -> None:
    D = tiny.manifest.model.hidden_size
    prompts, retained_counts = tiny.manifest.prompt_buckets, tiny.manifest.length_buckets
    shapes = [(), *(((1, m, D),) for m in prompts)]
    shapes += [((1, k), (1, m, D)) for m in prompts for k in retained_counts]
    rig = tiny.rig(runtime=RuntimeDouble(breaks_capture=shapes))
    engine = rig.engine
    assert engine.statistics.num_graphs == 0
    ids = rig.prompt_ids(7)
    patches, prompt = engine.encode_images(rig.pixels()), engine.encode_prompt(ids)
    retained = engine.prune(patches, prompt, rig.proprio())
    rig.assert_same_set(retained, rig.expected_set(ids))
    actions = engine.decode(patches, retained, prompt, rig.proprio())
    rig.assert_close(actions, rig.expected(ids, retained))


def test_a_sequence_is_never_padded_to_more_than_twice_its_length(tmp_path: Path) -> None:
    # 60 rows are fixed in engines/mini: with one token of each, 62 rows would become 60 + 128 + 31.
    bundle = shutil.copytree(engine_directory("mini"), tmp_path / "mini", ignore=lambda d, n: ["plans"])
    content = json.loads((bundle / "manifest.json").read_text())
    content.update(length_buckets=[128], prompt_buckets=[31])
    (bundle / "manifest.json").write_text(json.dumps(content))
    (tmp_path / "plans").mkdir()
    workshop = Workshop(bundle, tmp_path / "plans")
    rig = workshop.rig()
    engine = rig.engine
    for count, length, shape in ((1, 1, (1, 1)), (80, 2, (128, 31)), (128, 31, (128, 31))):
        ids, retained = rig.prompt_ids(length), rig.some_indices(count)
        rig.assert_close(frame(rig, engine, ids, retained), rig.expected(ids, retained))
        assert (engine.statistics.retained_bucket, engine.statistics.prompt_bucket) == shape
    assert engine.statistics.exact_launches == 1
    workshop.close()


# -- bad input --------------------------------------------------------------------------------------


def test_inputs_that_do_not_fit_are_refused_by_name(tiny: Workshop) -> None:
    rig = tiny.rig()
    engine = rig.engine
    patches, prompt = engine.encode_images(rig.pixels()), engine.encode_prompt(rig.prompt_ids(5))
    with pytest.raises(EngineError, match="vision"):
        engine.encode_images(rig.pixels()[:, :3])
    patches = engine.encode_images(rig.pixels())
    for ids in ([1, 10_000], [1, -1], [[1, 2]]):
        with pytest.raises(EngineError, match="'prompt'"):
            engine.encode_prompt(np.array(ids))
    with pytest.raises(EngineError, match="prompt tokens; got 32; expected 1 to 31"):
        engine.encode_prompt(rig.prompt_ids(32))
    with pytest.raises(EngineError, match="prompt tokens; got 0"):
        engine.encode_prompt(rig.prompt_ids(0))
    with pytest.raises(EngineError, match="'pruner'.*shape"):
        engine.prune(patches, prompt, rig.proprio()[:3])
    for indices in ([0, 32], [-1, 3]):
        with pytest.raises(EngineError, match="retained indices"):
            engine.decode(patches, np.array(indices), prompt, rig.proprio())
    for count in (0, 33):
        with pytest.raises(EngineError, match=f"retained tokens; got {count}"):
            engine.decode(patches, np.arange(count), prompt, rig.proprio())


def test_scores_that_are_not_finite_retain_nothing(tiny: Workshop) -> None:
    rig = tiny.rig()
    prompt = rig.engine.encode_prompt(rig.prompt_ids(5))
    patches = rig.engine.encode_images(np.full_like(rig.pixels(), np.nan))
    retained = rig.engine.prune(patches, prompt, rig.proprio())
    assert (retained.dtype, retained.shape) == (np.int64, (0,))


@pytest.mark.parametrize("count", [-1, 33])
def test_a_count_that_cannot_be_is_refused(tiny: Workshop, count: int) -> None:
    runtime = RuntimeDouble()
    rig = tiny.rig(runtime=runtime)
    engine = rig.engine
    patches, prompt = engine.encode_images(rig.pixels()), engine.encode_prompt(rig.prompt_ids(5))
    runtime.spoil["count"] = count
    with pytest.raises(EngineError, match=f"retained tokens of the pruner; got {count}"):
        engine.prune(patches, prompt, rig.proprio())


def test_a_count_outside_every_profile_names_profiles_and_command(tiny: Workshop) -> None:
    def without_the_largest(profiles: Any) -> None:
        profiles["decoder"].pop()

    with pytest.raises(EngineError, match=r"'decoder'.*\(1, 32\).*profiles.*lightvla build"):
        tiny.engine(plans=tiny.plans(without_the_largest))


def test_a_plan_set_for_something_else_is_refused_before_any_memory_is_taken(tiny: Workshop) -> None:
    plans = tiny.plans()
    wrong = {
        "bundle_hash": "0" * 64,
        "target": "sm_120",
        "tensorrt_version": "10.3.0",
        "flavour": "tensorrt-rtx",
    }
    for field, value in wrong.items():
        other = replace(plans, fingerprint=replace(plans.fingerprint, **{field: value}))
        with pytest.raises(BundleError, match="lightvla build"):
            tiny.engine(plans=other)
        assert tiny.device.num_allocations == 0, field


@pytest.mark.parametrize("damage", ["missing", "truncated", "corrupt"])
def test_a_damaged_plan_is_refused(tiny: Workshop, damage: str) -> None:
    plans = tiny.plans()
    path = plans.directory / "pruner.plan"
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(BundleError, match=r"pruner\.plan"):
        tiny.engine(plans=plans)
    assert tiny.device.allocated_bytes == 0


def test_a_plan_that_does_not_load_leaves_nothing_behind(tiny: Workshop) -> None:
    plans = tiny.plans()
    path = plans.directory / "decoder.plan"
    path.write_text("no plan")
    plans = replace(plans, parts={**plans.parts, "decoder": PlanPart(**plan_part(path))})
    with pytest.raises(BundleError, match=r"decoder\.plan"):
        tiny.engine(plans=plans)
    assert tiny.device.allocated_bytes == 0


def test_a_plan_with_other_inputs_than_the_manifest_says_is_refused(tiny: Workshop) -> None:
    part = tiny.manifest.parts["pruner"]
    other = replace(part, inputs=(replace(part.inputs[0], name="tokens"), *part.inputs[1:]))
    manifest = replace(tiny.manifest, parts={**tiny.manifest.parts, "pruner": other})
    with pytest.raises(BundleError, match=r"'pruner'.*tokens.*lightvla build"):
        tiny.engine(manifest=manifest)
    assert tiny.device.allocated_bytes == 0


def test_memory_that_does_not_suffice_is_an_error_and_freed(tiny: Workshop) -> None:
    device = CudaDouble(total_bytes=10_000)
    with pytest.raises(EngineError, match="cudaErrorMemoryAllocation"):
        tiny.engine(device=device)
    assert device.allocated_bytes == 0


def test_patches_of_another_shape_are_not_written(tiny: Workshop) -> None:
    with pytest.raises(SpecError, match="patches"):
        tiny.engine().write_patches(np.zeros((3, 3), dtype=np.float32))


def test_bfloat16_is_rounded_as_everybody_rounds_it() -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    bits = np.random.default_rng(0).integers(0, 1 << 32, 10_000, dtype=np.uint32)
    ties = (np.arange(2000, dtype=np.uint32) << 16) + 0x8000
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], dtype=np.float32)
    values = np.concatenate([bits.view(np.float32), ties.view(np.float32), special])
    with np.errstate(invalid="ignore"):
        expected = values.astype(bfloat16)
    stored = round_to(values, np.dtype(np.uint16))
    np.testing.assert_array_equal(to_float32(stored), expected.astype(np.float32))


# -- the double itself: what it must refuse ---------------------------------------------------------


def test_the_double_refuses_what_cuda_refuses() -> None:
    device = CudaDouble()
    address, host = device.allocate(16), device.allocate_host((4,), np.float32)
    refusals: Mapping[str, Callable[[], object]] = {
        "IllegalAddress": lambda: device.upload(address + 4, host),
        "pageable": lambda: device.upload(address, np.zeros(4, dtype=np.float32)),
        "StreamCaptureUnsupported": lambda: device.capture(device.synchronize),
        "InvalidValue": lambda: device.launch(CudaDouble().capture(lambda: None)),
    }
    for message, call in refusals.items():
        with pytest.raises(LightVlaError, match=message):
            call()
    with pytest.raises(EngineError, match="StreamCaptureUnsupported"):
        device.capture(lambda: device.allocate(1) and None)
    device.close()
    with pytest.raises(EngineError, match="ContextIsDestroyed"):
        device.zero(address, 4)


def test_the_double_runs_nothing_before_it_is_waited_for() -> None:
    device = CudaDouble()
    address = device.allocate(8)
    host, back = device.allocate_host((1,), np.int64), device.allocate_host((1,), np.int64)
    host[0] = 5
    device.upload(address, host)
    device.download(back, address)
    assert back[0] == 0
    host[0] = 6
    device.synchronize()
    assert back[0] == 6, "a page-locked array is read when the stream gets there"


def test_the_double_refuses_a_graph_whose_context_changed(tiny: Workshop) -> None:
    device = CudaDouble()
    plan = RuntimeDouble().load(tiny.plans().directory / "vision.plan", device)
    context = plan.create_context(0, device.allocate(plan.workspace_bytes), for_capture=True)
    shapes = {"pixel_values": plan.tensors["pixel_values"].shape}
    addresses = {name: device.allocate(1 << 20) for name in plan.tensors}
    context.bind(shapes, addresses)
    with pytest.raises(EngineError, match="StreamCaptureUnsupported"):
        device.capture(context.enqueue)  # the first run after a change sets up and cannot be captured
    context.enqueue()
    graph = device.capture(context.enqueue)
    device.launch(graph)
    context.bind(shapes, addresses)
    with pytest.raises(EngineError, match="changed since"):
        device.launch(graph)
