"""Measure the stages of a policy on several backends in turns, with the number of retained tokens forced."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lightvla_ros.app import make_policy
from lightvla_ros.backends.flops import stage_bytes, stage_flops
from lightvla_ros.backends.loading import LoadedEngine
from lightvla_ros.backends.roofline import Roofline
from lightvla_ros.commands._bench_engines import REFERENCE_STYLE
from lightvla_ros.commands._inputs import PROMPT_TOKENS, random_ids, random_image
from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.observation import Observation
from lightvla_ros.core.policy import STAGES, Engine, PrunedPolicy
from lightvla_ros.model.config import ModelConfig

TOTAL = "total"
# What the cameras of most robots give.
_CAMERA_HEIGHT, _CAMERA_WIDTH = 480, 640
_WARM_UP = 2

_Samples = dict[tuple[str, int, str], list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Latency of one stage of one backend at one retained count.

    Attributes:
        backend: what ran it.
        retained: visual tokens the decoder saw.
        stage: one of `STAGES`, or "total".
        min_ms: fastest of the chunks measured: what other load on the machine disturbed least.
        p50_ms: median of the chunks measured; `p95_ms`, `p99_ms` likewise.
        gflop: operations of this backend's form of the stage; None where there are no matrix products.
        bound_ms: least time the roofline allows for the work that is needed, which is the same for all
            backends; stages depend on each other, so the total's is their sum.
    """

    backend: str
    retained: int
    stage: str
    min_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    gflop: float | None
    bound_ms: float | None = None

    @property
    def gflops(self) -> float | None:
        """1e9 operations per second at the median."""
        return None if self.gflop is None else self.gflop / self.p50_ms * 1e3

    @property
    def fraction(self) -> float | None:
        """Share of the median that the bound explains; 1 is the best there can be."""
        return None if self.bound_ms is None else self.bound_ms / self.p50_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Decoder time at one count over that at the largest count: measured, and by operations."""

    backend: str
    retained: int
    measured: float
    expected: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Latencies of one model on every backend."""

    name: str
    model: ModelConfig
    prompt_tokens: int
    backends: tuple[str, ...]
    retained: tuple[int, ...]
    rows: tuple[Row, ...]
    scaling: tuple[Scaling, ...]

    def p50_ms(self, backend: str, retained: int, stage: str) -> float:
        """Return one median."""
        wanted = (backend, retained, stage)
        return next(row.p50_ms for row in self.rows if (row.backend, row.retained, row.stage) == wanted)

    def speedup(self, backend: str, retained: int) -> float | None:
        """Return how often faster a whole chunk is than on the reference-style engine, if that ran."""
        if REFERENCE_STYLE not in self.backends:
            return None
        return self.p50_ms(REFERENCE_STYLE, retained, TOTAL) / self.p50_ms(backend, retained, TOTAL)


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


def measure(engines: Sequence[LoadedEngine], retained: Sequence[int], repeat: int) -> Measured:
    """Time whole chunks on every engine at every retained count; `with_bounds` adds the roofline's.

    Args:
        engines: the same weights on different backends.
        retained: counts; those above the model's number of visual tokens are left out.
        repeat: chunks per engine and count.

    Raises:
        ConfigError: no count fits the model.
    """
    loaded = engines[0]
    num_tokens = loaded.model.num_patches
    counts = tuple(sorted({count for count in retained if count <= num_tokens}))
    if not counts:
        raise ConfigError(
            "--retained",
            got=list(retained),
            expected=f"counts up to {num_tokens}, the visual tokens of {loaded.name}",
        )
    prompt_tokens = min(PROMPT_TOKENS, loaded.policy.max_prompt_tokens)
    rng = np.random.default_rng(0)
    ids = random_ids(rng, loaded, prompt_tokens).tolist()
    samples = _sample(engines, counts, ids, repeat, rng)
    rows = tuple(_row(key, times, loaded.model, prompt_tokens) for key, times in samples.items())
    return Measured(
        name=loaded.name,
        model=loaded.model,
        prompt_tokens=prompt_tokens,
        backends=tuple(engine.backend for engine in engines),
        retained=counts,
        rows=rows,
        scaling=tuple(_scaling(loaded.model, rows, prompt_tokens)),
    )


