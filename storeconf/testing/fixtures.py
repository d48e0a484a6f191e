"""Fixtures for pytest, which a conftest.py imports: nothing here is loaded into anybody's tests by itself.

from storeconf.testing.fixtures import clock, memory_registry
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from storeconf import testing as _testing

if TYPE_CHECKING:
    from collections.abc import Callable

    from storeconf.registry import StoreRegistry

__all__ = ["clock", "memory_registry"]


@pytest.fixture
def clock() -> _testing.Clock:
    """The time of this test's stores, which stands still until the test advances it."""
    return _testing.Clock()


@pytest.fixture
def memory_registry(clock: _testing.Clock) -> Callable[..., StoreRegistry]:
    """`storeconf.testing.memory_registry` on this test's clock."""
    return partial(_testing.memory_registry, clock=clock)
