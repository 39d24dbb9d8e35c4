"""Kinds of option that several commands have."""

from __future__ import annotations

import argparse
import math

# as it may be written -> as a manifest says it
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def positive_int(text: str) -> int:
    """Read an option's whole number, at least 1.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number, at least 1")
    return value


def positive_float(text: str) -> float:
    """Read an option's number, above 0 and finite.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a number above 0")
    return value
