"""Names that nobody listed, asked for again and again: no step more than for a listed one, from any thread."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import storeconf

if TYPE_CHECKING:
    from types import FrameType

FACTORIES = {
    "bounded": {"parent": "main", "max_stores": 8},
    "unbounded": {"parent": "main"},
    "one store": {"use": "main"},
    "none": None,
}


def registry_with(factory: dict[str, Any] | None) -> storeconf.StoreRegistry:
    layout = {"stores": {"main": {"type": "memory"}}}
    return storeconf.load(layout | ({} if factory is None else {"default_factory": factory}), environ={})


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_a_name_that_was_asked_for_before_is_one_call(factory: dict[str, Any] | None) -> None:
    registry = registry_with(factory)
    first = registry.get("tenant")
    entered: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            entered.append(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        again = registry.get("tenant")
    finally:
        sys.setprofile(None)
    assert again is first
    assert entered == ["StoreRegistry.get"]


def test_names_that_all_lead_to_one_store_are_checked_however_many_there_are() -> None:
    registry = registry_with({"use": "main"})
    main = registry.get("main")
    assert all(registry.get(f"t{number}") is main for number in range(12_000))
    assert registry.get("t0") is main
    for _ in range(2):
        with pytest.raises(ValueError, match="can't name a namespace"):
            registry.get("no name")


def test_threads_get_names_that_a_bounded_factory_drops_all_the_time() -> None:
    registry = registry_with({"parent": "main", "max_stores": 2})
    wrong: list[str] = []

    def work(start: int) -> None:
        for number in range(start, start + 2000):
            name = f"t{number % 5}"
            if registry.get(name).name != name:
                wrong.append(name)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    finally:
        sys.setswitchinterval(before)
    assert not wrong
    assert registry.get("t0") is registry.get("t0")


def test_a_name_asked_for_when_the_registry_is_closed_gets_a_store_that_is_closed() -> None:
    async def main() -> None:
        registry = registry_with({"parent": "main", "max_stores": 2})
        async with registry:
            await registry.get("tenant").set("k", "v")
        with pytest.raises(storeconf.StoreClosedError):
            await registry.get("tenant").get("k")

    asyncio.run(main())
