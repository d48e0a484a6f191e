"""What the tests of copy, dump and restore share: a layout, its content, large stores on servers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

import storeconf
from tests.cli.running import INTERRUPTIBLE, Done, environment, run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from storeconf import Store
    from tests.servers import Server

LAYOUT = """
stores:
  old: {type: file, path: var/old}
  pages: {parent: old, middleware: {ttl: {default: 1h, max: 2h}, compress: gzip}}
  letters: {parent: pages, middleware: {encrypt: the first of the keys}}
  new: {type: file, path: var/new}
  straight: {type: file, path: var/straight}
  new_pages: {parent: new, namespace: pages, middleware: {ttl: 5s, compress: {algorithm: gzip, min_size: 1}}}
  new_letters: {parent: new_pages, namespace: letters, middleware: {encrypt: the second of the keys}}
  again: {use: pages}
  guarded: {parent: new, middleware: {read_only: {}}}
  small: {parent: new, middleware: {limit: {value_size: 4}}}
  hasty: {parent: new, middleware: {on_error: miss, fallback: old}}
environments:
  production: {default_factory: {parent: new, middleware: {encrypt: the third of the keys}}}
  other: {stores: {old: {path: var/other}, new: {path: var/other_new}}}
  twin: {}
"""

Entries = dict[tuple[tuple[str, ...], str], tuple[bytes, int | None]]


@pytest.fixture
def layout(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout, in a directory of its own."""
    (directory / "storeconf.yaml").write_text(LAYOUT)
    monkeypatch.setenv("STORECONF_ENV", "production")


def on(name: str, work: Callable[[Store], Any], layout: str = "storeconf.yaml", env: str | None = None) -> Any:
    """Do something with a store as an application would."""

    async def main() -> Any:
        async with storeconf.load(layout, environment=env) as registry:
            return await work(registry.get(name))

    return asyncio.run(main())


def below(store: Store, names: tuple[str, ...]) -> Store:
    for name in names:
        store = store.with_namespace(name)
    return store


def fill(name: str, entries: Mapping[str, str | bytes], expires_in: float | None = None, *names: str) -> None:
    async def work(store: Store) -> None:
        await below(store, names).set_many(entries, expires_in)

    on(name, work)


def content(name: str, *names: str, layout: str = "storeconf.yaml", env: str | None = None) -> dict[str, bytes]:
    async def work(store: Store) -> dict[str, bytes]:
        place = below(store, names)
        return await place.get_many([key async for key in place.keys()])

    found: dict[str, bytes] = on(name, work, layout, env)
    return found


def ends(name: str, key: str, *names: str) -> float | None:
    """When an entry expires, in milliseconds."""

    async def work(store: Store) -> float | None:
        found = await below(store, names).get_with_expiry(key)
        assert found is not None
        return None if found[1] is None else (time.time() + found[1]) * 1000

    end: float | None = on(name, work)
    return end


def fields(done: Done, command: str = "copy") -> dict[str, Any]:
    document = done.json
    assert document["format"] == 1
    found: dict[str, Any] = document[command]
    return found


MANY = 30_000


def servers(old: Server, new: Server, more: str = "", timeout: str = "5s") -> str:
    name = f"m{uuid4().hex[:12]}"
    with open("servers.yaml", "w") as file:
        file.write(
            f"environments: {{production: {{}}}}\nstores:\n"
            f"  old: {{type: redis, url: '{old.url}', namespace: {name}o, command_timeout: {timeout}}}\n"
            f"  new: {{type: valkey, url: '{new.url}', namespace: {name}n, command_timeout: {timeout}, retries: 0}}\n"
            f"{more.replace('NAME', name)}"
        )
    return name


def fill_many(server: Server, name: str) -> None:
    server.ask("EVAL", f"for i = 1, {MANY} do redis.call('SET', '{name}o:x::k' .. i, string.rep('v', 100)) end", 0)


def size(server: Server) -> int:
    return int(server.ask("DBSIZE")[1:])


def start(*arguments: str, cwd: Path, **streams: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *arguments],
        cwd=cwd,
        env=environment({"STORECONF_ENV": "production"}),
        stderr=subprocess.PIPE,
        **streams,
    )


def dump_of(name: str, path: str = "dump.jsonl", *more: str) -> list[dict[str, Any]]:
    done = run("dump", name, path, *more)
    assert (done.status, done.out) == (0, "")
    with open(path) as file:
        return [json.loads(line) for line in file]
