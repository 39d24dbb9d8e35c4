"""Engine inputs for commands that run without a robot: random ones, frames of a world, files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.app import make_policy
from lightvla_ros.backends.comparison import EngineSample
from lightvla_ros.backends.loading import LoadedEngine
from lightvla_ros.backends.tokenizer import load_encoder
from lightvla_ros.core.errors import BundleError, ConfigError, SpecError
from lightvla_ros.core.policy_config import make_preprocessor

WORLDS = ("tabletop",)
# Length of a usual prompt: a LIBERO instruction is 19 to 37 tokens long (spec §3.1).
PROMPT_TOKENS = 28
_BLOB_PX = 16
# By then the scripted expert has usually reached, grasped or carried the object.
_MAX_EXPERT_STEPS = 80
_REQUIRED = ("input_ids", "pixel_values", "proprio")
_OPTIONAL = ("normalized_actions", "keep_mask")


def random_image(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Draw a uint8 [height, width, 3] image of coloured blobs: pure noise has no structure to retain."""
    rows, columns = -(-height // _BLOB_PX), -(-width // _BLOB_PX)
    blobs = rng.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    image = blobs.repeat(_BLOB_PX, axis=0).repeat(_BLOB_PX, axis=1)[:height, :width]
    return np.ascontiguousarray(image)


def random_ids(rng: np.random.Generator, loaded: LoadedEngine, length: int) -> NDArray[np.int64]:
    """Draw int64 [length] prompt ids, BOS first."""
    ids = rng.integers(0, loaded.model.vocab_size, length)
    ids[0] = loaded.model.bos_id
    return ids


def random_samples(loaded: LoadedEngine, count: int, seed: int) -> list[EngineSample]:
    """Draw engine inputs with prompts from the shortest to the longest allowed."""
    rng = np.random.default_rng(seed)
    preprocess, size = make_preprocessor(loaded.policy), loaded.policy.image_size
    lengths = np.linspace(2, loaded.policy.max_prompt_tokens, count).astype(int)
    return [
        EngineSample(
            input_ids=random_ids(rng, loaded, length),
            pixel_values=preprocess([random_image(rng, size, size) for _ in loaded.policy.camera_names]),
            proprio=rng.uniform(-1, 1, loaded.policy.proprio_dim).astype(np.float32),
        )
        for length in lengths
    ]


def world_samples(loaded: LoadedEngine, count: int, seed: int) -> list[EngineSample]:
    """Photograph the tabletop world while its scripted expert acts, one instruction after the other.

    Raises:
        BundleError: the bundle has no tokenizer.
        ConfigError: the world lacks a camera of the bundle, or nothing can be rendered.
    """
    from lightvla_ros.sim.expert import TabletopExpert
    from lightvla_ros.sim.tabletop import Tabletop

    if loaded.tokenizer is None:
        raise BundleError(
            f"tokenizer of '{loaded.name}'",
            got="none",
            expected="tokenizer.json, because a world poses instructions",
            fix="leave out --world, or export again from a checkpoint with a tokenizer.json",
        )
    policy = make_policy(loaded, load_encoder(loaded.tokenizer, loaded.model))
    world, expert, rng = Tabletop(), TabletopExpert(), np.random.default_rng(seed)
    preprocess, samples = make_preprocessor(loaded.policy), []
    for number in range(count):
        instruction = world.instructions()[number % len(world.instructions())]
        state = world.reset(instruction=instruction, seed=seed + number)
        _check_cameras(policy.spec.camera_names, state.images)
        expert.reset(world)
        for _ in range(rng.integers(_MAX_EXPERT_STEPS)):
            world.step(expert.act(world))
        state = world.observe()
        samples.append(
            EngineSample(
                input_ids=policy.prompt_encoder.encode(instruction),
                pixel_values=preprocess([state.images[c] for c in policy.spec.camera_names]),
                proprio=policy.proprio_normalizer.normalize(state.proprio),
            )
        )
    world.close()
    return samples


def file_samples(loaded: LoadedEngine, path: Path) -> list[EngineSample]:
    """Read samples from an .npz file.

    Its arrays are named `<sample>/<array>`: input_ids [n], pixel_values [1, C, S, S] and proprio [P], and
    where somebody else has worked them out, normalized_actions and keep_mask of the reference.

    Raises:
        ConfigError: the file cannot be read.
        SpecError: an array is missing, unknown, or does not fit the model.
    """
    try:
        with np.load(path) as archive:
            arrays = dict(archive)
    except (OSError, ValueError, AttributeError) as e:
        raise ConfigError(
            str(path), got=str(e), expected="an .npz file of samples", fix="write it with numpy.savez"
        ) from e
    by_sample: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in arrays.items():
        sample, _, kind = name.rpartition("/")
        by_sample.setdefault(sample, {})[kind] = array
    if not by_sample:
        raise ConfigError(str(path), got="no arrays", expected=f"arrays <sample>/{', '.join(_REQUIRED)}")
    return [_sample(loaded, f"{path}: '{name}'", found) for name, found in sorted(by_sample.items())]


def _sample(loaded: LoadedEngine, source: str, arrays: Mapping[str, NDArray[Any]]) -> EngineSample:
    missing, unknown = set(_REQUIRED) - arrays.keys(), arrays.keys() - {*_REQUIRED, *_OPTIONAL}
    if missing or unknown or (_OPTIONAL[0] in arrays) != (_OPTIONAL[1] in arrays):
        raise SpecError(
            source,
            got=sorted(arrays),
            expected=f"{list(_REQUIRED)}, and both or none of {list(_OPTIONAL)}",
            fix="name the arrays <sample>/<array>",
        )
    config, policy = loaded.model, loaded.policy
    channels = 3 * len(config.towers) * config.num_cameras
    ids = arrays["input_ids"].astype(np.int64).ravel()
    if len(ids) and ids[-1] == policy.action_prefix_id:
        ids = ids[:-1]  # the model appends it itself
    shapes: dict[str, tuple[int, ...]] = {
        "pixel_values": (1, channels, config.image_size, config.image_size),
        "proprio": (config.proprio_dim,),
        "normalized_actions": (config.chunk_size, config.action_dim),
        "keep_mask": (config.num_patches,),
    }
    fitted = {
        name: _fitted(source, name, arrays[name], shape) for name, shape in shapes.items() if name in arrays
    }
    if not 2 <= len(ids) <= policy.max_prompt_tokens:
        raise SpecError(
            f"{source}, input_ids",
            got=f"{len(ids)} ids",
            expected=f"2 to {policy.max_prompt_tokens}",
            fix="take the prompt of one sample",
        )
    keep_mask = fitted.pop("keep_mask", None)
    return EngineSample(input_ids=ids, keep_mask=None if keep_mask is None else keep_mask > 0, **fitted)


def _fitted(source: str, name: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
    if array.size != np.prod(shape) or not np.isfinite(array).all():
        raise SpecError(
            f"{source}, {name}",
            got=f"shape {array.shape}" + ("" if np.isfinite(array).all() else ", non-finite values"),
            expected=f"{shape}, finite numbers",
            fix="take the arrays of one sample of this model",
        )
    return array.reshape(shape).astype(np.float32)


def _check_cameras(wanted: tuple[str, ...], present: Mapping[str, Any]) -> None:
    if missing := [name for name in wanted if name not in present]:
        raise ConfigError(
            "--world tabletop",
            got=f"cameras {sorted(present)}",
            expected=f"{missing} too, which the bundle was trained with",
            fix="leave out --world, or pass --samples-file",
        )
