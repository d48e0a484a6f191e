"""What every test of the registry begins and ends with."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from tests.registry.probe import (
    happened,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _clean_log() -> Iterator[None]:
    happened.clear()
    yield
    gc.collect()  # a store that a test left open warns in that test, not in the next one
