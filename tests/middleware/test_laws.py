"""The table of operations times the built-in middleware: each cell has a word, and each word is checked.

A new operation needs a row here, and a new middleware a column: the first test fails without. The words are defined by
the functions below, one for each middleware.
"""

from __future__ import annotations

import asyncio
import inspect
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from storeconf import (
    BuildContext,
    Catalog,
    MemoryStore,
    PingResult,
    Store,
    StoreReadOnlyError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreValueError,
    mirror_report,
)
from storeconf._arguments import STALE
from storeconf.middleware import compress as compressing
from storeconf.middleware import encrypt as encrypting
from storeconf.operations import METHODS, OPERATIONS, TABLE
from tests.middleware.metering import metering, recorded
from tests.middleware.mirroring import repeated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from storeconf.operations import Operation

BEHAVIOUR = """
operation       metrics read_only limit   ttl    on_error fallback refresh cache  mirror  moved_from compress encrypt breaker retry timeout
get             hit     passes    key,out renews miss     other    passes  near   repeats carries    decodes  decodes fails   again known
renew           hit     refuses   key,out caps   miss     other    passes  drops  repeats carries    decodes  decodes fails   again unknown
get_many        ok      passes    key,out renews miss     other    passes  near   repeats carries    decodes  decodes fails   again known
get_with_expiry hit     passes    key,out passes miss     other    passes  near   repeats carries    decodes  decodes fails   again known
exists          hit     passes    key     passes miss     other    passes  passes repeats looks      passes   passes  fails   again known
expires_in      ok      passes    key     passes miss     other    passes  passes repeats looks      passes   passes  fails   again known
keys            ok      passes    passes  passes raises   raises   passes  passes passes  looks      passes   passes  fails   once  known
ping            ok      passes    passes  passes passes   passes   passes  passes passes  passes     passes   passes  passes  once  told
set             ok      refuses   key,in  fills  miss     other    drops   drops  repeats carries    encodes  encodes fails   again unknown
set_many        ok      refuses   key,in  fills  miss     other    drops   drops  repeats carries    encodes  encodes fails   again unknown
delete          ok      refuses   key     passes miss     other    drops   drops  repeats both       passes   passes  fails   again unknown
delete_many     ok      refuses   key     passes miss     other    drops   drops  repeats both       passes   passes  fails   again unknown
delete_all      ok      refuses   passes  passes raises   raises   drops   drops  repeats both       passes   passes  fails   again unknown
delete_expired  ok      refuses   passes  passes miss     raises   passes  passes passes  both       passes   passes  fails   again unknown
add             ok      refuses   key,in  fills  raises   raises   drops   drops  repeats carries    encodes  encodes fails   once  unknown
touch           hit     refuses   key     caps   miss     other    passes  drops  repeats carries    passes   passes  fails   again unknown
pop             hit     refuses   key,out passes miss     other    drops   drops  repeats carries    decodes  decodes fails   once  unknown
increment       ok      refuses   key     fills  raises   raises   drops   drops  repeats carries    encodes  encodes fails   once  unknown
compare_and_set ok      refuses   key,in  fills  raises   raises   drops   drops  repeats carries    encodes  encodes fails   once  unknown
"""  # noqa: E501

CALLS: dict[str, Callable[[Store, str, Any, Any], Awaitable[Any]]] = {
    "get": lambda store, key, value, span: store.get(key),
    "renew": lambda store, key, value, span: store.get(key, 1000 if span is None else span),
    "get_many": lambda store, key, value, span: store.get_many([key]),
    "get_with_expiry": lambda store, key, value, span: store.get_with_expiry(key),
    "exists": lambda store, key, value, span: store.exists(key),
    "expires_in": lambda store, key, value, span: store.expires_in(key),
    "keys": lambda store, key, value, span: listed(store),
    "ping": lambda store, key, value, span: store.ping(),
    "set": lambda store, key, value, span: store.set(key, value, span),
    "set_many": lambda store, key, value, span: store.set_many({key: value}, span),
    "delete": lambda store, key, value, span: store.delete(key),
    "delete_many": lambda store, key, value, span: store.delete_many([key]),
    "delete_all": lambda store, key, value, span: store.delete_all(),
    "delete_expired": lambda store, key, value, span: store.delete_expired(),
    "add": lambda store, key, value, span: store.add(key, value, span),
    "touch": lambda store, key, value, span: store.touch(key, span),
    "pop": lambda store, key, value, span: store.pop(key),
    "increment": lambda store, key, value, span: store.increment(key, 7, span),
    "compare_and_set": lambda store, key, value, span: store.compare_and_set(key, None, value, span),
}
"""A call of each operation on a key, with a value and an expiry where it takes them."""


