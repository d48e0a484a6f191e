"""The store that the tests of the life cycle watch."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from storeconf import _root as root_module
from tests.lifecycle.probe import Probe

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def probe() -> Iterator[Probe]:
    made = Probe()
    yield made
    asyncio.run(made.aclose())


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root_module, "CLOSE_GRACE", 0.05)
    monkeypatch.setattr(root_module, "CLOSE_LIMIT", 0.05)
