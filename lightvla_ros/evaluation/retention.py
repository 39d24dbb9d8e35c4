"""Which visual tokens reach the decoder: the pruner's choice, or what it is compared with.

The alternatives need no training of their own; they are what an ablation asks of a pruner: is it this set
that matters, or only its size?
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.policy import Engine

Kind = Literal["pruner", "all", "random", "attention", "add", "drop"]

SYNTAX = "pruner, all, random, random:COUNT, attention:COUNT, add:SHARE or drop:SHARE"
_COUNTED, _SHARED = ("random", "attention"), ("add", "drop")


@dataclass(frozen=True, slots=True)
class Retention:
    """A rule for what the decoder sees.

    Attributes:
        kind: "pruner": the pruner's choice. "all": every token. "random": any tokens, as many as the pruner
            would retain of this frame, or `amount` of them. "attention": the `amount` tokens that the
            decoder's text attends to most after its second layer. "add": the pruner's choice and random
            others, `amount` times as many. "drop": the pruner's choice without a random share `amount`.
        amount: a count or a share; None where the kind has none.

    Raises:
        ConfigError: the kind is unknown, or its amount is missing or out of range.
    """

    kind: Kind = "pruner"
    amount: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no rule."""
        if self.kind in _COUNTED:
            usable = self.amount is None or (self.amount >= 1 and float(self.amount).is_integer())
            usable = usable and (self.kind != "attention" or self.amount is not None)
        elif self.kind in _SHARED:
            usable = self.amount is not None and 0 < self.amount < (1 if self.kind == "drop" else math.inf)
        else:
            usable = self.kind in get_args(Kind) and self.amount is None
        if not usable:
            raise ConfigError("retention", got=str(self), expected=SYNTAX)

    @classmethod
    def parse(cls, text: str) -> Retention:
        """Read what a user wrote: a kind, and its amount after a colon.

        Raises:
            ConfigError: it is no rule.
        """
        kind, _, amount = text.partition(":")
        try:
            return cls(kind, float(amount) if amount else None)  # type: ignore[arg-type]  # checked there
        except ValueError as error:
            raise ConfigError("retention", got=repr(text), expected=SYNTAX) from error

    def __str__(self) -> str:
        """Return the rule as `parse` reads it."""
        return self.kind if self.amount is None else f"{self.kind}:{self.amount:g}"

    @property
    def asks_pruner(self) -> bool:
        """Whether the pruner has to run."""
        return self.kind in ("pruner", *_SHARED) or (self.kind == "random" and self.amount is None)

    def choose(
        self, pruned: NDArray[np.int64], num_tokens: int, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Return the indices int64 [K] the decoder shall see, ascending.

        Args:
            pruned: the pruner's choice [K'], ascending; empty where it was not asked, or failed.
            num_tokens: visual tokens N before pruning.
            rng: of the random kinds.

        Raises:
            ConfigError: more tokens are wanted than there are.
        """
        if self.kind == "all":
            return np.arange(num_tokens)
        if self.asks_pruner and not len(pruned):
            return pruned  # the policy refuses it as a failure of the pruner
        if self.kind == "random":
            count = len(pruned) if self.amount is None else int(self.amount)
            self.check_count(num_tokens)
            return np.sort(rng.choice(num_tokens, size=count, replace=False))
        if self.kind == "add":
            others = np.setdiff1d(np.arange(num_tokens), pruned)
            count = min(_round_up(self.amount, pruned), len(others))
            return np.sort(np.concatenate([pruned, rng.choice(others, size=count, replace=False)]))
        if self.kind == "drop":
            count = max(len(pruned) - _round_up(self.amount, pruned), 1)
            return np.sort(rng.choice(pruned, size=count, replace=False))
        return pruned

    def check_count(self, num_tokens: int) -> None:
        """Refuse a count that there are not tokens for.

        Raises:
            ConfigError: `amount` is a count above N.
        """
        if self.kind in _COUNTED and self.amount is not None and self.amount > num_tokens:
            raise ConfigError(
                "retention", got=str(self), expected=f"at most the {num_tokens} tokens there are"
            )


def _round_up(share: float | None, tokens: NDArray[np.int64]) -> int:
    return math.ceil((share or 0.0) * len(tokens) - 1e-9)


class RetentionEngine:
    """`core.policy.Engine` whose decoder sees what a rule says; the other stages are an engine's own.

    Args:
        engine: whose stages run.
        retention: any kind but "attention", which is an engine of its own.
        num_tokens: visual tokens before pruning.
    """

    def __init__(self, engine: Engine, retention: Retention, num_tokens: int) -> None:
        retention.check_count(num_tokens)
        self._engine = engine
        self._retention = retention
        self._num_tokens = num_tokens

    def encode_prompt(self, input_ids: NDArray[np.int64]) -> Any:
        """Embed a prompt."""
        return self._engine.encode_prompt(input_ids)

    def encode_images(self, pixel_values: NDArray[np.float32]) -> Any:
        """Turn pixels into visual tokens."""
        return self._engine.encode_images(pixel_values)

    def prune(self, patches: Any, prompt: Any, proprio: NDArray[np.float32]) -> NDArray[np.int64]:
        """Choose by the rule; the pruner runs only where the rule needs it."""
        # A frame's own chance: the same in every process and whatever came before it.
        rng = np.random.default_rng(zlib.crc32(proprio.tobytes()))
        pruned = np.empty(0, dtype=np.int64)
        if self._retention.asks_pruner:
            pruned = self._engine.prune(patches, prompt, proprio)
        return self._retention.choose(pruned, self._num_tokens, rng)

    def decode(
        self, patches: Any, retained_indices: NDArray[np.int64], prompt: Any, proprio: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Decode what was chosen."""
        return self._engine.decode(patches, retained_indices, prompt, proprio)

    def close(self) -> None:
        """Free what the engine holds."""
        self._engine.close()
