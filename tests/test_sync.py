"""`storeconf.sync`: the same operations without ``await``, on every backend, from many threads and after a fork."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

import storeconf
import storeconf.sync
from storeconf import Store, TypedStore, _background
from storeconf.operations import METHODS
from storeconf.sync import SyncStore, SyncTypedStore
from tests.servers import Server, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from storeconf.sync import SyncRegistry

CHAIN = {
    "metrics": True,
    "limit": {"value_size": "1MiB"},
    "ttl": {"default": "1h"},
    "on_error": "miss",
    "compress": "gzip",
    "encrypt": {"keys": ["k" * 32]},
    "breaker": {},
    "retry": {},
    "timeout": "5s",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("valkey-9.1") as server:
        yield server


@pytest.fixture(params=["memory", "memory-chain", "file", "valkey", "valkey-near"])
def registry(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> Iterator[SyncRegistry]:
    kind, _, chain = request.param.partition("-")
    root: dict[str, Any] = {"type": kind, "namespace": f"t{os.urandom(4).hex()}"}
    if kind == "file":
        root["path"] = str(tmp_path / "files")
    elif kind == "valkey":
        root["url"] = f"valkey://{server.address}/0"
    if chain:
        root["middleware"] = CHAIN if chain == "chain" else {"metrics": True, "cache": "10s"}
    layout = {"stores": {"main": root, "child": {"parent": "main"}, "alias": {"use": "child"}}}
    with storeconf.sync.load(layout, environ={}) as registry:
        yield registry


@pytest.fixture
def store(registry: SyncRegistry) -> SyncStore:
    return registry["child"]


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        return [each.result(30) for each in [pool.submit(work, number) for number in range(count)]]


@pytest.mark.parametrize("operation", ["add", "delete", "increment", "get", "keys"])
def test_the_first_call_opens_a_store_in_memory(operation: str) -> None:
    registry = storeconf.sync.load({"stores": {"a": {"type": "memory"}}}, environ={})
    arguments = {"add": ("k", "v"), "keys": ()}.get(operation, ("k",))
    found = getattr(registry["a"], operation)(*arguments)
    assert (list(found) if operation == "keys" else found) in (True, False, 1, None, [])
    registry.close()


def test_every_operation_of_a_store(store: SyncStore) -> None:
    assert store.get("k") is None
    store.set("k", "v", expires_in=60)
    assert store.get("k") == store.get("k", renew_for=90) == b"v"
    assert store.exists("k")
    assert store.expires_in("k") == 90
    store.set("k", b"w", keep_ttl=True)
    found = store.get_with_expiry("k")
    assert found is not None
    assert found[0] == b"w"
    assert found[1] == pytest.approx(90, abs=5)
    assert not store.add("k", "x")
    assert store.touch("k", 30)
    assert store.compare_and_set("k", b"w", b"x")
    assert store.pop("k") == b"x"
    assert store.increment("n", 5, expires_in=60) == 5
    assert store.increment("n") == 6
    store.set_many({"a": "1", "b": "2"}, expires_in=60)
    assert store.get_many(each for each in ["a", "b", "c"]) == {"a": b"1", "b": b"2"}
    assert sorted(store.keys()) == ["a", "b", "n"]
    assert sorted(store.keys("a")) == ["a"]
    assert store.delete("a")
    assert store.delete_many(["b", "c"]) == 1
    below = store.with_namespace("below")
    below.set("z", "1")
    assert sorted(store.walk()) == [((), "n"), (("below",), "z")]
    store.delete_expired()
    store.delete_all()
    assert below.get("z") is None
    assert store.ping().ok
    assert store.is_open
    assert store.name == "child"
    assert store.namespaces == (*store.wrapped.root.namespaces[:1], "child") or store.namespace is not None


@pytest.mark.parametrize("kind", [SyncStore, TypedStore, SyncTypedStore], ids=lambda kind: kind.__name__)
def test_every_operation_has_its_other_forms(kind: type) -> None:
    """`get_with_expiry` is of values as they are stored: typed stores have none."""
    without = set() if kind is SyncStore else {"get_with_expiry"}
    assert {method for method in METHODS if not hasattr(kind, method)} == without
    for method in METHODS.keys() - without:
        assert parameters(kind, method) == parameters(Store, method), method


def parameters(kind: type, method: str) -> list[str]:
    return list(inspect.signature(getattr(kind, method)).parameters)


def test_names_and_identity(registry: SyncRegistry) -> None:
    assert registry.names() == list(registry) == ["main", "child", "alias"]
    assert registry.get("child") is registry["alias"] is registry.require("child")
    assert "child" in registry
    assert "other" not in registry
    with pytest.raises(storeconf.UnknownStoreError):
        registry["other"]
    registry.register("other", storeconf.MemoryStore())
    registry["other"].set("k", "v")
    assert all(result.ok for result in registry.ping().values())


def test_an_iteration_that_can_not_begin_here_begins_in_the_loop(store: SyncStore) -> None:
    store.set("k", "v")
    assert list(store.keys()) == ["k"]
    store.close()
    with pytest.raises(storeconf.StoreClosedError):
        list(store.keys())


def test_more_keys_than_are_fetched_at_once(store: SyncStore) -> None:
    names = {f"k{number}" for number in range(1000)}
    store.set_many(dict.fromkeys(names, "v"))
    assert set(store.keys()) == names
    given_up = store.keys()
    next(given_up)
    del given_up
    assert store.delete_many(names) == 1000


def test_errors_come_as_they_are(store: SyncStore) -> None:
    store.set("k", "text")
    with pytest.raises(storeconf.StoreValueError) as caught:
        store.increment("k")
    assert caught.value.operation == "increment"
    with pytest.raises(TypeError):
        store.set("k", 1)  # type: ignore[arg-type]
    store.close()
    with pytest.raises(storeconf.StoreClosedError):
        store.get("other")
    with store:
        store.get("k")


def test_one_factory_among_all_threads_in_a_calling_thread(store: SyncStore) -> None:
    ran: list[threading.Thread] = []

    def factory() -> str:
        ran.append(threading.current_thread())
        time.sleep(0.1)
        return "made"

    started = threading.Barrier(16)

    def ask(_: int) -> tuple[bytes, threading.Thread]:
        started.wait(10)
        return store.get_or_set("k", factory, expires_in=60), threading.current_thread()

    answers = in_threads(16, ask)
    assert {value for value, _ in answers} == {b"made"}
    assert len(ran) == 1
    assert ran[0] in {thread for _, thread in answers}
    assert store.get_or_set("k", factory) == b"made"
    assert len(ran) == 1


def test_a_factory_may_use_stores_and_sees_its_own_context(store: SyncStore) -> None:
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("mine")

    def factory() -> bytes:
        store.set("other", variable.get())
        inner = store.get_or_set("inner", lambda: "deep")
        return inner + (store.get("other") or b"")

    assert store.get_or_set("k", factory) == b"deepmine"


def test_an_error_of_the_factory_comes_to_all_and_nothing_is_stored(store: SyncStore) -> None:
    def factory() -> str:
        time.sleep(0.05)
        raise ZeroDivisionError

    def ask(_: int) -> str:
        with pytest.raises(ZeroDivisionError):
            store.get_or_set("k", factory)
        return "raised"

    assert in_threads(4, ask) == ["raised"] * 4
    assert store.get("k") is None
    with pytest.raises(RuntimeError, match="StopIteration"):
        store.get_or_set("k", lambda: next(iter(())))
    with pytest.raises(TypeError, match="plain function"):
        store.get_or_set("k", lambda: asyncio.sleep(0))  # type: ignore[arg-type,return-value]


def test_a_factory_that_waits_for_its_own_key(store: SyncStore) -> None:
    with pytest.raises(storeconf.StoreDeadlockError):
        store.get_or_set("k", lambda: store.get_or_set("k", lambda: "inner"))
    meet = threading.Barrier(2)

    def crossed(number: int) -> str:
        def factory() -> bytes:
            meet.wait(10)
            return store.get_or_set(f"c{1 - number}", lambda: "other")

        try:
            return store.get_or_set(f"c{number}", factory).decode()
        except storeconf.StoreDeadlockError:
            return "deadlock"

    assert "deadlock" in in_threads(2, crossed)


def test_a_thread_that_is_interrupted_leaves_its_factory_to_another(store: SyncStore) -> None:
    begun = threading.Event()
    others = ThreadPoolExecutor(1)

    def interrupted() -> str:
        begun.set()
        time.sleep(0.2)
        raise KeyboardInterrupt

    def other() -> bytes:
        begun.wait(10)
        return store.get_or_set("k", lambda: "other")

    waiting = others.submit(other)
    with pytest.raises(KeyboardInterrupt):
        store.get_or_set("k", interrupted)
    assert waiting.result(10) == b"other"
    others.shutdown()


def test_a_wait_ends_with_the_exception_of_a_signals_handler(server: Server) -> None:
    def late(*_: object) -> None:
        raise TimeoutError("late")

    layout = {"stores": {"main": {"type": "valkey", "url": f"valkey://{server.address}/0", "namespace": "s"}}}
    with storeconf.sync.load(layout, environ={}) as registry:
        store = registry["main"]
        store.set("k", "v")
        before = signal.signal(signal.SIGALRM, late)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(TimeoutError, match="late"):
                store.get("k")
        finally:
            os.kill(server.pid, signal.SIGCONT)
            signal.signal(signal.SIGALRM, before)
        assert store.get("k") == b"v"


@pytest.mark.parametrize("line", range(1, 6))
def test_an_exception_in_the_midst_of_a_call_delays_no_other_one(server: Server, line: int) -> None:
    """A signal may come anywhere, such as after a thread has noted that it wakes the loop, and before it does."""
    layout = {"stores": {"main": {"type": "valkey", "url": f"valkey://{server.address}/0", "namespace": "s"}}}
    with storeconf.sync.load(layout, environ={}) as registry:
        store = registry["main"]
        store.set("k", "v")
        lines = 0

        def interrupt(frame: FrameType, event: str, _: object) -> Any:
            nonlocal lines
            if frame.f_code.co_name != "_hand_over":
                return interrupt
            lines += event == "line"
            if event == "line" and lines == line:
                raise KeyboardInterrupt
            return interrupt

        before = sys.gettrace()
        sys.settrace(interrupt)
        try:
            with suppress(KeyboardInterrupt):
                store.get("k")
        finally:
            sys.settrace(before)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(store.get, "k").result(20) == b"v"


def test_in_a_running_event_loop_every_call_raises(registry: SyncRegistry, store: SyncStore) -> None:
    async def ask() -> None:
        calls: list[Callable[[], Any]] = [
            lambda: store.get("k"),
            lambda: store.set("k", "v"),
            lambda: store.get_or_set("k", lambda: "v"),
            lambda: store.keys(),
            store.ping,
            store.close,
            registry.ping,
            registry.delete_expired,
            registry.close,
            registry.__enter__,
        ]
        for call in calls:
            with pytest.raises(RuntimeError, match="would block the event loop"):
                call()

    asyncio.run(ask())


def test_a_value_in_memory_expires_without_an_event_loop() -> None:
    store = storeconf.sync.SyncStore(storeconf.MemoryStore())
    store.set("k", "v", expires_in=0.05)
    assert store.get("k") == b"v"
    wait_for(lambda: store.get("k") is None, "the expiry")
    wait_for(lambda: not store.wrapped._space.table, "the sweeper")  # type: ignore[attr-defined]  # of the background loop


def run(script: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


LAYOUT = """
import os, sys, threading, time
import storeconf.sync
registry = storeconf.sync.load({"stores": {
    "memory": {"type": "memory"},
    "chain": {"parent": "memory", "middleware": {"ttl": "1h", "compress": "gzip"}},
    "far": {"type": "valkey", "url": sys.argv[1], "namespace": "f"},
    "near": {"parent": "far", "middleware": {"limit": {"key_size": 99}, "cache": "10s"}},
}}, environ={})
"""


def test_what_never_waits_stays_in_the_calling_thread(server: Server) -> None:
    script = """
