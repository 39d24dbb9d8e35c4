"""Measure the stages of a policy with the number of retained tokens forced."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lightvla_ros.app import LoadedEngine, make_policy
from lightvla_ros.backends.flops import stage_flops
from lightvla_ros.commands._inputs import random_ids, random_image
from lightvla_ros.core.observation import Observation
from lightvla_ros.core.policy import STAGES, Engine, PrunedPolicy
from lightvla_ros.model.config import ModelConfig

# What the cameras of most robots give.
_CAMERA_HEIGHT, _CAMERA_WIDTH = 480, 640
# A LIBERO instruction is 19 to 37 tokens long (spec §3.1).
_PROMPT_TOKENS = 28
_WARM_UP = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Latency of one stage at one retained count."""

    retained: int
    stage: str
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Decoder time at one count over that at the largest count: measured, and by operations."""

    retained: int
    measured: float
    expected: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Latencies of one model."""

    name: str
    backend: str
    num_visual_tokens: int
    prompt_tokens: int
    retained: tuple[int, ...]
    stages: tuple[str, ...]
    rows: tuple[Row, ...]
    scaling: tuple[Scaling, ...]


class _ForcedRetention:
    """An engine that runs its pruner and then retains `indices` whatever it chose."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.indices: NDArray[np.int64] = np.zeros(1, dtype=np.int64)

    def encode_prompt(self, input_ids: NDArray[np.int64]) -> Any:
        return self._engine.encode_prompt(input_ids)

    def encode_images(self, pixel_values: NDArray[np.float32]) -> Any:
        return self._engine.encode_images(pixel_values)

    def prune(self, patches: Any, prompt: Any, proprio: NDArray[np.float32]) -> NDArray[np.int64]:
        self._engine.prune(patches, prompt, proprio)
        return self.indices

    def decode(
        self, patches: Any, retained_indices: NDArray[np.int64], prompt: Any, proprio: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        return self._engine.decode(patches, retained_indices, prompt, proprio)

    def close(self) -> None:
        self._engine.close()


def measure(loaded: LoadedEngine, retained: Sequence[int], repeat: int) -> Measured:
    """Time whole chunks at every retained count.

    Args:
        loaded: what to measure.
        retained: counts; those above the model's number of visual tokens are left out.
        repeat: chunks per count.
    """
    rng = np.random.default_rng(0)
    num_tokens = loaded.model.num_patches
    counts = tuple(sorted({min(count, num_tokens) for count in retained}))
    prompt_tokens = min(_PROMPT_TOKENS, loaded.policy.max_prompt_tokens)
    engine = _ForcedRetention(loaded.engine)
    ids = random_ids(rng, loaded, prompt_tokens).tolist()
    policy = make_policy(replace(loaded, engine=engine), lambda _: ids)
    observation = _observation(rng, policy)
    samples: dict[tuple[int, str], list[float]] = defaultdict(list)
    # All counts take turns, so that other load on the machine hits them alike.
    for turn in tqdm(range(-_WARM_UP, repeat), desc=loaded.name, unit="turn", leave=False):
        for count in counts:
            engine.indices = np.sort(rng.permutation(num_tokens)[:count])
            timings = policy.predict_chunk(observation).timings_ms
            if turn >= 0:
                for stage in STAGES:
                    samples[count, stage].append(timings[stage])
    rows = tuple(_row(count, stage, samples[count, stage]) for count in counts for stage in STAGES)
    return Measured(
        name=loaded.name,
        backend=loaded.backend,
        num_visual_tokens=num_tokens,
        prompt_tokens=prompt_tokens,
        retained=counts,
        stages=STAGES,
        rows=rows,
        scaling=_scaling(loaded.model, rows, prompt_tokens),
    )


def _observation(rng: np.random.Generator, policy: PrunedPolicy) -> Observation:
    return Observation(
        images={name: random_image(rng, _CAMERA_HEIGHT, _CAMERA_WIDTH) for name in policy.spec.camera_names},
        proprio=np.zeros(policy.spec.proprio_dim),
        instruction="measure",
        stamp_ns=0,
        epoch=0,
    )


def _row(retained: int, stage: str, milliseconds: list[float]) -> Row:
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return Row(retained=retained, stage=stage, p50_ms=float(p50), p95_ms=float(p95))


def _scaling(config: ModelConfig, rows: Sequence[Row], prompt_tokens: int) -> tuple[Scaling, ...]:
    decoder = {row.retained: row.p50_ms for row in rows if row.stage == "decoder"}
    flops = {count: stage_flops(config, count, prompt_tokens).decoder for count in decoder}
    largest = max(decoder)
    return tuple(
        Scaling(
            retained=count,
            measured=decoder[count] / decoder[largest],
            expected=flops[count] / flops[largest],
        )
        for count in decoder
    )
