"""A working directory of its own for each test of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, empty."""
    here = tmp_path / "work"
    here.mkdir()
    monkeypatch.chdir(here)
    return here.resolve()
