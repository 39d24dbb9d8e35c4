"""Seeds that depend on what they are for, so that nothing has to remember how often it was drawn from.

Batches and noise of a step are functions of the run's seed, the stage and the step. A run that is killed
and resumed draws what it would have drawn, and no generator's state needs saving.
"""

from __future__ import annotations

import numpy as np
import torch


def seed_of(*parts: int) -> int:
    """Mix non-negative integers into one seed of 63 bits."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def torch_generator(device: torch.device | str, *parts: int) -> torch.Generator:
    """Return a generator that is seeded by `parts`."""
    return torch.Generator(device=device).manual_seed(seed_of(*parts))
