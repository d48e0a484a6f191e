"""The registry and the stores of a layout for code without an event loop: the same operations, without ``await``.

with storeconf.sync.load("storeconf.yaml") as registry:
    registry.get("sessions").set("k", "v", expires_in=3600)

All threads share one event loop in a background thread, and so the connections of each store; a forked child makes one
of its own. What never waits (a store in memory, a hit of a near cache) is done in the calling thread. In a thread with
a running event loop, and under gevent or eventlet, every call raises RuntimeError, because it would block the others.
"""

from __future__ import annotations

from storeconf.sync.stores import SyncRegistry, SyncStore, load
from storeconf.sync.values import SyncCachedFunction, SyncLock, SyncTypedStore, cached, lock, typed

__all__ = [
    "SyncCachedFunction",
    "SyncLock",
    "SyncRegistry",
    "SyncStore",
    "SyncTypedStore",
    "cached",
    "load",
    "lock",
    "typed",
]