registry.__enter__()
far, near = registry["far"], registry["near"]
near.set("k", "v")
for _ in range(40): near.get("k"); time.sleep(0.005)  # until the server has announced what was set
from storeconf import _background
def refuse(*args): raise AssertionError("the loop was asked")
_background.BackgroundLoop._hand_over = refuse
for name in ("memory", "chain"):
    store = registry[name]
    store.set("k", "v", expires_in=60); store.get("k"); store.exists("k"); store.add("k", "v"); store.delete("k")
    store.set("k", "v"); assert store.get_or_set("k", lambda: 1) == b"v"; store.touch("k", 5); store.expires_in("k")
    store.get_with_expiry("k"); store.get_many(["k"]); store.set_many({"a": "b"}); store.delete_many(["a"])
registry["memory"].increment("n"); registry["memory"].pop("n"); registry["memory"].compare_and_set("n", None, b"1")
assert near.get("k") == near.get_or_set("k", lambda: 1) == b"v"
try: far.get("k")
except AssertionError: print("far asks the loop")
os._exit(0) if print("done", flush=True) is None else 0
"""
    assert run(LAYOUT + script, f"valkey://{server.address}/0").split("\n") == ["far asks the loop", "done"]


def test_what_nobody_has_used_closes_at_the_end_of_the_process() -> None:
    script = """
