"""`load_policy`: from a directory to action chunks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import lightvla_ros
from lightvla_ros.backends.loading import load_engine
from lightvla_ros.core.errors import BundleError, ConfigError, EngineError, InstructionError
from lightvla_ros.core.observation import Observation
from lightvla_ros.core.policy import PrunedPolicy
from lightvla_ros.model import LightVla, save_checkpoint


def observation(instruction: str = "pick up the red cup", seed: int = 0) -> Observation:
    rng = np.random.default_rng(seed)
    return Observation(
        images={
            name: rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for name in ("third_person", "wrist")
        },
        proprio=rng.uniform(-0.1, 0.2, 8),
        instruction=instruction,
        stamp_ns=5,
        epoch=2,
    )


@pytest.fixture(scope="module")
def policy(tiny_bundle: Path) -> PrunedPolicy:
    return lightvla_ros.load_policy(tiny_bundle, num_threads=1)


@pytest.fixture
def checkpoint(tiny_model: LightVla, tokenizer_json: str, tmp_path: Path) -> Path:
    overrides = {"jpeg": False, "max_prompt_tokens": 32}
    save_checkpoint(tiny_model, tmp_path / "tiny", extras={"policy": overrides})
    (tmp_path / "tiny" / "tokenizer.json").write_text(tokenizer_json)
    return tmp_path / "tiny"


def test_a_bundle_answers_observations(policy: PrunedPolicy) -> None:
    assert (policy.spec.name, policy.spec.backend) == ("tiny", "onnxruntime")
    chunk = policy.predict_chunk(observation())
    assert (chunk.actions.shape, chunk.actions.dtype) == ((8, 7), np.float32)
    assert (chunk.stamp_ns, chunk.step_period_ns, chunk.epoch) == (5, 50_000_000, 2)
    assert {name: mask.shape for name, mask in chunk.keep_masks.items()} == {
        "third_person": (4, 4),
        "wrist": (4, 4),
    }
    assert 1 <= chunk.num_retained <= 32


def test_checkpoint_and_bundle_give_the_same_actions(policy: PrunedPolicy, checkpoint: Path) -> None:
    reference = lightvla_ros.load_policy(checkpoint)
    assert reference.spec.backend == "torch"
    for seed in range(3):
        expected = reference.predict_chunk(observation(seed=seed))
        chunk = policy.predict_chunk(observation(seed=seed))
        np.testing.assert_allclose(chunk.actions, expected.actions, atol=1e-4)
        for camera, mask in expected.keep_masks.items():
            np.testing.assert_array_equal(chunk.keep_masks[camera], mask)


def test_without_pruning_the_same_engine_decodes_every_token(tiny_bundle: Path, checkpoint: Path) -> None:
    unpruned = lightvla_ros.load_policy(tiny_bundle, num_threads=1, pruning=False)
    reference = lightvla_ros.load_policy(checkpoint, pruning=False)
    chunk = unpruned.predict_chunk(observation())
    assert chunk.num_retained == 32
    assert all(mask.all() for mask in chunk.keep_masks.values())
    np.testing.assert_allclose(chunk.actions, reference.predict_chunk(observation()).actions, atol=1e-4)


@pytest.mark.parametrize("stage", ["pruner", "decoder"])
def test_non_finite_numbers_of_an_engine_never_become_actions(tiny_bundle: Path, stage: str) -> None:
    policy = lightvla_ros.load_policy(tiny_bundle, num_threads=1, pruning=stage == "pruner")
    encode = policy.engine.encode_images
    policy.engine.encode_images = lambda pixels: encode(pixels) * np.float32("nan")  # type: ignore[method-assign]
    expected = {"pruner": "scores of the pruner", "decoder": "actions of the policy"}[stage]
    with pytest.raises(EngineError, match=f"{expected}; got .*non-finite"):
        policy.predict_chunk(observation())


def test_another_instruction_gives_other_actions_and_the_first_comes_back(policy: PrunedPolicy) -> None:
    first, other, again = (
        policy.predict_chunk(observation(text)).actions
        for text in ("pick up the red cup", "put on", "Pick  up the RED cup")
    )
    assert np.abs(first - other).max() > 1e-4
    np.testing.assert_array_equal(again, first)


def test_an_instruction_too_long_is_refused(policy: PrunedPolicy) -> None:
    with pytest.raises(InstructionError, match="at most 32"):
        policy.check_instruction("pick up " * 20)


def test_a_known_statistics_key_is_accepted_in_both_spellings(tiny_bundle: Path) -> None:
    for key in ("first", "first_no_noops"):
        assert load_engine(tiny_bundle, statistics_key=key).policy.statistics_key == "first_no_noops"
    with pytest.raises(ConfigError, match="first_no_noops"):
        load_engine(tiny_bundle, statistics_key="second")


def test_a_bundle_without_tokenizer_runs_on_token_ids_only(bundle_copy: Path) -> None:
    manifest = bundle_copy / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "tokenizer": None}))
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        lightvla_ros.load_policy(bundle_copy)
    assert load_engine(bundle_copy).engine.encode_prompt(np.array([1, 4, 5])).tokens.shape == (1, 2, 32)


def test_a_corrupt_or_foreign_tokenizer_is_refused(bundle_copy: Path) -> None:
    path = bundle_copy / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    path.write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        lightvla_ros.load_policy(bundle_copy)
    tokenizer["model"]["vocab"] |= {f"word{i}": 100 + i for i in range(60)}
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(BundleError, match="embedding table"):
        lightvla_ros.load_policy(bundle_copy)


def test_a_tokenizer_that_leaves_out_bos_gets_it(bundle_copy: Path, policy: PrunedPolicy) -> None:
    path = bundle_copy / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    path.write_text(json.dumps({**tokenizer, "post_processor": None}))
    other = lightvla_ros.load_policy(bundle_copy)
    expected = policy.prompt_encoder.encode("put on the red cup")
    np.testing.assert_array_equal(other.prompt_encoder.encode("put on the red cup"), expected)
    assert expected[0] == 1


def test_backends_that_cannot_run_a_directory_say_what_can(tiny_bundle: Path, checkpoint: Path) -> None:
    with pytest.raises(BundleError, match="no TensorRT plan.*lightvla build.*onnxruntime"):
        load_engine(tiny_bundle, "tensorrt")
    with pytest.raises(EngineError, match="lightvla export"):
        load_engine(checkpoint, "onnxruntime")
    with pytest.raises(ConfigError, match="backend"):
        load_engine(tiny_bundle, "openvino")
    with pytest.raises(ConfigError, match="num_threads"):
        load_engine(tiny_bundle, num_threads=0)
    with pytest.raises(ConfigError, match="device"):
        load_engine(tiny_bundle, "torch", device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(EngineError, match="sees no CUDA GPU"):
            load_engine(tiny_bundle, "torch", device="cuda")


def test_a_directory_that_is_neither_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json nor config\.json"):
        load_engine(tmp_path)
    with pytest.raises(BundleError, match="no directory"):
        load_engine(tmp_path / "nowhere")
