"""Bags in a folder of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from bag_maker import Bags


@pytest.fixture
def bags(tmp_path: Path) -> Bags:
    return Bags(tmp_path)
