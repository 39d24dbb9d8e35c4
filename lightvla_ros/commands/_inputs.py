"""Random but plausible inputs for commands that exercise an engine without a robot."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.app import LoadedEngine, make_preprocessor
from lightvla_ros.backends.comparison import EngineSample

_BLOB_PX = 16


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
