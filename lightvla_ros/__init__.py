"""LightVLA for ROS 2: a vision-language-action policy with learned token pruning.

`load_policy` is the one entry point of the Python interface.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightvla_ros.app import load_policy

__version__ = "0.1.0"
__all__ = ["__version__", "load_policy"]


def __getattr__(name: str) -> object:
    # Loaded on first use: reading the version must not import a backend.
    if name == "load_policy":
        from lightvla_ros.app import load_policy

        return load_policy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
