"""ONNX Runtime: its options, what it refuses, and whose memory its results are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from lightvla_ros.backends.comparison import EngineSample, compare
from lightvla_ros.backends.export import export_bundle
from lightvla_ros.backends.loading import load_engine
from lightvla_ros.backends.manifest import Manifest
from lightvla_ros.backends.onnxruntime_engine import OrtEngine, OrtOptions, session_options
from lightvla_ros.commands._inputs import random_samples
from lightvla_ros.core.errors import BundleError, EngineError
from lightvla_ros.model import LightVla

N = 32


@pytest.fixture(scope="module")
def engine(tiny_bundle: Path) -> Iterator[OrtEngine]:
    engine = OrtEngine(tiny_bundle, Manifest.read(tiny_bundle), num_threads=1)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def samples(tiny_bundle: Path) -> list[EngineSample]:
    return random_samples(load_engine(tiny_bundle, num_threads=1), 2, seed=7)


def with_runtime(bundle: Path, **options: Any) -> Manifest:
    """Write options into a bundle's manifest, and read it back."""
    replace(Manifest.read(bundle), runtime={"onnxruntime": options}).write(bundle)
    return Manifest.read(bundle)


def chunk(engine: OrtEngine, sample: EngineSample) -> list[NDArray[Any]]:
    """Run every stage; return what each gave."""
    patches, prompt = engine.encode_images(sample.pixel_values), engine.encode_prompt(sample.input_ids)
    retained = engine.prune(patches, prompt, sample.proprio)
    return [patches, *prompt, retained, engine.decode(patches, retained, prompt, sample.proprio)]


def test_the_manifest_sets_the_options(bundle_copy: Path) -> None:
    manifest = with_runtime(bundle_copy, num_threads=3, spinning=True, provider="cpu")
    options = OrtOptions.from_manifest(manifest)
    assert options == OrtOptions(num_threads=3, spinning=True, provider="cpu")
    assert session_options(options).intra_op_num_threads == 3
    assert session_options(options).get_session_config_entry("session.intra_op.allow_spinning") == "1"


def test_threads_do_not_spin_unless_told(tiny_bundle: Path) -> None:
    options = session_options(OrtOptions.from_manifest(Manifest.read(tiny_bundle)))
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_threads_that_spin_give_the_same_actions(
    engine: OrtEngine, bundle_copy: Path, samples: list[EngineSample]
) -> None:
    spinning = OrtEngine(bundle_copy, with_runtime(bundle_copy, num_threads=2, spinning=True))
    for sample in samples:
        for result, expected in zip(chunk(spinning, sample), chunk(engine, sample), strict=True):
            np.testing.assert_allclose(result, expected, atol=1e-5)


def test_an_argument_wins_over_the_manifest(bundle_copy: Path) -> None:
    manifest = with_runtime(bundle_copy, num_threads=3)
    assert OrtOptions.from_manifest(manifest, num_threads=1).num_threads == 1


def test_without_options_half_of_the_cpus_are_used(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = OrtOptions.from_manifest(Manifest.read(tiny_bundle))
    for cpus, threads in ((1, 1), (2, 1), (8, 4)):
        monkeypatch.setattr("os.sched_getaffinity", lambda pid, cpus=cpus: set(range(cpus)))
        assert session_options(options).intra_op_num_threads == threads


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arena": True}, r"runtime\.onnxruntime\.arena; got unknown; .*num_threads.*provider"),
        ({"num_threads": 0}, r"num_threads; got 0"),
        ({"num_threads": True}, r"num_threads; got True"),
        ({"num_threads": "2"}, r"num_threads; got '2'"),
        ({"spinning": 1}, r"spinning; got 1; expected true or false"),
        ({"provider": "tensorrt"}, r"provider; got 'tensorrt'; .*'cpu', 'cuda'"),
        ({"provider": ["cpu"]}, r"provider; got \['cpu'\]"),
    ],
)
def test_a_wrong_option_is_named(bundle_copy: Path, options: dict[str, Any], message: str) -> None:
    manifest = with_runtime(bundle_copy, **options)
    with pytest.raises(BundleError, match=message):
        OrtEngine(bundle_copy, manifest)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this ONNX Runtime has CUDA"
)
def test_a_provider_that_is_not_installed_is_refused(bundle_copy: Path) -> None:
    manifest = with_runtime(bundle_copy, provider="cuda")
    with pytest.raises(EngineError, match=r"provider 'cuda'.*CPUExecutionProvider.*onnxruntime-gpu"):
        OrtEngine(bundle_copy, manifest)


