"""Several worker processes of real servers on one store: who logs in at one is known to all, and all stop cleanly."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.examples.pages import clients
from tests.servers import Server, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
APP = "tests.examples.workers_app:app"
LITESTAR = "tests.examples.workers_litestar:app"
WORKERS = 4


class Site:
    """A running server with its workers."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.port, self.process, self._log = port, process, log

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def get(self, path: str, cookie: str = "") -> tuple[Any, str]:
        """Ask on a connection of its own; the answer and the session's identifier."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            answer = await exchange(reader, writer, path, cookie)
        finally:
            writer.close()
        assert answer is not None
        return answer

    async def answers(self, path: str, cookie: str) -> list[Any]:
        """Ask many times at once, until every worker has answered."""
        found: list[Any] = []
        async with asyncio.timeout(60):
            while len({worker for worker, _ in found}) < WORKERS:
                found += [value for value, _ in await asyncio.gather(*(self.get(path, cookie) for _ in range(40)))]
        return found

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0, self.log
        # uvicorn itself leaves the socket that it listens on to the end of the process.
        for bad in ("Traceback", "ERROR", "was left open", "raddr=", "unclosed transport"):
            assert bad not in self.log, self.log


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, cookie: str = ""
) -> tuple[Any, str] | None:
    """One request and its answer, or None where the server had closed the connection before it began to answer."""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: session={cookie}\r\n\r\n".encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except ConnectionResetError:
        return None
    except asyncio.IncompleteReadError as ended:
        if ended.partial:
            raise
        return None
    status, *lines = head.decode().split("\r\n")
    assert status.startswith("HTTP/1.1 200"), status
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers["content-length"]))
    return json.loads(body), headers.get("set-cookie", "").partition("session=")[2].partition(";")[0]


@contextmanager
def site(command: list[str], tmp_path: Path, variables: dict[str, str]) -> Iterator[Site]:
    port, log = free_port(), tmp_path / "log"
    environ = {**os.environ, **variables, "PYTHONWARNINGS": "default::ResourceWarning"}
    arguments = [sys.executable, "-m", *(word.format(port=port, workers=WORKERS) for word in command)]
    with log.open("wb") as file:
        process = subprocess.Popen(arguments, cwd=ROOT, env=environ, stdout=file, stderr=file)
    running = Site(port, process, log)
    try:
        wait_for(lambda: process.poll() is not None or reachable(port), "a server")
        yield running
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


def reachable(port: int) -> bool:
    async def connect() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()

    try:
        asyncio.run(connect())
    except OSError:
        return False
    return True


UVICORN = ["uvicorn", "--port", "{port}", "--workers", "{workers}", "--log-level", "warning"]
GUNICORN = ["gunicorn", APP, "-k", "asgi", "--preload", "-b", "127.0.0.1:{port}", "-w", "{workers}", "--log-level"]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    with Server("redis-8.2") as redis, Server("valkey-9.1") as valkey:
        yield {"redis": redis, "valkey": valkey}


def variables(environment: str, servers: dict[str, Server], tmp_path: Path) -> dict[str, str]:
    return {
        "STORECONF_ENV": environment,
        "STORE_DIRECTORY": str(tmp_path / "stores"),
        "REDIS_URL": servers["redis"].url,
        "VALKEY_URL": f"valkey://{servers['valkey'].address}/0",
    }


async def loaded(site: Site, connections: int) -> int:
    """Ask on connections that stay open, as fast as they answer, and stop the server meanwhile; how many answers."""
    answers = 0
    busy = asyncio.Event()

    async def client() -> None:
        nonlocal answers
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        while await exchange(reader, writer, "/count") is not None:
            answers += 1
            if answers > 200:
                busy.set()
        writer.close()

    tasks = [asyncio.create_task(client()) for _ in range(connections)]
    await busy.wait()
    await asyncio.to_thread(site.stop)
    async with asyncio.timeout(30):
        await asyncio.gather(*tasks)
    return answers


@pytest.mark.slow
@pytest.mark.parametrize(("app", "environment"), [(APP, "file"), (APP, "redis"), (APP, "valkey"), (LITESTAR, "redis")])
def test_workers_share_sessions_and_stop_under_load_without_a_trace(
    app: str, environment: str, servers: dict[str, Server], tmp_path: Path
) -> None:
    with site([*UVICORN, app], tmp_path, variables(environment, servers, tmp_path)) as running:

        async def main() -> None:
            _, cookie = await running.get("/login")
            answers = await running.answers("/show", cookie)
            assert {user for _, user in answers} == {"Ada"}
            assert await loaded(running, 50) > 200

        asyncio.run(main())
    for server in servers.values():
        wait_for(lambda server=server: clients(server) == [], "no connection is open")


@pytest.mark.slow
def test_an_application_that_is_loaded_before_the_fork_opens_nothing_until_after_it(
    servers: dict[str, Server], tmp_path: Path
) -> None:
    server = servers["redis"]
    with site([*GUNICORN, "warning"], tmp_path, variables("redis", servers, tmp_path)) as running:

        async def main() -> None:
            _, cookie = await running.get("/login")
            answers = await running.answers("/show", cookie)
            workers = {worker for worker, _ in answers}
            assert {user for _, user in answers} == {"Ada"}
            assert running.process.pid not in workers
            assert len(clients(server)) == len(workers)  # each its own connection, and none is the master's

        asyncio.run(main())
        running.stop()
    wait_for(lambda: clients(server) == [], "no connection is open")