import atexit, storeconf, storeconf.sync
registry = storeconf.sync.load({"stores": {"main": {"type": "memory"}}}, environ={})
store = storeconf.sync.SyncStore(storeconf.MemoryStore())
atexit.register(registry.close)
atexit.register(store.close)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_forked_child_has_a_loop_of_its_own(server: Server) -> None:
    script = """
registry.__enter__()
for name in registry: registry[name].set("k", "v", expires_in=60)
read, write = os.pipe()
if os.fork() == 0:
    answers = [registry[name].get_or_set("k", lambda: "new") for name in registry]
    ran = []
    def ask(): ran.append(registry["far"].get_or_set("child", lambda: "made"))
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads: each.start()
    for each in threads: each.join(10)
    os.write(write, b" ".join(answers + ran)); os._exit(0)
os.wait()
print(os.read(read, 999).decode(), registry["far"].get("k"))
registry.__exit__(None, None, None)
"""
    assert run(LAYOUT + script, f"valkey://{server.address}/0") == f"{'v ' * 4}{'made ' * 4}b'v'"


GREEN = {
    "gevent": ("from gevent import monkey; monkey.patch_all()", "call()"),
    "gevent-unpatched": ("import gevent", "gevent.spawn(call).get()"),
    "eventlet": ("import eventlet; eventlet.monkey_patch()", "call()"),
    "eventlet-unpatched": ("import eventlet", "eventlet.spawn(call).wait()"),
}


