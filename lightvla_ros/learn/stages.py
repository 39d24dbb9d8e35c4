"""A stage of training: how many steps, at which learning rate, on what."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightvla_ros.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of training.

    Attributes:
        name: shown in the log, and the checkpoint's folder.
        prune: train with differentiable selection, else on every visual token.
        steps: optimiser steps; 0 leaves the stage out.
        learning_rate: peak.
        batch_size: chunks per pass and process.
        accumulate: passes per optimiser step.
        warm_up: share of the steps in which the learning rate rises linearly to its peak.
        drop_at: step from which the learning rate is a tenth; None lets it fall to 0 along a cosine.
        gradient_norm: gradients are scaled down to this norm; None leaves them.

    Raises:
        ConfigError: a number has no meaning.
    """

    name: str
    prune: bool
    steps: int
    learning_rate: float
    batch_size: int
    accumulate: int = 1
    warm_up: float = 0.03
    drop_at: int | None = None
    gradient_norm: float | None = 1.0

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        rules = {
            "steps": (self.steps >= 0, "a number from 0 on"),
            "learning_rate": (0 < self.learning_rate < math.inf, "a finite number above 0"),
            "batch_size": (self.batch_size >= 1, "a number from 1 on"),
            "accumulate": (self.accumulate >= 1, "a number from 1 on"),
            "warm_up": (0 <= self.warm_up < 1, "a number from 0 to below 1"),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                raise ConfigError(f"stage '{self.name}': {name}", got=getattr(self, name), expected=expected)

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        progress = (step + 1) / self.steps
        if progress <= self.warm_up:
            return self.learning_rate * progress / self.warm_up
        if self.drop_at is not None:
            return self.learning_rate * (0.1 if step >= self.drop_at else 1.0)
        falling = (step / self.steps - self.warm_up) / (1.0 - self.warm_up)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * max(falling, 0.0)))
