"""How large a random model shall be."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lightvla_ros.core.errors import ConfigError

_TEXT = re.compile(r"(\d+)x(\d+)(?:@(\d+))?")
# Both vision towers' widths, 1/4 and 9/32 of the decoder's, must divide into heads of 64 and 72.
_WIDTH_STEP = 256
_GRID = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSize:
    """Decoder width and layers, and patches per side of one of the two cameras' images."""

    width: int
    layers: int
    grid: int = _GRID

    def __str__(self) -> str:
        suffix = "" if self.grid == _GRID else f"@{self.grid}"
        return f"{self.width}x{self.layers}{suffix}"

    @classmethod
    def parse(cls, text: str) -> RandomSize:
        """Read "WIDTHxLAYERS" or "WIDTHxLAYERS@GRID".

        Raises:
            ConfigError: it is neither, or no model can have this size.
        """
        match = _TEXT.fullmatch(text)
        width, layers, grid = (int(number or _GRID) for number in match.groups()) if match else (0, 0, 0)
        if min(width, layers, grid) < 1 or width % _WIDTH_STEP:
            raise ConfigError(
                "--random",
                got=repr(text),
                expected=f"WIDTHxLAYERS or WIDTHxLAYERS@GRID, width a multiple of {_WIDTH_STEP}",
                fix="e.g. 1024x8, or 512x8@8 for 8 x 8 patches per camera",
            )
        return cls(width=width, layers=layers, grid=grid)