@pytest.mark.parametrize("kind", GREEN)
@pytest.mark.parametrize("name", ["memory", "far"])
def test_under_green_threads_a_call_raises(kind: str, name: str, server: Server) -> None:
    patch, go = GREEN[kind]
    script = f"""
def call():
    try: registry["{name}"].get("k")
    except RuntimeError as error: print(error, flush=True)
{go}
os._exit(0)
"""
    said = run(f"{patch}\n{LAYOUT}{script}", f"valkey://{server.address}/0")
    assert said == "storeconf.sync works under neither gevent nor eventlet: a call would block all green threads"


def test_gevent_alone_does_no_harm(server: Server) -> None:
    script = "registry.__enter__(); print(registry['far'].exists('nothing')); registry.__exit__(None, None, None)"
    assert run(f"import gevent, eventlet\n{LAYOUT}{script}", f"valkey://{server.address}/0") == "False"


def test_stores_follow_their_names_when_the_registry_is_reloaded(server: Server, tmp_path: Path) -> None:
    layout = tmp_path / "storeconf.yaml"

    def write(store: str) -> None:
        layout.write_text(f"stores: {{main: {store}, other: {{type: memory}}}}")

    write("{type: memory}")
    with storeconf.sync.load(layout, environ={}) as registry:
        main, other = registry["main"], registry["other"]
        below, counts = main.with_namespace("below"), storeconf.sync.typed(main, int)
        for key, store in (("a", main), ("b", below), ("c", other)):
            store.set(key, "1")
        write(f"{{type: valkey, url: 'valkey://{server.address}/0', namespace: r, middleware: {{cache: 10s}}}}")
        assert "main" in registry.reload().changed
        assert (main.get("a"), below.get("b"), counts.get("a")) == (None, None, None)
        assert other.get("c") == b"1"
        counts.set("a", 5)
        assert main.get("a") == main.get("a") == b"5"
        assert sorted(main.keys()) == ["a"]
        assert main.get_or_set("d", lambda: "made") == b"made"
        assert in_threads(4, lambda _: counts.get("a")) == [5] * 4
        write("{type: memory}")
        registry.reload()
        assert (main.get("a"), counts.get("a")) == (None, None)
        counts.set("a", 6)
        assert main.get("a") == b"6"
        assert registry["main"] is main


def test_a_request_that_has_ended_asks_its_thread_nothing() -> None:
    """Else a flight of others would wait for a factory that an ending event loop never runs."""

    async def main() -> None:
        request = _background._LoopRequest(_background.factories_here(), lambda: b"v")
        request.end()
        with pytest.raises(_background._FactoryLeftError):
            await asyncio.wait_for(request._ask(), 5)

    asyncio.run(main())