def test_a_bfloat16_bundle_is_refused_before_its_files_are_read(bundle_copy: Path) -> None:
    (bundle_copy / "decoder.onnx").unlink()
    with pytest.raises(EngineError, match=r"bfloat16.*--precision"):
        OrtEngine(bundle_copy, replace(Manifest.read(bundle_copy), precision="bfloat16"))


def test_a_float16_bundle_runs_and_is_near_float32(
    tiny_model: LightVla, tiny_bundle: Path, samples: list[EngineSample], tmp_path: Path
) -> None:
    policy = Manifest.read(tiny_bundle).policy
    export_bundle(tiny_model, policy, tmp_path / "half", precision="float16")
    half = load_engine(tmp_path / "half", "onnxruntime", num_threads=1).engine
    reference = load_engine(tiny_bundle, "torch").engine
    for sample in samples:
        comparison = compare(reference, half, sample)
        assert comparison.action_cosine > 0.999
        assert comparison.max_abs_error < 0.01


def test_results_stay_what_they_were_when_the_engine_runs_again(
    engine: OrtEngine, samples: list[EngineSample]
) -> None:
    first = chunk(engine, samples[0])
    copies = [result.copy() for result in first]
    second = chunk(engine, samples[1])
    for result, copy, other in zip(first, copies, second, strict=True):
        np.testing.assert_array_equal(result, copy)
        assert not np.shares_memory(result, other)


@pytest.mark.parametrize("count", [1, N])
def test_no_retained_index_is_padded(engine: OrtEngine, samples: list[EngineSample], count: int) -> None:
    sample = samples[0]
    patches, prompt = engine.encode_images(sample.pixel_values), engine.encode_prompt(sample.input_ids)
    exact = engine.decode(patches, np.arange(count), prompt, sample.proprio)
    reversed_twice = np.arange(count)[::-1].copy()[::-1]  # not contiguous
    np.testing.assert_array_equal(engine.decode(patches, reversed_twice, prompt, sample.proprio), exact)


def test_arrays_need_not_be_contiguous(engine: OrtEngine, samples: list[EngineSample]) -> None:
    sample = samples[0]
    channels_last = np.ascontiguousarray(sample.pixel_values.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not channels_last.flags.c_contiguous
    np.testing.assert_array_equal(
        engine.encode_images(channels_last), engine.encode_images(sample.pixel_values)
    )


def test_another_dtype_or_shape_is_an_error_that_shows_both(
    engine: OrtEngine, samples: list[EngineSample]
) -> None:
    sample = samples[0]
    patches, prompt = engine.encode_images(sample.pixel_values), engine.encode_prompt(sample.input_ids)
    retained = engine.prune(patches, prompt, sample.proprio)
    with pytest.raises(EngineError, match=r"part 'vision'.*float64"):
        engine.encode_images(sample.pixel_values.astype(np.float64))
    with pytest.raises(EngineError, match=r"part 'decoder'.*int32"):
        engine.decode(patches, retained.astype(np.int32), prompt, sample.proprio)
    with pytest.raises(EngineError, match=r"part 'pruner'.*\(1, 3\)"):
        engine.prune(patches, prompt, sample.proprio[:3])
    with pytest.raises(EngineError, match=r"part 'decoder'.*out of range|part 'decoder'.*indices"):
        engine.decode(patches, np.array([N]), prompt, sample.proprio)
