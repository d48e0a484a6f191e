"""What each kind of middleware adds to a call: ``python benchmarks/middleware.py``.

Every chain stands around a memory store, where nothing hides what it costs. "Added" is the time of a call through the
chain less that of the bare store in the same round, as a part of the floor: a coroutine over a dict of (value, expiry)
and a clock. The values are 100 bytes; `compress` leaves them as they are, and `encrypt` really encrypts. `cache` stands
around a memory store that it does not take for near: its get is one of what is near, and its set, which is watched, is
none that a memory store ever has.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

sys.path.insert(0, str(Path(__file__).parents[1]))

import storeconf
from benchmarks._harness import Figures, nanoseconds, show
from benchmarks.memory import KEYS, VALUE, Floor
from storeconf import Backend, BuildContext, Catalog, MemoryStore

if TYPE_CHECKING:
    from storeconf import Store

ROUNDS = 25
GOAL = 0.6

KINDS: dict[str, dict[str, Any]] = {
    "bare": {},
    "bare, renewing": {},
    "metrics": {"metrics": True},
    "read_only": {"read_only": False},
    "limit": {"limit": {"key_size": 512, "value_size": "1MiB"}},
    "ttl": {"ttl": {"default": 600}},
    "ttl, renewing": {"ttl": {"default": 600, "renew_on_get": True}},
    "on_error": {"on_error": "miss"},
    "fallback": {"fallback": "other"},
    "cache": {"cache": "1h"},
    "compress": {"compress": "gzip"},
    "encrypt": {"encrypt": {"keys": ["4f0a3c7d1e9b58264f0a3c7d1e9b58264f0a3c7d1e9b58264f0a3c7d1e9b5826"]}},
    "breaker": {"breaker": 5},
    "retry": {"retry": 3},
    "timeout": {"timeout": "30s"},
}
EIGHT = ("metrics", "limit", "ttl", "on_error", "breaker", "retry", "timeout", "compress")
KINDS["these eight"] = {kind: setting for each in EIGHT for kind, setting in KINDS[each].items()}


class Far(MemoryStore):
    """A memory store that a near cache does not take for near."""


class FarBackend(Backend):
    """A layout's name for it."""

    type: Literal["far"] = "far"

    def build(self, context: BuildContext) -> Store:
        """Make an empty one."""
        return Far()


CATALOG = Catalog.builtin().with_backend("far", FarBackend)


def made(middleware: dict[str, Any]) -> Store:
    kind = "far" if "cache" in middleware else "memory"
    stores = {"other": {"type": "memory"}, "main": {"type": kind, "middleware": middleware}}
    return storeconf.read_layout({"stores": stores}, environ={}, catalog=CATALOG).compile()["main"]


async def measure(store: Any, *renew_for: int) -> dict[str, float]:
    """Nanoseconds per awaited call."""
    set_ = await nanoseconds(store.set, [(key, VALUE, 600) for key in KEYS], time.thread_time)
    for key in KEYS:
        await store.get(key)  # which brings it near, where there is a near cache
    return {
        "set": set_,
        "get": await nanoseconds(store.get, [(key, *renew_for) for key in KEYS], time.thread_time),
    }


async def main() -> None:
    stores = {name: made(middleware) for name, middleware in KINDS.items()}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in ("floor", *stores)}
    for number in range(ROUNDS):
        turn = list(rounds)
        for name in turn[number % len(turn) :] + turn[: number % len(turn)]:
            renew_for = (600,) if name == "bare, renewing" else ()
            rounds[name].append(await measure(Floor() if name == "floor" else stores[name], *renew_for))
    figures: Figures = {}
    for name, measured in rounds.items():
        row = {operation: statistics.median(each[operation] for each in measured) for operation in ("set", "get")}
        without = rounds["bare, renewing" if name.endswith("renewing") else "bare"]
        for operation in ("set", "get") if "bare" not in name and name in KINDS else ():
            added = [
                (each[operation] - bare[operation]) / floor[operation]
                for each, bare, floor in zip(measured, without, rounds["floor"], strict=True)
            ]
            row[f"{operation} added"] = statistics.median(added)
        figures[name] = row
    show(f"Nanoseconds per call, and what is added in floors (goal: at most {GOAL})", figures, ours=(), peers=())
    for store in stores.values():
        await store.aclose()


if __name__ == "__main__":
    asyncio.run(main())
