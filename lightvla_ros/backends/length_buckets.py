"""Sizes that engines with static shapes are built for, and which of them serves a given length.

A bucket is a size that exists as a captured graph; lengths between two buckets are padded to the next
one behind a mask. A profile is a range of sizes that shares one set of tuned kernels.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightvla_ros.core.errors import EngineError

_RETAINED = (16, 32, 48, 64, 80, 96, 128, 160, 192, 256, 384)
_PROMPT_STEP = 16
# TensorRT tunes kernels per profile: halving ranges keep a profile's ends within a factor of two.
_NUM_PROFILES = 4


@dataclass(frozen=True, slots=True)
class Profile:
    """A range of sizes, tuned for `opt`; all three are buckets but for `min`."""

    min: int
    opt: int
    max: int


def default_retained_buckets(num_patches: int) -> tuple[int, ...]:
    """Choose retained counts up to N: fine where pruned sets usually lie."""
    return (*(count for count in _RETAINED if count < num_patches), num_patches)


def default_prompt_buckets(longest: int) -> tuple[int, ...]:
    """Choose prompt lengths up to the longest allowed, in steps of 16 tokens."""
    return (*range(_PROMPT_STEP, longest, _PROMPT_STEP), longest)


def bucket_for(length: int, buckets: Sequence[int], what: str) -> int:
    """Return the smallest bucket that holds `length`.

    Args:
        length: at least 1.
        buckets: ascending.
        what: what is being sized, for the message.

    Raises:
        EngineError: no bucket does.
    """
    index = bisect_left(buckets, length)
    if length < 1 or index == len(buckets):
        raise EngineError(
            what,
            got=length,
            expected=f"1 to {buckets[-1]}, the sizes of the engine",
            fix="build the engine with a bucket that holds it",
        )
    return buckets[index]


def retained_profiles(buckets: Sequence[int]) -> tuple[Profile, ...]:
    """Divide ascending buckets into at most four ranges that end near N/8, N/4, N/2 and N."""
    largest = buckets[-1]
    limits = [largest >> shift for shift in reversed(range(_NUM_PROFILES))]
    ends = sorted({max((b for b in buckets if b <= limit), default=buckets[0]) for limit in limits})
    starts = [1, *(end + 1 for end in ends[:-1])]
    return tuple(Profile(min=start, opt=end, max=end) for start, end in zip(starts, ends, strict=True))


def suggest_buckets(histogram: Mapping[int, int], num_patches: int, max_buckets: int) -> tuple[int, ...]:
    """Choose the buckets that pad the counts of a histogram least; the last is always N.

    Exact, by dynamic programming over the counts that occurred.

    Args:
        histogram: retained count -> how often it occurred.
        num_patches: N.
        max_buckets: how many buckets there may be, N included.
    """
    counts = sorted({count for count, times in histogram.items() if times} | {num_patches})
    # cheapest[j]: (padding, buckets) of the best choice whose last bucket is counts[j].
    cheapest: list[tuple[int, tuple[int, ...]]] = [
        (_padding(histogram, counts[: j + 1]), (counts[j],)) for j in range(len(counts))
    ]
    for _ in range(max_buckets - 1):
        cheapest = [
            min(
                [
                    cheapest[j],
                    *(
                        (padding + _padding(histogram, counts[i + 1 : j + 1]), (*chosen, counts[j]))
                        for i, (padding, chosen) in enumerate(cheapest[:j])
                    ),
                ]
            )
            for j in range(len(counts))
        ]
    return cheapest[-1][1]


def _padding(histogram: Mapping[int, int], counts: Sequence[int]) -> int:
    """Tokens added when all `counts` are padded to the last of them."""
    return sum(histogram.get(count, 0) * (counts[-1] - count) for count in counts)
