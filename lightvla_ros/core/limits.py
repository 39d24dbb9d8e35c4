"""Speed limits: what is too fast is shortened, and its direction kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def limit_norm(vector: NDArray[np.float64], maximum: float) -> bool:
    """Shorten a vector in place to a largest length; its direction is kept.

    Args:
        vector: float64 [n], finite, changed in place.
        maximum: largest Euclidean norm, >= 0.

    Returns:
        Whether it was shortened.
    """
    norm = float(np.sqrt(vector @ vector))
    if norm <= maximum:
        return False
    vector *= maximum / norm
    return True
