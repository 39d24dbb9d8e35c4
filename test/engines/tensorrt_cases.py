"""What the TensorRT engine promises, on whatever `rig` gives: the double, or a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from lightvla_ros.backends.manifest import Manifest
from lightvla_ros.backends.onnxruntime_engine import OrtEngine
from lightvla_ros.backends.tensorrt.engine import TensorRtEngine
from lightvla_ros.core.errors import EngineError

# Patches, prompts and retained sets are opaque to callers, so the cases compare actions.
Indices = NDArray[np.int64]
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Rig:
    """An engine, what it is compared with, and how far the two may differ.

    Attributes:
        manifest: of the bundle.
        reference: the same bundle on ONNX Runtime.
        engine: the engine under test.
        tolerance: of normalised actions.
        min_iou: of retained sets.
    """

    manifest: Manifest
    reference: OrtEngine
    engine: TensorRtEngine
    tolerance: float
    min_iou: float

    @property
    def num_patches(self) -> int:
        return self.manifest.model.num_patches

    def prompt_ids(self, length: int, seed: int = 0) -> NDArray[np.int64]:
        """BOS and `length` prompt tokens."""
        rng = np.random.default_rng(seed)
        ids = rng.integers(4, self.manifest.model.vocab_size, length)
        return np.concatenate([[self.manifest.model.bos_id], ids])

    def pixels(self, seed: int = 0) -> Array:
        shape = self.manifest.parts["vision"].inputs[0].shape
        return np.random.default_rng(seed).normal(size=shape).astype(np.float32)

    def proprio(self, seed: int = 0) -> Array:
        size = self.manifest.model.proprio_dim
        return np.random.default_rng(seed).uniform(-1, 1, size).astype(np.float32)

    def some_indices(self, count: int, seed: int = 0) -> Indices:
        chosen = np.random.default_rng(seed).choice(self.num_patches, count, replace=False)
        return np.sort(chosen).astype(np.int64)

    def expected(self, ids: Indices, retained: Indices, seed: int = 0) -> Array:
        """Actions of the reference for a forced set."""
        patches, prompt = self.reference.encode_images(self.pixels(seed)), self.reference.encode_prompt(ids)
        return self.reference.decode(patches, retained, prompt, self.proprio(seed))

    def expected_set(self, ids: Indices, seed: int = 0) -> Indices:
        patches, prompt = self.reference.encode_images(self.pixels(seed)), self.reference.encode_prompt(ids)
        return self.reference.prune(patches, prompt, self.proprio(seed))

    def assert_close(self, actions: Array, expected: Array) -> None:
        assert actions.dtype == np.float32
        np.testing.assert_allclose(actions, expected, atol=self.tolerance)

    def assert_same_set(self, retained: Indices, expected: Indices) -> None:
        both, either = np.intersect1d(retained, expected), np.union1d(retained, expected)
        assert retained.dtype == np.int64
        assert (np.diff(retained) > 0).all()
        assert len(both) / len(either) >= self.min_iou


def edges(buckets: Sequence[int]) -> list[int]:
    """Return 1 and every size at, just below and just above a bucket, up to the last."""
    around = {size for bucket in buckets for size in (bucket - 1, bucket, bucket + 1)} | {1}
    return sorted(size for size in around if 1 <= size <= buckets[-1])


class EngineCases:
    """A contract: the module of a subclass brings the fixture `rig`."""

    @pytest.fixture
    def engine(self, rig: Rig) -> TensorRtEngine:
        return rig.engine

    def test_any_retained_count_gives_what_onnxruntime_gives(self, rig: Rig, engine: TensorRtEngine) -> None:
        ids = rig.prompt_ids(5)
        patches, prompt = engine.encode_images(rig.pixels()), engine.encode_prompt(ids)
        for count in edges(rig.manifest.length_buckets):
            retained = rig.some_indices(count, seed=count)
            actions = engine.decode(patches, retained, prompt, rig.proprio())
            rig.assert_close(actions, rig.expected(ids, retained))

    def test_any_prompt_length_gives_what_onnxruntime_gives(self, rig: Rig, engine: TensorRtEngine) -> None:
        patches = engine.encode_images(rig.pixels())
        for length in edges(rig.manifest.prompt_buckets):
            ids = rig.prompt_ids(length, seed=length)
            prompt = engine.encode_prompt(ids)
            retained = engine.prune(patches, prompt, rig.proprio())
            rig.assert_same_set(retained, rig.expected_set(ids))
            actions = engine.decode(patches, retained, prompt, rig.proprio())
            rig.assert_close(actions, rig.expected(ids, retained))

    def test_every_frame_gets_its_own_answer(self, rig: Rig, engine: TensorRtEngine) -> None:
        ids = rig.prompt_ids(7)
        prompt = engine.encode_prompt(ids)
        for seed in range(5):
            patches = engine.encode_images(rig.pixels(seed))
            retained = engine.prune(patches, prompt, rig.proprio(seed))
            rig.assert_same_set(retained, rig.expected_set(ids, seed))
            actions = engine.decode(patches, retained, prompt, rig.proprio(seed))
            rig.assert_close(actions, rig.expected(ids, retained, seed))

    def test_a_forced_set_and_the_pruned_one_do_not_disturb_each_other(
        self, rig: Rig, engine: TensorRtEngine
    ) -> None:
        ids = rig.prompt_ids(6)
        patches, prompt = engine.encode_images(rig.pixels()), engine.encode_prompt(ids)
        pruned = engine.prune(patches, prompt, rig.proprio())
        everything = np.arange(rig.num_patches)
        for retained in (
            pruned,
            everything,
            pruned,
            rig.some_indices(3),
            rig.some_indices(3, seed=1),
            pruned,
        ):
            actions = engine.decode(patches, retained, prompt, rig.proprio())
            rig.assert_close(actions, rig.expected(ids, retained))

    def test_an_earlier_prompt_can_be_used_again(self, rig: Rig, engine: TensorRtEngine) -> None:
        all_ids = [rig.prompt_ids(length, seed=length) for length in (3, rig.manifest.prompt_buckets[-1], 4)]
        prompts = [engine.encode_prompt(ids) for ids in all_ids]
        patches = engine.encode_images(rig.pixels())
        for index in (0, 1, 0, 2, 1):
            retained = engine.prune(patches, prompts[index], rig.proprio())
            rig.assert_same_set(retained, rig.expected_set(all_ids[index]))
            actions = engine.decode(patches, retained, prompts[index], rig.proprio())
            rig.assert_close(actions, rig.expected(all_ids[index], retained))

    def test_images_that_nobody_asked_about_leave_no_trace(self, rig: Rig, engine: TensorRtEngine) -> None:
        ids = rig.prompt_ids(5)
        prompt = engine.encode_prompt(ids)
        for seed in (1, 2, 3):
            patches = engine.encode_images(rig.pixels(seed))
        retained = engine.prune(patches, prompt, rig.proprio(3))
        actions = engine.decode(patches, retained, prompt, rig.proprio(3))
        rig.assert_close(actions, rig.expected(ids, retained, seed=3))

    def test_an_image_that_is_not_finite_does_no_lasting_harm(self, rig: Rig, engine: TensorRtEngine) -> None:
        ids = rig.prompt_ids(5)
        prompt = engine.encode_prompt(ids)
        broken = engine.encode_images(np.full_like(rig.pixels(), np.nan))
        engine.prune(broken, prompt, rig.proprio())
        assert np.isnan(engine.decode(broken, rig.some_indices(3), prompt, rig.proprio())).any()
        patches = engine.encode_images(rig.pixels())
        retained = engine.prune(patches, prompt, rig.proprio())
        rig.assert_same_set(retained, rig.expected_set(ids))
        actions = engine.decode(patches, retained, prompt, rig.proprio())
        rig.assert_close(actions, rig.expected(ids, retained))

    def test_what_lies_on_the_device_can_be_read_and_patches_written(
        self, rig: Rig, engine: TensorRtEngine
    ) -> None:
        ids = rig.prompt_ids(6)
        reference = rig.reference
        expected = reference.read_patches(reference.encode_images(rig.pixels(1)))
        scale = np.abs(expected).max()
        other = engine.encode_images(rig.pixels(2))
        prompt = engine.encode_prompt(ids)
        engine.encode_prompt(rig.prompt_ids(8, seed=3))
        for read, wanted in zip(
            engine.read_prompt(prompt), reference.read_prompt(reference.encode_prompt(ids)), strict=True
        ):
            rig.assert_close(read, wanted)
        patches = engine.write_patches(expected)
        assert np.abs(engine.read_patches(patches) - expected).max() <= rig.tolerance * scale
        retained = rig.some_indices(7)
        actions = engine.decode(patches, retained, prompt, rig.proprio(1))
        rig.assert_close(actions, rig.expected(ids, retained, seed=1))
        with pytest.raises(EngineError, match="earlier images"):
            engine.read_patches(other)

    def test_patches_of_earlier_images_are_refused(self, rig: Rig, engine: TensorRtEngine) -> None:
        prompt = engine.encode_prompt(rig.prompt_ids(5))
        earlier = engine.encode_images(rig.pixels(1))
        engine.encode_images(rig.pixels(2))
        with pytest.raises(EngineError, match="earlier images"):
            engine.prune(earlier, prompt, rig.proprio())
        with pytest.raises(EngineError, match="earlier images"):
            engine.decode(earlier, rig.some_indices(3), prompt, rig.proprio())

    def test_nothing_is_captured_on_the_way(self, rig: Rig, engine: TensorRtEngine) -> None:
        before = engine.statistics
        patches = engine.encode_images(rig.pixels())
        prompt = engine.encode_prompt(rig.prompt_ids(9))
        engine.decode(patches, rig.some_indices(1), prompt, rig.proprio())
        after = engine.statistics
        assert before.num_graphs == after.num_graphs
        assert after.capture_failures == 0
        assert after.exact_launches == 0
        assert after.graph_launches == before.graph_launches + 1
        assert after.retained_bucket == rig.manifest.length_buckets[0]
        assert after.prompt_bucket == rig.manifest.prompt_buckets[0]
