"""Where the reference's golden data is found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

BESIDE_REPOSITORY = Path(__file__).resolve().parents[3] / "shared" / "golden"


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Directory of the golden data: `LIGHTVLA_GOLDEN`, else `../shared/golden` beside the repository."""
    directory = Path(os.environ.get("LIGHTVLA_GOLDEN", BESIDE_REPOSITORY))
    if (directory / "README.md").is_file():
        return directory
    reason = f"no golden data in {directory}; set LIGHTVLA_GOLDEN to its folder"
    # In CI a silent skip would hide a broken reference.
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
