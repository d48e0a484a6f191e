"""The example pages of one directory: imported afresh for each test, on whichever backend the environment says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

EXAMPLES = Path(__file__).parents[2] / "examples"
ENVIRONMENTS = ("memory", "file", "redis", "valkey")


class Pages:
    """One directory of pages in one environment; nothing but variables says which."""

    def __init__(self, directory: Path, environment: str, servers: list[Server], monkeypatch: pytest.MonkeyPatch):
        self.directory, self.environment, self.servers = directory, environment, servers
        self._monkeypatch = monkeypatch

    def __call__(self, name: str) -> ModuleType:
        """Import a page as it is imported by a server that has just been started."""
        module_name = f"page_{self.directory.name}_{name}"
        spec = importlib.util.spec_from_file_location(module_name, self.directory / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        self._monkeypatch.setitem(sys.modules, module_name, module)  # where frameworks look annotations up
        spec.loader.exec_module(module)
        return module

    @property
    def persistent(self) -> bool:
        """Whether what a page stores is there for the next process."""
        return self.environment != "memory"


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Server]]:
    """A Redis and a Valkey that nobody else uses."""
    with Server("redis-8.2") as redis, Server("valkey-9.1") as valkey:
        yield [redis, valkey]


@pytest.fixture(params=ENVIRONMENTS)
def pages(
    request: pytest.FixtureRequest, servers: list[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pages]:
    """The pages of the directory that the test module's ``DIRECTORY`` names, in one environment after the other."""
    redis, valkey = servers
    monkeypatch.setenv("STORECONF_ENV", request.param)
    monkeypatch.setenv("STORE_DIRECTORY", str(tmp_path / "stores"))
    monkeypatch.setenv("REDIS_URL", redis.url)
    monkeypatch.setenv("VALKEY_URL", f"valkey://{valkey.address}/0")
    for server in servers:
        server.ask("FLUSHALL")
    yield Pages(EXAMPLES / request.module.DIRECTORY, request.param, servers, monkeypatch)
    for server in servers:
        assert clients(server) == [], "a connection was left open"


def clients(server: Server) -> list[bytes]:
    """The connections that a server has, except the one that asks."""
    lines = [line for line in server.ask("CLIENT", "LIST").split(b"\n") if b"id=" in line]
    return [line for line in lines if b"cmd=client" not in line]
