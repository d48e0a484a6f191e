"""A Litestar application on our stores against the same on Litestar's own: ``python benchmarks/frameworks.py``.

One uvicorn process each, asked in turns by 50 connections that stay open; every answer is checked. Options: the number
of requests for each, then the number of turns.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, cast

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.servers import Server, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[1]
CONNECTIONS = 50
REQUESTS = 20_000
TURNS = 10


class Visitor(asyncio.Protocol):
    """One connection with a session of its own: it asks again as soon as it has been answered."""

    def __init__(self, path: str, budget: list[int]) -> None:
        self._path, self._budget = path, budget
        self._cookie = b""
        self._received = b""
        self.visits = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def _ask(self) -> None:
        if self._budget[0] == 0:
            self._transport.close()
            self.done.set_result(self.visits)
            return
        self._budget[0] -= 1
        self._transport.write(b"GET %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (self._path.encode(), self._cookie))

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._received = b""
        if not head.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(RuntimeError(head.decode()))
            return
        self.visits += 1
        if self._path == "/session":
            if int(body) != self.visits:
                self.done.set_exception(RuntimeError(f"visit {self.visits} was counted as {body!r}"))
                return
            self._cookie = b"Cookie: " + head.partition(b"set-cookie: ")[2].partition(b";")[0] + b"\r\n"
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionResetError("the server hung up"))


async def turn(port: int, path: str, requests: int) -> float:
    """Requests per second, once."""
    loop, budget = asyncio.get_running_loop(), [requests]
    start = time.perf_counter()
    visitors = [
        (await loop.create_connection(lambda: Visitor(path, budget), "127.0.0.1", port))[1] for _ in range(CONNECTIONS)
    ]
    answered = sum(await asyncio.gather(*(visitor.done for visitor in visitors)))
    assert answered == requests
    return requests / (time.perf_counter() - start)


def serve(stack: ExitStack, stores: str, url: str) -> int:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks._site:app", "--port", str(port), "--log-level", "warning"]
    environ = {**os.environ, "BENCH_STORES": stores, "BENCH_URL": url}
    process = subprocess.Popen([*command, "--no-access-log"], cwd=ROOT, env=environ)
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)
    wait_for(lambda: process.poll() is None and answers(port), f"the site on {stores}")
    return port


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def compare(ports: dict[str, int], path: str, requests: int, turns: int) -> dict[str, list[float]]:
    speeds: dict[str, list[float]] = {stores: [] for stores in ports}
    for port in ports.values():
        await turn(port, path, 500)
    for number in range(turns):
        for stores in sorted(ports, reverse=number % 2 == 1):
            speeds[stores].append(await turn(ports[stores], path, requests // turns))
    return speeds


def main(arguments: Iterable[str]) -> None:
    requests, turns = [*(int(argument) for argument in arguments), REQUESTS, TURNS][:2]
    print(f"{CONNECTIONS} connections, {requests} requests each in {turns} turns, no errors")
    print(f"{'':8} {'':10} {'ours':>8} {'theirs':>8} {'ratio':>6}  (medians per second; median of the turns' ratios)")
    with Server("redis-8.2") as redis:
        for backend, url in (("memory", ""), ("redis", redis.url)):
            with ExitStack() as stack:
                ports = {stores: serve(stack, stores, url) for stores in ("ours", "theirs")}
                for path in ("/session", "/cached"):
                    speeds = uvloop.run(compare(ports, path, requests, turns))
                    ratio = statistics.median(map(float.__truediv__, speeds["ours"], speeds["theirs"]))
                    ours, theirs = (statistics.median(speeds[stores]) for stores in ("ours", "theirs"))
                    print(f"{backend:8} {path:10} {ours:8.0f} {theirs:8.0f} {ratio:6.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
