"""``mirror``: what is repeated, in which order, what is compared, and what callers notice of it: nothing."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

import storeconf
import storeconf.sync
from storeconf import MemoryStore, StoreUnavailableError, StoreValueError, UnsupportedOperationError
from storeconf.middleware import _repeated as bounds
from tests.above.backends import in_loop
from tests.middleware.metering import metering, recorded
from tests.middleware.mirroring import Slow, layout, mirrored, repeated, report_of, until
from tests.middleware.test_laws import Line

# ---------------------------------------------------------------------- what is repeated, and where


@in_loop
async def test_children_are_mirrored_in_the_same_namespaces() -> None:
    registry = layout(
        main={"type": "memory", "namespace": "shop", "middleware": {"mirror": "other", "ttl": "1h"}},
        cache={"parent": "main"},
        pages={"parent": "cache", "namespace": "html"},
        other={"type": "memory", "namespace": "trial"},
        alone={"type": "memory"},
        part={"parent": "alone", "middleware": {"mirror": "other"}},
        free={"parent": "main", "middleware": {"mirror": False}},
    )
    async with registry:
        for name in ("main", "cache", "pages", "part", "free"):
            await registry[name].set("k", name)
        await registry["main"].with_namespace("more").set("k", "more")
        for name in ("main", "cache", "pages", "part"):
            await repeated(registry[name])
        other = registry["other"]
        assert await other.get("k") == b"main"
        assert await other.with_namespace("cache").get("k") == b"cache"
        assert await other.with_namespace("cache").with_namespace("html").get("k") == b"pages"
        assert await other.with_namespace("more").get("k") == b"more"
        assert await other.with_namespace("part").get("k") == b"part"
        assert not await other.with_namespace("free").exists("k")
        assert await other.expires_in("k") == 3600  # as the chain of the store has it


@in_loop
async def test_stores_of_the_default_factory_are_mirrored_in_namespaces_of_their_own() -> None:
    registry = storeconf.load(
        {
            "stores": {"main": {"type": "memory"}, "sub": {"parent": "main"}, "other": {"type": "memory"}},
            "default_factory": {"parent": "sub", "middleware": {"mirror": "other"}},
        },
        environ={},
    )
    async with registry:
        await registry.get("x").set("k", "v")
        await repeated(registry.get("x"))
        assert [place async for place in registry["other"].walk()] == [(("sub", "x"), "k")]


@in_loop
async def test_policies_of_the_other_store_do_not_answer_for_it() -> None:
    registry = layout(
        main={"type": "memory", "middleware": {"mirror": "other"}},
        other={
            "type": "memory",
            "middleware": {"read_only": True, "ttl": "1s", "compress": {"algorithm": "gzip", "min_size": 0}},
        },
    )
    async with registry:
        await registry["main"].set("k", b"v" * 1000)
        await repeated(registry["main"])
        assert await registry["other"].get("k") == b"v" * 1000
        assert await registry["other"].expires_in("k") == -1


def chosen(percent: float, keys: int = 2000) -> set[str]:
    async def run() -> set[str]:
        other = MemoryStore()
        store = mirrored(other, percent=percent)
        await store.set_many({f"user:{number}": b"v" for number in range(keys)})
        await repeated(store)
        return {key async for key in other.keys()}

    return asyncio.run(run())


def test_the_share_is_stable_and_a_greater_one_includes_it() -> None:
    ten, thirty = chosen(10), chosen(30)
    assert ten == chosen(10)
    assert ten < thirty
    assert 140 < len(ten) < 260
    assert 500 < len(thirty) < 700
    assert len(chosen(100, 50)) == 50
    assert chosen(0, 50) == set()
    # As every process must: these are the digests' own choice.
    assert sorted(chosen(10, 40)) == ["user:16", "user:23", "user:29"]


@in_loop
async def test_bulk_calls_are_repeated_for_the_share_alone() -> None:
    other = MemoryStore()
    store = mirrored(other, percent=10)
    await store.set_many({f"user:{number}": b"v" for number in range(100)})
    assert len(await store.get_many([f"user:{number}" for number in range(100)])) == 100
    report = await repeated(store)
    share = [key async for key in other.keys()]
    assert 0 < len(share) < 30
    assert await store.delete_many([*share, *(f"user:{number}" for number in range(100))]) == 100
    report = await repeated(store)
    assert (report.calls, report.compared, report.differences) == (3, 1, 0)
    assert not [key async for key in other.keys()]


@in_loop
async def test_large_bulk_calls_are_repeated_in_parts() -> None:
    other = MemoryStore()
    store = mirrored(other)
    items = {f"k{number}": b"%d" % number for number in range(2000)}
    await store.set_many(items)
    assert await store.get_many(items) == items
    report = await repeated(store)
    assert (report.calls, report.compared, report.differences) == (8, 4, 0)
    assert await other.get_many(items) == items
    assert await store.delete_many(items) == 2000
    await repeated(store)
    assert not await other.get_many(items)


@in_loop
async def test_values_are_those_of_the_moment_of_the_call() -> None:
    other = Slow()
    store = mirrored(other)
    value = bytearray(b"before")
    items = {"b": bytearray(b"before")}
    await store.set("a", value)
    await store.set_many(items)
    value[:] = b"after!"
    items["b"][:] = b"after!"
    other.gate.set()
    await repeated(store)
    assert await other.get_many(["a", "b"]) == {"a": b"before", "b": b"before"}


@in_loop
async def test_entries_expire_there_when_they_do_here() -> None:
    other = Slow()
    store = mirrored(other)
    clock = asyncio.get_running_loop().time
    for key in ("late", "over", "added"):
        await store.delete(key)  # which waits in the other store, so that what follows waits for its turn
    await until(lambda: other.waiting == 3)
    await store.set("late", b"v", 60)
    await store.set("over", b"v", 0.05)
    await store.add("added", b"v", 60)
    end = clock() + 0.3
    await until(lambda: clock() > end)
    other.gate.set()
    await repeated(store)
    for key in ("late", "added"):
        here, there = await store.get_with_expiry(key), await MemoryStore.get_with_expiry(other, key)
        assert here is not None
        assert there is not None
        assert there[1] == pytest.approx(here[1], abs=0.2)
    assert not await other.exists("over")


@in_loop
async def test_a_namespace_that_the_other_store_cant_have_is_left_out() -> None:
    class Raw(MemoryStore):
        def do_attach(self, parent: Raw) -> None:
            raise UnsupportedOperationError("its keys are raw")

    main = mirrored(Raw())
    part = main.with_namespace("part").with_namespace("more")
    await part.set("k", b"v")
    assert await part.get("k") == b"v"
    await main.set("k", b"v")
    report = await repeated(main)
    assert (report.calls, report.left_out) == (1, 2)


# ---------------------------------------------------------------------- order


@in_loop
async def test_calls_for_one_key_keep_their_order_and_others_do_not_wait_for_them() -> None:
    other = Slow()
    store = mirrored(other)
    for number in range(200):
        await store.set("k", str(number))
    await store.set_many({"k": b"last", "other": b"1"})
    await store.increment("other")
    await store.delete("gone")
    other.gate.set()
    report = await repeated(store)
    assert await other.get("k") == b"last"
    assert await other.get("other") == b"2"
    assert other.ran.index(("delete", "gone")) < 8
    assert (report.errors, report.differences) == (0, 0)


@in_loop
async def test_delete_all_waits_for_all_below_it_and_they_wait_for_it() -> None:
    other = Slow()
    registry = layout(main={"type": "memory"}, sub={"parent": "main"}, other={"type": "memory"})
    main = mirrored(other, registry["main"])
    sub, side = main.with_namespace("sub"), main.with_namespace("side")
    await sub.set("k", b"before")
    await side.set("k", b"before")
    await sub.delete_all()
    await sub.delete_all()
    await sub.set("after", b"v")
    await main.set("k", b"v")
    other.gate.set()
    await repeated(main)
    assert sorted([place async for place in other.walk()]) == [((), "k"), (("side",), "k"), (("sub",), "after")]
    assert [method for method, _ in other.ran].count("delete_all") == 1  # the second had nothing more to delete
    await main.delete_all()
    await repeated(main)
    assert not [place async for place in other.walk()]


# ---------------------------------------------------------------------- what is compared


@in_loop
async def test_answers_are_compared_from_when_the_key_was_written() -> None:
    other = MemoryStore()
    store = mirrored(other)
    await other.set("k", b"something else")
    assert await store.get("k") is None
    await store.add("k", b"1")
    assert await store.increment("k") == 2
    report = await repeated(store)
    assert (report.compared, report.differences) == (0, 0)
    assert report.errors == 1  # of increment, on something else
    await store.set("k", b"1")
    assert await store.increment("k") == 2
    assert await store.get("k") == b"2"
    assert await store.get_with_expiry("k") == (b"2", None)
    assert await store.get_many(["k", "unknown"]) == {"k": b"2"}
    assert await store.touch("k", 60)
    assert await store.expires_in("k") == 60
    assert await store.compare_and_set("k", b"2", b"3")
    assert await store.pop("k") == b"3"
    assert not await store.exists("k")
    report = await repeated(store)
    assert (report.compared, report.differences, report.errors) == (9, 0, 1)
    await store.set("k", b"v")
    await repeated(store)
    await other.set("k", b"w")
    assert await store.get("k") == b"v"
    assert (await repeated(store)).differences == 1
    assert await store.add("k", b"v") is False
    await other.delete("k")
    assert await store.add("k", b"v") is False
    assert (await repeated(store)).differences == 2
    assert await store.get("k") == b"v"  # not compared: that they differ is known
    assert (await repeated(store)).differences == 2


@in_loop
async def test_answers_to_calls_at_the_same_time_are_not_compared() -> None:
    inner, other = Slow(), MemoryStore()
    store = mirrored(other, inner)
    inner.gate.set()
    await store.set("k", b"1")
    inner.gate.clear()
    calls: list[asyncio.Task[Any]] = [asyncio.create_task(store.increment("k")) for _ in range(5)]
    calls.append(asyncio.create_task(store.set("clear", b"v")))
    calls.append(asyncio.create_task(store.delete_all()))
    await asyncio.sleep(0)
    inner.gate.set()
    await asyncio.gather(*calls)
    await store.get("k")
    await store.get("clear")
    report = await repeated(store)
    assert (report.compared, report.differences) == (0, 0)
    await store.set("k", b"1")
    await store.get("k")
    assert (await repeated(store)).compared == 1


@in_loop
async def test_what_is_about_to_expire_is_not_compared() -> None:
    other = MemoryStore()
    store = mirrored(other)
    await store.set("k", b"v", 0.5)
    await store.get("k")
    await store.set("l", b"v", 100)
    await store.get("l")
    assert (await repeated(store)).compared == 1


@in_loop
async def test_a_call_that_failed_is_repeated_only_if_it_may_have_taken_effect() -> None:
    inner, other = Line(), MemoryStore()
    store = mirrored(other, inner)
    await store.set("k", b"text")
    with pytest.raises(StoreValueError):
        await store.increment("k")
    with pytest.raises(TypeError):
        await store.set("k", object())  # type: ignore[arg-type]
    assert (await repeated(store)).calls == 1

    class Cut(MemoryStore):
        async def set(self, *args: Any, **kwargs: Any) -> None:
            raise StoreUnavailableError("the line is cut", outcome_unknown=True)

        async def get(self, key: str, renew_for: Any = None) -> bytes | None:
            raise StoreUnavailableError("the line is cut")

    store = mirrored(other, Cut())
    with pytest.raises(StoreUnavailableError):
        await store.set("k", b"perhaps")
    with pytest.raises(StoreUnavailableError):
        await store.get("k")
    assert (await repeated(store)).calls == 1
    assert await other.get("k") == b"perhaps"


@in_loop
async def test_a_cancelled_call_may_have_taken_effect() -> None:
    inner, other = Slow(), MemoryStore()
    store = mirrored(other, inner)
    call = asyncio.create_task(store.set("k", b"v"))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: report_of(store).calls == 1)
    assert await other.get("k") == b"v"
    inner.gate.set()
    await store.get("k")
    assert (await repeated(store)).compared == 0


# ---------------------------------------------------------------------- a mirror that is dead, slow, or wrong


@in_loop
async def test_callers_get_no_error(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryStore):
        async def set(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("secret-value")

        async def get(self, key: str, renew_for: Any = None) -> bytes | None:
            raise asyncio.CancelledError

    store = mirrored(Broken())
    with caplog.at_level(logging.WARNING, "storeconf"):
        await store.set("secret-key", b"secret-value")
        assert await store.get("secret-key") == b"secret-value"
        report = await repeated(store)
    assert (report.calls, report.errors) == (2, 2)
    (line,) = caplog.messages
    assert "gave 0 different answers and 1 errors" in line
    assert "secret-" not in line


@in_loop
async def test_memory_is_bounded_and_a_key_with_a_dropped_call_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_CALLS", 100)
    other = Slow()
    store = mirrored(other)
    for number in range(100):
        await store.set(f"kept{number}", b"v")
    for _ in range(10):
        await store.set("dropped", b"v")
    await store.set_many({"dropped too": b"v", "kept0": b"w"})
    assert report_of(store).pending == 100
    other.gate.set()
    report = await repeated(store)
    assert (report.dropped, report.left_out, report.calls) == (2, 9, 100)
    for key in ("dropped", "dropped too", "kept0"):
        await store.set(key, b"later")
    await store.set("kept1", b"later")
    report = await repeated(store)
    assert (report.left_out, report.calls) == (12, 101)
    assert await other.get_many(["dropped", "dropped too", "kept0", "kept1"]) == {"kept0": b"v", "kept1": b"later"}


@in_loop
async def test_the_size_of_what_waits_is_bounded() -> None:
    other = Slow()
    store = mirrored(other)
    await store.set("large", b"v" * (bounds.MOST_SIZE - 1000))
    await store.set("larger", b"v" * 10_000)
    await store.set("small", b"v")
    other.gate.set()
    report = await repeated(store)
    assert (report.calls, report.dropped) == (2, 1)


@in_loop
async def test_answers_count_too_and_a_call_whose_answer_has_no_room_is_not_compared() -> None:
    other = Slow()
    store = mirrored(other)
    await store.set("large", b"v" * (1 << 20))
    for _ in range(30):
        assert await store.get("large")
        assert await store.get_many(["large"])
    other.gate.set()
    report = await repeated(store)
    assert (report.calls, report.dropped, report.differences, report.compared) == (61, 0, 0, 14)


@in_loop
async def test_any_number_of_keys_is_left_out_in_the_same_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_CALLS", 0)
    store = mirrored(MemoryStore())
    for number in range(2000):
        await store.set(f"k{number}", b"v")
    before = report_of(store)
    monkeypatch.undo()
    for number in range(2000):
        await store.get(f"k{number}")
        await store.get(f"other{number}")
    report = await repeated(store)
    assert before.dropped >= 1990  # a few were left out already
    assert report.left_out - before.left_out >= 2000
    assert report.calls >= 1900


# ---------------------------------------------------------------------- what is told


@in_loop
async def test_metrics_have_the_outcome_of_each_call() -> None:
    metering()
    registry = layout(
        measured={"type": "memory", "middleware": {"mirror": "other", "metrics": True}}, other={"type": "memory"}
    )
    async with registry:
        await registry["measured"].set("k", b"v")
        await registry["measured"].get("k")
        await repeated(registry["measured"])
    outcomes = sorted(
        (each["operation"], each["outcome"]) for each in recorded("measured", metric="storeconf.mirror.duration")
    )
    assert outcomes == [("get", "same"), ("set", "unchecked")]


@in_loop
async def test_latencies_are_those_of_both_stores() -> None:
    other = Line()
    store = mirrored(other)
    for number in range(100):
        await store.set(f"k{number}", b"v")
    report = await repeated(store)
    for each in (report.latencies, report.mirror_latencies):
        assert each.count == 100
        assert 0 < each.p50 <= each.p99 <= each.max
        assert 0 < each.mean <= each.max


def test_a_store_without_mirror_has_no_report() -> None:
    assert storeconf.mirror_report(MemoryStore()) is None


def test_the_same_without_await() -> None:
    stores = {"main": {"type": "memory", "middleware": {"mirror": "other", "ttl": "1h"}}, "other": {"type": "memory"}}
    with storeconf.sync.load({"stores": stores}, environ={}) as registry:
        main = registry["main"]
        assert main.increment("k") == 1
        main.set("k", b"v")
        assert main.get("k") == b"v"
    report = storeconf.mirror_report(main)
    assert report is not None
    assert (report.calls, report.compared, report.differences) == (3, 1, 0)
