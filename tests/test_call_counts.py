"""How many Python functions of the package one call enters: these paths are short, and stay so."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import storeconf
from tests.servers import shared

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

PACKAGE = f"{Path(storeconf.__file__).parent}{os.sep}"


async def entered(call: Callable[[], Awaitable[Any]]) -> list[str]:
    """The functions of the package that are entered, or resumed, until the call has ended."""
    functions: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            functions.append(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        await call()
    finally:
        sys.setprofile(None)
    return functions


def counted(main: dict[str, Any], middleware: dict[str, Any], key: str = "k", *, near: bool = True) -> list[str]:
    """What a warm ``get`` enters."""

    async def work() -> list[str]:
        layout = {"stores": {"main": main, "s": {"parent": "main", "middleware": middleware}}}
        async with storeconf.load(layout, environ={}) as registry:
            store = registry["s"]
            await store.set("k", b"v")
            await store.set("far", b"v", 600)
            for _ in range(3):
                assert await store.get("k") == b"v"
            if middleware.get("cache"):
                await asyncio.sleep(0.2)  # the server has announced by now what was set above
                for number in range(3):
                    await store.get(f"missing{number}")
            if near:
                assert await store.get("k") == b"v"
            return await entered(lambda: store.get(key))

    return asyncio.run(work())


@pytest.mark.parametrize(
    "middleware",
    [{}, {"ttl": "1h"}, {"cache": "1h"}, {"timeout": "5s"}, {"limit": {"key_size": 100}, "metrics": False}],
    ids=str,
)
def test_a_get_from_memory(middleware: dict[str, Any]) -> None:
    functions = counted({"type": "memory"}, middleware)
    assert len(functions) == (2 if "limit" in middleware else 1), functions


def test_a_get_from_a_server() -> None:
    url = f"valkey://127.0.0.1:{shared().port}"
    functions = counted({"type": "valkey", "url": url, "namespace": "calls"}, {})
    assert len(functions) <= 5, functions
    assert functions == counted({"type": "valkey", "url": url, "namespace": "calls"}, {"ttl": "1h"})


def test_a_get_of_what_is_near() -> None:
    url = f"valkey://127.0.0.1:{shared().port}"
    functions = counted({"type": "valkey", "url": url, "namespace": "calls"}, {"cache": "1h"})
    assert functions == ["CacheStore.get"]


@pytest.mark.parametrize("key", ["far", "other"])
def test_a_get_of_what_is_not_near(key: str) -> None:
    url = f"valkey://127.0.0.1:{shared().port}"
    main = {"type": "valkey", "url": url, "namespace": "calls"}
    # On a busy machine an announcement of what was set before may come during the call.
    functions = min((counted(main, {"cache": "1h"}, key) for _ in range(3)), key=len)
    assert len(functions) <= 15, functions
