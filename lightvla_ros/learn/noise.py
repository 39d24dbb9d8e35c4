"""What is added to the pruner's scores in training, so that queries try more tokens than they ask for.

Two kinds are documented, and they are not the same. The released code adds uniform noise U[0, 1) times a
scale (spec §4.3). The paper speaks of Gumbel softmax, whose noise is -log(-log U). In both the scale falls
linearly from 1 to 0 over the training; "fixed" keeps it and is one row of the paper's ablation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightvla_ros.core.errors import ConfigError

KINDS = ("uniform", "gumbel", "none")
SCHEDULES = ("linear", "fixed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Noise on the scores.

    Attributes:
        kind: "uniform" as the released code, "gumbel" as the paper, or "none".
        schedule: "linear" from `scale` at the first step of a stage to 0 at its end, or "fixed".
        scale: the factor at the first step.

    Raises:
        ConfigError: a field has no meaning.
    """

    kind: str = "uniform"
    schedule: str = "linear"
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        for name, known in (("kind", KINDS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"noise {name}", got=repr(getattr(self, name)), expected=f"one of {list(known)}"
                )
        if not 0 <= self.scale < float("inf"):
            raise ConfigError("noise scale", got=self.scale, expected="a number from 0 on")

    def scale_at(self, progress: float) -> float:
        """Return the factor at a stage's progress, 0..1."""
        if self.kind == "none":
            return 0.0
        return self.scale * (1.0 - progress) if self.schedule == "linear" else self.scale

    def sample(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Draw float32 noise before scaling, on the generator's device."""
        if self.kind == "none":
            return torch.zeros(*shape, device=generator.device)
        if self.kind == "uniform":
            return torch.rand(*shape, generator=generator, device=generator.device)
        # -log U is an exponential variable; zero, which has no logarithm, is drawn once in 2^24.
        waiting = torch.empty(*shape, device=generator.device).exponential_(generator=generator)
        return -waiting.clamp_min(torch.finfo(waiting.dtype).tiny).log()