async def listed(store: Store) -> list[str]:
    return [key async for key in store.keys()]


class Line(MemoryStore):
    """A memory store that records the public calls that reach it, and may fail or hang in each."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.fails = 0
        """How many further calls fail, with an unknown outcome."""

        self.hangs = False

    def do_attach(self, parent: Line) -> None:
        super().do_attach(parent)
        self.calls, self.fails, self.hangs = [], 0, False

    async def use(self, method: str) -> None:
        self.calls.append(method)
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails:
            self.fails -= 1
            raise StoreUnavailableError("the line is cut", outcome_unknown=True)


def taken_over(method: str) -> Any:
    own = getattr(MemoryStore, method)

    async def call(self: Line, *args: Any, **kwargs: Any) -> Any:
        await self.use(method)
        return await own(self, *args, **kwargs)

    async def keys(self: Line, prefix: str = "") -> Any:
        await self.use(method)
        async for key in own(self, prefix):
            yield key

    async def ping(self: Line) -> PingResult:
        try:
            await self.use(method)
        except StoreUnavailableError as error:
            return PingResult(ok=False, error=str(error))
        return PingResult(ok=True)

    return {"keys": keys, "ping": ping}.get(method, call)


Recorded: type[Line] = type("Recorded", (Line,), {method: taken_over(method) for method in METHODS})

_numbers = count()


def around(kind: str, inner: Store, other: Store | None = None, **settings: Any) -> Any:
    name = f"law {next(_numbers)}"
    middleware = Catalog.builtin().middleware(kind)(**settings)
    return middleware.wrap(inner, BuildContext(name=name, environment=None, store=lambda _: other or inner)), name


ABSENT = frozenset({"add", "increment", "compare_and_set"})
"""Operations that are tried on a missing key, because they create it."""


def key_for(operation: str) -> str:
    return "new" if operation in ABSENT else "k"


# ---------------------------------------------------------------------- what the words mean


async def metrics(operation: str, word: str) -> None:
    metering()
    inner = Recorded()
    await inner.set("k", b"v")
    store, name = around("metrics", inner)
    await CALLS[operation](store, key_for(operation), b"v", 60)
    (attributes,) = recorded(name)
    assert (attributes["operation"], attributes["outcome"]) == (OPERATIONS[operation].method, word)


async def read_only(operation: str, word: str) -> None:
    inner = Recorded()
    await inner.set("k", b"v")
    store, _ = around("read_only", inner)
    inner.calls.clear()
    if word == "passes":
        await CALLS[operation](store, "k", b"v", 60)
        assert inner.calls == [OPERATIONS[operation].method]
    else:
        assert word == "refuses"
        with pytest.raises(StoreReadOnlyError):
            await CALLS[operation](store, "k", b"v", 60)
        assert inner.calls == []


async def limit(operation: str, word: str) -> None:
    inner = Recorded()
    store, _ = around("limit", inner, key_size=4, value_size=3)
    await inner.set("k", b"1234")
    await inner.set("a-long-key", b"v", 60)
    for call in ("key", "in", "out"):
        inner.calls.clear()
        args = {"key": ("a-long-key", b"v", 60), "in": ("new", b"1234", 60), "out": ("k", b"v", 60)}[call]
        if call in word.split(",") and call != "out":
            with pytest.raises(StoreValueError):
                await CALLS[operation](store, *args)
            assert inner.calls == []
        elif call == "out" and call in word.split(","):
            assert not await CALLS[operation](store, *args)
            assert await inner.get("k") == b"1234"
        elif call == "key":
            await CALLS[operation](store, *args)
            assert inner.calls == [OPERATIONS[operation].method]
    await CALLS[operation](store, "new", b"v", 60)  # which is small enough


async def ttl(operation: str, word: str) -> None:
    inner = Recorded()
    store, _ = around("ttl", inner, default=60, max=120, renew_on_get=True)
    await inner.set("k", b"1", 30)
    key = key_for(operation)
    await CALLS[operation](store, key, b"1", None)
    left = await inner.expires_in(key)
    if word == "passes":
        assert left in (30, None)
    elif word == "caps":
        assert left == 120
        await CALLS[operation](store, "k", b"1", 10_000)
        assert await inner.expires_in("k") == 120
    else:
        assert word in ("renews", "fills")
        assert left == 60
    if word == "fills":
        await inner.delete(key)
        await CALLS[operation](store, key, b"1", 10_000)
        assert await inner.expires_in(key) == 120


async def on_error(operation: str, word: str) -> None:
    inner = Recorded()
    store, _ = around("on_error", inner, action="miss")
    inner.fails = 1
    if word == "raises":
        with pytest.raises(StoreUnavailableError):
            await CALLS[operation](store, "k", b"v", 60)
    elif word == "passes":
        assert await CALLS[operation](store, "k", b"v", 60) == PingResult(ok=False, error="the line is cut")
    else:
        assert word == "miss"
        assert not await CALLS[operation](store, "k", b"v", 60)
        assert store.misses == 1


async def fallback(operation: str, word: str) -> None:
    inner, other = Recorded(), Recorded()
    await other.set("k", b"v", 30)
    store, _ = around("fallback", inner, other, store="other")
    other.calls.clear()
    inner.fails = 1
    if word == "raises":
        with pytest.raises(StoreUnavailableError):
            await CALLS[operation](store, "k", b"v", 60)
    else:
        assert word in ("other", "passes")
        await CALLS[operation](store, "k", b"v", 60)
    assert other.calls == ([OPERATIONS[operation].method] if word == "other" else [])


async def refresh(operation: str, word: str) -> None:
    inner = Recorded()
    store, _ = around("refresh", inner, early="20%", stale_if_error="1h", wait="1s", shared="30s")
    key = key_for(operation)
    await store.get_or_set("k", lambda: b"v", 600)
    copies = inner.with_namespace(STALE)
    await copies.set("new", b"v")
    inner.calls.clear()
    await CALLS[operation](store, key, b"w", 60)
    assert inner.calls == [OPERATIONS[operation].method]
    assert word in ("drops", "passes")
    assert await copies.exists(key) == (word == "passes")


async def cache(operation: str, word: str) -> None:
    inner = Recorded()
    store, _ = around("cache", inner)
    key = key_for(operation)
    await inner.set("k", b"v", 600)
    await inner.set("other", b"v")
    for each in ("k", "other", "new"):
        await store.get(each)
    inner.calls.clear()
    await CALLS[operation](store, key, b"w", 60)
    assert bool(inner.calls) == (word != "near")
    inner.calls.clear()
    assert await store.get("k") == await inner.get("k")
    assert await store.get("other") == await inner.get("other")
    if word == "drops":
        inner.calls.clear()
        assert await store.get(key) == await MemoryStore.get(inner, key)
        return
    assert word in ("near", "passes")
    assert inner.calls == ["get", "get"]  # the test's own: what was near still is


async def _coded(store: Any, inner: Line, magic: bytes, operation: str, word: str) -> None:
    assert word in ("encodes", "decodes", "passes")
    value = b"1" * 2000
    await store.set("k", value, 600)
    key = key_for(operation)
    result = await CALLS[operation](store, key, value, 60)
    if word == "decodes":
        assert result in (value, {"k": value}) or (result[0] == value and 500 < result[1] <= 600)
    elif word == "encodes":
        stored = await inner.get(key)
        assert stored is not None
        assert stored.startswith(magic)
        assert await store.get(key) == (b"7" if operation == "increment" else value)
    else:
        assert result is None or not isinstance(result, bytes | tuple | dict)


async def compress(operation: str, word: str) -> None:
    inner = Recorded()
    store, _ = around("compress", inner, algorithm="gzip", min_size=0)
    await _coded(store, inner, compressing.MAGIC, operation, word)


async def encrypt(operation: str, word: str) -> None:
    inner = Recorded()
    store, _ = around("encrypt", inner, keys=["k" * 32])
    await _coded(store, inner, encrypting.MAGIC, operation, word)


async def breaker(operation: str, word: str) -> None:
    inner = Recorded()
    store, _ = around("breaker", inner, failures=1)
    inner.fails = 1
    with pytest.raises(StoreUnavailableError):
        await store.get("k")
    inner.calls.clear()
    if word == "passes":
        await CALLS[operation](store, "k", b"v", 60)
        assert inner.calls == [OPERATIONS[operation].method]
    else:
        assert word == "fails"
        with pytest.raises(StoreUnavailableError, match="circuit breaker open"):
            await CALLS[operation](store, "k", b"v", 60)
        assert inner.calls == []


async def retry(operation: str, word: str) -> None:
    inner = Recorded()
    store, _ = around("retry", inner, attempts=3, backoff=0.001)
    inner.fails = 1
    if word == "again":
        await CALLS[operation](store, "k", b"v", 60)
    elif operation == "ping":
        assert not (await store.ping()).ok
    else:
        assert word == "once"
        with pytest.raises(StoreUnavailableError):
            await CALLS[operation](store, "k", b"v", 60)
    assert inner.calls == [OPERATIONS[operation].method] * (2 if word == "again" else 1)


async def timeout(operation: str, word: str) -> None:
    inner = Recorded()
    store, _ = around("timeout", inner, per_attempt=0.001)
    inner.hangs = True
    if word == "told":
        assert "StoreTimeoutError" in (await CALLS[operation](store, "k", b"v", 60)).error
        return
    with pytest.raises(StoreTimeoutError) as caught:
        await CALLS[operation](store, "k", b"v", 60)
    assert caught.value.operation == OPERATIONS[operation].method
    assert caught.value.outcome_unknown == {"known": False, "unknown": True}[word]


async def mirror(operation: str, word: str) -> None:
    inner, other = Recorded(), Recorded()
    await inner.set("k", b"1", 30)
    store, _ = around("mirror", inner, other, store="other")
    await CALLS[operation](store, key_for(operation), b"2", 60)
    await repeated(store)
    assert word in ("repeats", "passes")
    assert other.calls == ([OPERATIONS[operation].method] if word == "repeats" else [])
    report = mirror_report(store)
    assert report is not None
    assert (report.errors, report.differences) == (0, 0)


async def moved_from(operation: str, word: str) -> None:
    inner, other = MemoryStore(), MemoryStore()
    await other.set("k", b"1", 30)
    store, _ = around("moved_from", inner, other, store="other")
    await CALLS[operation](store, "k", b"2", 60)
    left = await other.get("k")
    if word == "carries":
        assert left is None
        assert (await inner.get("k") is None) == (operation == "pop")
    elif word == "both":
        assert left == (b"1" if operation == "delete_expired" else None)
        assert await inner.get("k") is None
    else:
        assert word in ("looks", "passes")
        assert left == b"1"
        assert await inner.get("k") is None


CHECKS: dict[str, Callable[[str, str], Coroutine[Any, Any, None]]] = {
    "metrics": metrics,
    "read_only": read_only,
    "limit": limit,
    "ttl": ttl,
    "on_error": on_error,
    "fallback": fallback,
    "refresh": refresh,
    "cache": cache,
    "mirror": mirror,
    "moved_from": moved_from,
    "compress": compress,
    "encrypt": encrypt,
    "breaker": breaker,
    "retry": retry,
    "timeout": timeout,
}

HEAD, *ROWS = (line.split() for line in BEHAVIOUR.strip().splitlines())
CELLS = [(kind, row[0], word) for row in ROWS for kind, word in zip(HEAD[1:], row[1:], strict=True)]


def test_every_operation_and_every_middleware_has_its_cells() -> None:
    assert [row[0] for row in ROWS] == [row.name for row in TABLE]
    assert HEAD[1:] == list(Catalog.builtin().middleware_names())
    assert CALLS.keys() == OPERATIONS.keys()
    assert CHECKS.keys() == set(HEAD[1:])


@pytest.mark.parametrize(("kind", "operation", "word"), CELLS)
def test_a_cell(kind: str, operation: str, word: str) -> None:
    asyncio.run(CHECKS[kind](operation, word))


# ---------------------------------------------------------------------- what a row tells of arguments and results


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_row_agrees_with_the_method(row: Operation) -> None:
    parameters = list(inspect.signature(getattr(Store, row.method)).parameters)[1:]
    expiries = {parameters.index(name) for name in ("expires_in", "renew_for") if name in parameters}
    assert row.expiry == (None if METHODS[row.method] is not row else next(iter(expiries), None))
    assert row.stores == bool({"value", "mapping", "new"} & set(parameters))
    assert (row.target == "keys") == (parameters[:1] in (["keys"], ["mapping"]))
    if row.reached(Exception()) is not None and row.may_miss:
        assert row.missed(Exception()) == row.miss


BULK = [row for row in TABLE if row.reached(Exception()) is not None]
"""Those of which an unavailable backend may do a part, and tell what that gave."""


class Half(MemoryStore):
    """A memory store half of which, the keys that begin with "far", is out of reach in some calls."""

    cuts = 0
    """In how many further calls."""


def halved(row: Operation) -> Any:
    own = getattr(MemoryStore, row.method)

    async def call(self: Half, keys: Any, *args: Any) -> Any:
        if not self.cuts:
            return await own(self, keys, *args)
        self.cuts -= 1
        error = StoreUnavailableError("half of the keys are out of reach")
        near = [key for key in keys if not key.startswith("far")]
        error.partial = (await own(self, near, *args)) or None
        raise error

    return call


Halved: type[Half] = type("Halved", (Half,), {row.method: halved(row) for row in BULK})

HELD = {"near": b"1", "far": b"2", "far too": b"3"}


async def filled(kind: type[MemoryStore], cuts: int) -> Any:
    store = kind()
    await store.set_many(HELD)
    if isinstance(store, Half):
        store.cuts = cuts
    return store


def test_there_are_bulk_operations_to_test() -> None:
    assert {"get_many", "delete_many"} <= {row.name for row in BULK}


@pytest.mark.parametrize("row", BULK, ids=lambda row: row.name)
def test_parts_of_a_bulk_call_make_up_the_whole(row: Operation) -> None:
    async def main() -> None:
        keys = [*HELD, "missing"]

        async def result(store: Store, keys: Any = keys) -> Any:
            return await getattr(store, row.method)(keys)

        whole = await result(await filled(MemoryStore, 0))
        near = await result(await filled(MemoryStore, 0), ["near"])
        assert whole != near

        for cuts in (1, 2):
            store, _ = around("retry", await filled(Halved, cuts), attempts=3, backoff=0.001)
            assert await result(store) == whole
        store, _ = around("retry", await filled(Halved, 2), attempts=2, backoff=0.001)
        with pytest.raises(StoreUnavailableError) as caught:
            await result(store)
        assert caught.value.partial == near

        if row.may_miss:
            store, _ = around("on_error", await filled(Halved, 1), action="miss")
            assert await result(store) == near
        if row.falls_back:
            other = await filled(MemoryStore, 0)
            await other.delete("near")
            store, _ = around("fallback", await filled(Halved, 1), other, store="other")
            assert await result(store) == whole

    asyncio.run(main())


@pytest.mark.parametrize("row", BULK, ids=lambda row: row.name)
def test_answers_to_parts_of_a_bulk_call_are_compared_where_they_are_named(row: Operation) -> None:
    async def main() -> None:
        inner, other = MemoryStore(), MemoryStore()
        store, _ = around("mirror", inner, other, store="other")
        await store.set_many(HELD)
        await repeated(store)
        await other.set("far", b"another")
        await other.delete("near")
        await getattr(store, row.method)([*HELD, "never written"])
        await repeated(store)
        report = mirror_report(store)
        assert report is not None
        assert report.differences == report.compared == (row.result == "values")

    asyncio.run(main())
