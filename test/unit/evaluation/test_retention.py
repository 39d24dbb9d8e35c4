"""What the decoder sees under each rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.evaluation.retention import Retention, RetentionEngine

N = 32
PRUNED = np.array([1, 4, 5, 9, 10, 16, 17, 20, 28, 31])


def choose(rule: str, pruned: NDArray[np.int64] = PRUNED, seed: int = 0) -> NDArray[np.int64]:
    return Retention.parse(rule).choose(pruned, N, np.random.default_rng(seed))


@pytest.mark.parametrize(
    "text", ["pruner", "all", "random", "random:14", "attention:14", "add:1", "add:0.5", "drop:0.1"]
)
def test_a_rule_is_written_as_it_is_read(text: str) -> None:
    assert str(Retention.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "best", "all:3", "pruner:1", "random:0", "random:2.5", "random:x", "attention", "add", "add:0",
     "add:inf", "drop", "drop:1", "drop:-1", "drop:nan"],
)  # fmt: skip
def test_what_is_no_rule_is_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(ConfigError, match="drop:SHARE"):
        Retention.parse(text)


def test_every_rule_gives_ascending_indices_without_repetition() -> None:
    for rule in ("pruner", "all", "random", "random:7", "add:1", "drop:0.5"):
        for seed in range(20):
            chosen = choose(rule, seed=seed)
            assert (np.diff(chosen) > 0).all() and chosen[0] >= 0 and chosen[-1] < N, rule


def test_counts_follow_the_rule() -> None:
    assert len(choose("all")) == N
    assert len(choose("random")) == len(PRUNED)
    assert len(choose("random:7")) == 7
    assert len(choose("drop:0.1")) == 9
    assert len(choose("drop:0.11")) == 8
    assert len(choose("add:0.5")) == 15
    assert len(choose("add:5")) == N


def test_random_tokens_are_not_the_pruners_and_added_ones_come_beside_them() -> None:
    chosen = np.bincount(np.concatenate([choose("random", seed=i) for i in range(400)]), minlength=N)
    assert chosen.min() > 0.5 * chosen.mean()
    added = [choose("add:0.2", seed=i) for i in range(400)]
    assert all(np.isin(PRUNED, tokens).all() and len(tokens) == 12 for tokens in added)
    others = np.setdiff1d(np.arange(N), PRUNED)
    assert np.isin(others, np.concatenate(added)).all()


def test_dropping_takes_from_the_pruners_own_and_leaves_one() -> None:
    assert all(np.isin(choose("drop:0.3", seed=i), PRUNED).all() for i in range(20))
    assert choose("drop:0.9", np.array([3])).tolist() == [3]


def test_a_failed_pruner_stays_a_failure() -> None:
    nothing = np.empty(0, dtype=np.int64)
    assert all(len(choose(rule, nothing)) == 0 for rule in ("pruner", "random", "add:1", "drop:0.1"))


class CountingEngine:
    """Prunes to `PRUNED` and counts how often it is asked."""

    asked = 0

    def prune(self, *_: Any) -> NDArray[np.int64]:
        self.asked += 1
        return PRUNED


@pytest.mark.parametrize(("rule", "asked"), [("all", 0), ("random:5", 0), ("random", 1), ("drop:0.1", 1)])
def test_the_pruner_runs_only_where_it_is_needed(rule: str, asked: int) -> None:
    engine = CountingEngine()
    RetentionEngine(engine, Retention.parse(rule), N).prune(None, None, np.zeros(8, np.float32))  # type: ignore[arg-type]
    assert engine.asked == asked


def test_chance_is_the_frames_own() -> None:
    engine = RetentionEngine(CountingEngine(), Retention.parse("random"), N)  # type: ignore[arg-type]
    here, there = np.zeros(8, np.float32), np.ones(8, np.float32)
    first = engine.prune(None, None, here).tolist()
    assert engine.prune(None, None, there).tolist() != first
    assert engine.prune(None, None, here).tolist() == first


def test_more_tokens_than_there_are_cannot_be_wanted() -> None:
    with pytest.raises(ConfigError, match="32 tokens"):
        RetentionEngine(CountingEngine(), Retention.parse("random:33"), N)  # type: ignore[arg-type]