def _sample(
    engines: Sequence[LoadedEngine],
    counts: Sequence[int],
    prompt_ids: list[int],
    repeat: int,
    rng: np.random.Generator,
) -> _Samples:
    """Return milliseconds by backend, count and stage, in that order."""
    forced = {loaded.backend: _ForcedRetention(loaded.engine) for loaded in engines}
    policies = {
        loaded.backend: make_policy(replace(loaded, engine=forced[loaded.backend]), lambda _: prompt_ids)
        for loaded in engines
    }
    observation = _observation(rng, next(iter(policies.values())))
    stages = (*STAGES, TOTAL)
    samples: _Samples = {(b, count, stage): [] for b in forced for count in counts for stage in stages}
    # Backends and counts take turns, so that other load on the machine hits them alike.
    for turn in tqdm(range(-_WARM_UP, repeat), desc=engines[0].name, unit="turn", leave=False):
        for count in counts:
            indices = np.sort(rng.permutation(engines[0].model.num_patches)[:count])
            for backend, policy in policies.items():
                forced[backend].indices = indices
                timings = dict(policy.predict_chunk(observation).timings_ms)
                timings[TOTAL] = sum(timings[stage] for stage in STAGES)
                for stage in stages if turn >= 0 else ():
                    samples[backend, count, stage].append(timings[stage])
    return samples


def _observation(rng: np.random.Generator, policy: PrunedPolicy) -> Observation:
    return Observation(
        images={name: random_image(rng, _CAMERA_HEIGHT, _CAMERA_WIDTH) for name in policy.spec.camera_names},
        proprio=np.zeros(policy.spec.proprio_dim),
        instruction="measure",
        stamp_ns=0,
        epoch=0,
    )


def _row(
    key: tuple[str, int, str], times_ms: Sequence[float], config: ModelConfig, prompt_tokens: int
) -> Row:
    backend, retained, stage = key
    least, p50, p95, p99 = (float(value) for value in np.percentile(times_ms, [0, 50, 95, 99]))
    done = stage_flops(config, retained, prompt_tokens, reference=backend == REFERENCE_STYLE)._asdict()
    flops = sum(done.values()) if stage == TOTAL else done.get(stage)
    return Row(
        backend=backend,
        retained=retained,
        stage=stage,
        min_ms=least,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        gflop=None if flops is None else flops / 1e9,
    )


def with_bounds(measured: Measured, roofline: Roofline) -> Measured:
    """Return the figures with the least time the roofline of their machine allows."""
    bounds = {
        count: _bounds_ms(measured.model, count, measured.prompt_tokens, roofline)
        for count in measured.retained
    }
    rows = tuple(replace(row, bound_ms=bounds[row.retained].get(row.stage)) for row in measured.rows)
    return replace(measured, rows=rows)


def _bounds_ms(
    config: ModelConfig, retained: int, prompt_tokens: int, roofline: Roofline
) -> dict[str, float]:
    flops = stage_flops(config, retained, prompt_tokens)
    moved = stage_bytes(config, retained, prompt_tokens, bytes_per_number=roofline.bytes_per_number)
    bounds = {
        stage: roofline.bound_ms(operations, num_bytes)
        for stage, operations, num_bytes in zip(flops._fields, flops, moved, strict=True)
    }
    return {**bounds, TOTAL: sum(bounds.values())}


def _scaling(config: ModelConfig, rows: Sequence[Row], prompt_tokens: int) -> Iterator[Scaling]:
    decoder: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        if row.stage == "decoder":
            decoder[row.backend][row.retained] = row
    for backend, by_count in decoder.items():
        largest = by_count[max(by_count)]
        for count, row in by_count.items():
            yield Scaling(
                backend=backend,
                retained=count,
                measured=row.p50_ms / largest.p50_ms,
                expected=(row.gflop or 0.0) / (largest.gflop or 1.0),
            )
