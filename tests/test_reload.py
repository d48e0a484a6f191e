"""Reloading a registry: what stays, what follows, what is gone, and what a failure leaves as it was."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from pathlib import Path
from typing import Any

import pytest

import storeconf
from storeconf import ConfigError, MemoryStore, StoreClosedError, StoreError, StoreWrapper, UnknownStoreError
from tests.above.backends import in_loop, root
from tests.servers import shared
from tests.test_call_counts import entered

MEMORY = {"type": "memory"}


class Layout:
    """A file whose stores a test changes."""

    def __init__(self, directory: Path, **stores: Any) -> None:
        self.file = directory / "storeconf.yaml"
        self.write(**stores)
        self.registry = storeconf.load(self.file, environ={})

    def write(self, **stores: Any) -> None:
        factory = stores.pop("default_factory", None)
        layout = {"stores": stores} | ({} if factory is None else {"default_factory": factory})
        self.file.write_text(json.dumps(layout))

    async def change(self, **stores: Any) -> Any:
        self.write(**stores)
        return await self.registry.reload()


async def closed(store: storeconf.Store) -> None:
    """Wait until nothing holds a store open."""
    async with asyncio.timeout(10):
        while store.is_open:
            await asyncio.sleep(0.01)


@in_loop
async def test_a_registry_without_a_layout_cannot_be_reloaded() -> None:
    with pytest.raises(TypeError, match="without a layout"):
        await storeconf.StoreRegistry({"a": MemoryStore()}).reload()


@in_loop
async def test_the_result_names_what_was_kept_changed_added_and_removed(tmp_path: Path) -> None:
    layout = Layout(tmp_path, a=MEMORY, b={"parent": "a"}, c=MEMORY, d={"use": "b"}, e=MEMORY)
    async with layout.registry:
        result = await layout.change(
            a=MEMORY, b={"parent": "a", "middleware": {"ttl": "1h"}}, d={"use": "b"}, e=MEMORY | {"max_entries": 9},
            f=MEMORY,
        )  # fmt: skip
    assert (result.kept, result.changed) == (("a",), ("b", "d", "e"))
    assert (result.added, result.removed) == (("f",), ("c",))


@in_loop
async def test_handles_and_their_namespaces_follow_the_name(tmp_path: Path) -> None:
    layout = Layout(tmp_path, a=MEMORY, b=MEMORY, s={"parent": "a"}, al={"use": "s"})
    registry = layout.registry
    async with registry:
        s, below = registry.get("s"), registry.get("s").with_namespace("x").with_namespace("y")
        assert registry.get("al") is s
        await s.set("k", "old")
        await below.set("k", "old")
        take, keys = s.get, s.keys()
        await layout.change(a=MEMORY, b=MEMORY, s={"parent": "b", "middleware": {"ttl": "1h"}}, al={"use": "a"})
        assert registry.get("s") is registry["s"] is s
        assert registry.get("al") is registry.get("a") is not s
        assert (await s.get("k"), await below.get("k"), s.default_expiry) == (None, None, 3600)
        assert below.root is registry.get("b").root
        assert await take("k") == b"old"  # a bound method stays with its root
        assert [key async for key in keys] == ["k"]  # so does an iteration
        await layout.change(a=MEMORY, b=MEMORY, s={"parent": "a"})
        assert (await s.get("k"), await below.get("k"), s.default_expiry) == (b"old", b"old", None)


@in_loop
async def test_a_handle_whose_store_is_gone_raises_until_it_is_back(tmp_path: Path) -> None:
    layout = Layout(tmp_path, a=MEMORY, s=MEMORY)
    async with layout.registry:
        s = layout.registry.get("s")
        below = s.with_namespace("x")
        await layout.change(a=MEMORY)
        for store in (s, below):
            with pytest.raises(UnknownStoreError, match="'s'"):
                await store.get("k")
            with pytest.raises(UnknownStoreError):
                await store.increment("k")
            with pytest.raises(UnknownStoreError):
                await store.get_or_set("k", lambda: b"")
            with pytest.raises(UnknownStoreError):
                await anext(store.keys())
            with pytest.raises(UnknownStoreError):
                async with store:
                    pass
            assert not (await store.ping()).ok
        assert layout.registry.get("s") is not s  # private memory, with a warning
        await layout.change(a=MEMORY, s=MEMORY)
        await s.set("k", "v")
        assert await layout.registry.get("s").get("k") == b"v"


@in_loop
async def test_unlisted_names_follow_the_default_factory(tmp_path: Path) -> None:
    layout = Layout(tmp_path, a=MEMORY, default_factory={"parent": "a"})
    registry = layout.registry
    async with registry:
        u = registry.get("u")
        await u.set("k", "v")
        await layout.change(a=MEMORY, default_factory={"parent": "a"})
        assert registry.get("u") is u
        assert await u.get("k") == b"v"
        await layout.change(a=MEMORY, b=MEMORY, default_factory={"parent": "b", "middleware": {"ttl": 60}})
        assert registry.get("u") is u
        assert (await u.get("k"), u.default_expiry) == (None, 60)
        await layout.change(a=MEMORY, u={"parent": "a"}, default_factory="forbid")
        assert registry["u"] is u
        assert await u.get("k") == b"v"
        await layout.change(a=MEMORY, default_factory="forbid")
        with pytest.raises(UnknownStoreError):
            await u.get("k")
        await layout.change(a=MEMORY, default_factory={"use": "a"})
        assert registry.get("z") is registry.get("a")


@in_loop
async def test_private_memory_of_unlisted_names_stays(tmp_path: Path) -> None:
    layout = Layout(tmp_path, a=MEMORY)
    async with layout.registry:
        u = layout.registry.get("u")
        await u.set("k", "v")
        await layout.change(a=MEMORY, b=MEMORY)
        assert layout.registry.get("u") is u
        assert await u.get("k") == b"v"


@in_loop
async def test_registered_stores_stay_and_keep_their_names(tmp_path: Path) -> None:
    layout = Layout(tmp_path, a=MEMORY)
    mine = MemoryStore()
    layout.registry.register("mine", mine)
    async with layout.registry:
        await layout.change(a=MEMORY, mine=MEMORY, other=MEMORY)
        assert layout.registry["mine"] is mine
        assert mine.is_open
        assert set(layout.registry.names()) == {"a", "mine", "other"}


@pytest.mark.parametrize(
    "broken",
    [
        "stores: [",
        '{"stores": {"a": {"type": "nothing"}}}',
        '{"stores": {"a": {"type": "memory"}, "n": {"type": "file", "path": "missing", "create": false}}}',
        '{"stores": {"n": {"type": "file", "path": "/dev/null/x"}, "a": {"type": "file", "path": "x"}}}',
    ],
)
def test_a_reload_that_fails_changes_nothing(broken: str, tmp_path: Path) -> None:
    @in_loop
    async def work() -> None:
        layout = Layout(tmp_path, a=MEMORY, s={"parent": "a", "middleware": {"ttl": "1h"}})
        registry = layout.registry
        async with registry:
            s = registry.get("s")
            await s.set("k", "v")
            inside = s.wrapped  # type: ignore[attr-defined]
            layout.file.write_text(broken)
            with pytest.raises((ConfigError, StoreError)):
                await registry.reload()
            assert registry.names() == ["a", "s"]
            assert registry["s"] is s
            assert s.wrapped is inside  # type: ignore[attr-defined]
            assert await s.get("k") == b"v"
            await layout.change(a=MEMORY, s={"parent": "a"})
            assert await s.get("k") == b"v"

    work()


@in_loop
async def test_a_registry_that_is_not_open_changes_without_opening(tmp_path: Path) -> None:
    layout = Layout(tmp_path, a=MEMORY)
    a = layout.registry.get("a")
    await layout.change(a={"type": "file", "path": "data"})
    assert [layout.registry.is_open, a.is_open] == [False, False]
    assert not (tmp_path / "data").exists()
    async with layout.registry:
        assert a.is_open
        assert a.capabilities.persistent


@in_loop
async def test_concurrent_reloads_run_one_after_another(tmp_path: Path) -> None:
    layout = Layout(tmp_path, a=MEMORY)
    async with layout.registry:
        layout.write(a=MEMORY, b=MEMORY)
        results = await asyncio.gather(*(layout.registry.reload() for _ in range(5)))
    assert sorted(result.added for result in results) == [(), (), (), (), ("b",)]


@in_loop
async def test_memory_takes_other_bounds_in_place(tmp_path: Path) -> None:
    layout = Layout(tmp_path, a=MEMORY, s={"parent": "a"})
    async with layout.registry:
        a, s = layout.registry.get("a"), layout.registry.get("s")
        for number in range(600):
            await s.set(f"k{number}", "v", expires_in=60 if number % 2 else None)
        keys = s.keys()
        first = await anext(keys)
        kept = a.root
        await layout.change(a=MEMORY | {"max_entries": 500}, s={"parent": "a"})
        assert a.root is kept
        assert {key async for key in keys} | {first} >= {f"k{number}" for number in range(500, 600)}
        assert len([key async for key in s.keys()]) == 500
        await s.get("k100")
        await layout.change(a=MEMORY | {"max_entries": 2, "max_size": 1000}, s={"parent": "a"})
        assert {key async for key in s.keys()} == {"k100", "k599"}
        await layout.change(a=MEMORY | {"max_size": 9}, s={"parent": "a"})
        assert len([key async for key in s.keys()]) == 1
        await layout.change(a=MEMORY, s={"parent": "a"})
        await s.set_many({f"x{number}": b"v" * 100 for number in range(50)})
        assert len([key async for key in s.keys()]) == 51


@in_loop
async def test_a_directory_takes_other_settings_in_place(tmp_path: Path) -> None:
    main = {"type": "file", "path": "data"}
    layout = Layout(tmp_path, a=main, s={"parent": "a"})
    async with layout.registry:
        a, s = layout.registry.get("a"), layout.registry.get("s")
        kept, threads = a.root, threading.active_count()
        await s.set_many({f"k{number}": "v" for number in range(600)})
        keys, walk, ended = s.keys(), a.walk(), asyncio.Event()
        found, walked = [await anext(keys)], [await anext(walk)]

        async def work(number: int) -> int:
            count = 0
            while not ended.is_set():
                count += 1
                assert await s.increment(f"count{number}") == count
                await s.set(f"large{number}", b"x" * 100_000)
                assert await s.get(f"count{number}") == b"%d" % count
            return count

        tasks = [asyncio.create_task(work(number)) for number in range(8)]
        for turn in range(20):
            changed = main | ({"durability": "fsync", "mode": "0750", "create": False} if turn % 2 == 0 else {})
            result = await layout.change(a=changed, s={"parent": "a"})
            assert (result.changed, a.root) == (("a", "s"), kept)
            await s.set(f"k{turn}", "w")
            inside = s.wrapped  # type: ignore[attr-defined]
            assert (inside.durability, inside.must_exist) == (("fsync", True) if turn % 2 == 0 else ("flush", False))
            mode = Path(s.raw_key(f"k{turn}") or "").stat().st_mode & 0o777
            assert mode == (0o640 if turn % 2 == 0 else 0o600)
        ended.set()
        assert min(await asyncio.gather(*tasks)) > 0
        found += [key async for key in keys]
        walked += [place async for place in walk]
        assert {f"k{number}" for number in range(20, 600)} <= set(found)
        assert {f"k{number}" for number in range(20, 600)} <= {key for _, key in walked}
        async with asyncio.timeout(10):
            while threading.active_count() > threads:
                await asyncio.sleep(0.01)
        await layout.change(a=main | {"durability": "fsync"}, s={"parent": "a"})
        keys = s.keys()
        await anext(keys)
        await layout.change(a=main, s={"parent": "a"})  # closed while the iteration still needs what was before
    assert not [thread for thread in threading.enumerate() if "storeconf-file" in thread.name]


@in_loop
async def test_near_caches_and_connections_survive_where_root_and_chain_do(tmp_path: Path) -> None:
    main = root("valkey", tmp_path)
    chain = {"parent": "main", "middleware": {"cache": "1h"}}
    layout = Layout(tmp_path, main=main, s=chain)
    async with layout.registry:
        s = layout.registry.get("s")
        await s.set("k", "v")
        await s.get("k")
        await asyncio.sleep(0.2)  # until the server has announced what was set
        await s.get("k")
        server = s.root
        transports = server._transports  # type: ignore[attr-defined]
        await layout.change(main=main, s=chain, t={"parent": "main"})
        assert server._transports is transports  # type: ignore[attr-defined]
        assert await entered(lambda: s.get("k")) == ["CacheStore.get"]
        result = await layout.change(main=main | {"command_timeout": "3s"}, s=chain)
        assert set(result.changed) == {"main", "s"}
        assert s.root is server
        assert server._transports is not transports  # type: ignore[attr-defined]
        assert await s.get("k") == b"v"


@in_loop
async def test_connections_are_replaced_after_the_calls_that_use_them(tmp_path: Path) -> None:
    server = shared()
    main = root("valkey", tmp_path) | {"client_name": "first"}
    layout = Layout(tmp_path, main=main)
    async with layout.registry:
        s = layout.registry.get("main")
        release = asyncio.Event()

        async def slow() -> str:
            await release.wait()
            return "made"

        computing = asyncio.create_task(s.get_or_set("k", slow))
        while not s.root._life.flights:
            await asyncio.sleep(0)
        await layout.change(main=main | {"client_name": "second"})
        await s.set("other", "v")
        assert b"name=first" in server.ask("CLIENT", "LIST")
        release.set()
        assert await computing == b"made"
        async with asyncio.timeout(10):
            while b"name=first" in server.ask("CLIENT", "LIST"):
                await asyncio.sleep(0.01)
        assert await s.get("k") == b"made"
        assert b"name=second" in server.ask("CLIENT", "LIST")


@pytest.mark.parametrize("backend", ["memory", "file", "valkey"])
def test_an_old_root_stays_until_its_last_use_has_ended(backend: str, tmp_path: Path) -> None:
    @in_loop
    async def work() -> None:
        layout = Layout(tmp_path, s=root(backend, tmp_path))
        async with layout.registry:
            s = layout.registry.get("s")
            await s.set_many({"a": "1", "b": "2"})
            release = asyncio.Event()

            async def slow() -> str:
                await release.wait()
                return "made"

            iterating = s.keys()
            found = [await anext(iterating)]
            computing = asyncio.create_task(s.get_or_set("k", slow))
            old = s.root
            while not old._life.flights:
                await asyncio.sleep(0)
            get, late = s.get, s.get("b")
            other = {"type": "memory"} if backend != "memory" else {"type": "file", "path": "other"}
            await layout.change(s=other)
            assert await s.get("a") is None
            found += [key async for key in iterating]
            assert sorted(found) == ["a", "b"]
            assert [old.is_open] == [True]
            release.set()
            assert await computing == b"made"
            await closed(old)
            assert (await get("k"), await late) == (b"made", b"2")  # which open it for themselves
            await closed(old)
        with pytest.raises(StoreClosedError):
            await get("k")

    work()


@in_loop
async def test_no_factory_fails_because_of_a_reload(tmp_path: Path) -> None:
    stores = [{"type": "file", "path": "data"}, MEMORY]
    layout = Layout(tmp_path, s=stores[0])
    made, ended = [0], asyncio.Event()

    async def compute(s: storeconf.Store, pause: float) -> int:
        count = 0
        while not ended.is_set():
            count += 1

            async def factory() -> str:
                made[0] += 1
                await asyncio.sleep(pause)
                return "made"

            assert await s.get_or_set(f"{pause} {count}", factory) == b"made"
        return count

    async with layout.registry:
        s = layout.registry.get("s")
        tasks = [asyncio.create_task(compute(s, pause)) for pause in (0, 0.001, 0.002)]
        for turn in range(200):
            await layout.change(s=stores[turn % 2 == 0])
        ended.set()
        assert sum(await asyncio.gather(*tasks)) == made[0]  # each once


@in_loop
async def test_who_has_entered_a_handle_holds_what_it_leads_to(tmp_path: Path) -> None:
    layout = Layout(tmp_path, a=MEMORY)
    a = layout.registry.get("a")
    async with a:
        old = a.root
        await layout.change(a={"type": "file", "path": "data"})
        await a.set("k", "v")
        await closed(old)
    assert [a.is_open] == [False]


@in_loop
async def test_copies_of_handles_follow_the_name_too(tmp_path: Path) -> None:
    layout = Layout(tmp_path, a=MEMORY)
    async with layout.registry:
        a = layout.registry.get("a")
        for store in (a, a.with_namespace("n")):
            other = copy.copy(store)
            await other.set("k", "v")
            assert await store.get("k") == b"v"
            await layout.change(a={"type": "file", "path": "data"})
            assert await other.get("k") is await store.get("k") is None
            await layout.change(a=MEMORY)
            assert await other.get("k") is await store.get("k") is None


class Shout(StoreWrapper):
    """Middleware of an application, which puts it around a handle itself."""

    bound = 0

    def on_bind(self) -> None:
        self.bound += 1

    async def get(self, key: str, renew_for: Any = None) -> bytes | None:
        value = await self._get(key, renew_for)
        return None if value is None else value.upper()


@in_loop
async def test_wrappers_around_handles_follow_the_name_too(tmp_path: Path) -> None:
    layout = Layout(tmp_path, a=MEMORY, s={"parent": "a"})
    async with layout.registry:
        s = layout.registry.get("s")
        inner = Shout(s)
        stores: list[storeconf.Store] = [inner, Shout(inner), Shout(s).with_namespace("n"), StoreWrapper(s)]
        for store in stores:
            await store.set("k", "old")
            assert (await store.get("k") or b"").lower() == b"old"
            assert await store.exists("k")
        before = inner.bound
        await layout.change(a=MEMORY, b=MEMORY, s={"parent": "b", "middleware": {"ttl": "1h"}})
        assert inner.bound == before + 1
        b = layout.registry.get("b")
        for store in stores:
            assert not await store.exists("k")
            assert [await store.get("k"), store.root, store.default_expiry] == [None, b.root, 3600]
            await store.set("k", "new")
            assert (await store.get("k") or b"").lower() == b"new"
            assert await store.delete("k")
        async with stores[1]:
            await layout.change(a=MEMORY, b={"type": "file", "path": "data"}, s={"parent": "b"})
            await inner.set("k", "in a file")
            assert await stores[1].get("k") == b"IN A FILE"
            assert await s.get("k") == b"in a file"
        await layout.change(a=MEMORY)
        for store in stores:
            with pytest.raises(UnknownStoreError, match="'s'"):
                await store.get("k")
    assert [inner.is_open, b.is_open] == [False, False]


@in_loop
async def test_a_wrapper_that_can_not_be_bound_again_does_not_keep_a_reload_from_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Picky(StoreWrapper):
        def on_bind(self) -> None:
            if not self.capabilities.persistent:
                raise RuntimeError("files only")

    layout = Layout(tmp_path, a={"type": "file", "path": "data"}, b={"type": "file", "path": "data2"})
    async with layout.registry:
        picky, other = Picky(layout.registry["a"]), Shout(layout.registry["b"])
        await layout.change(a=MEMORY, b=MEMORY)
        await picky.set("k", "v")
        assert await layout.registry["a"].get("k") == b"v"
        assert other.root is layout.registry["b"].root
    assert "files only" in caplog.text


@in_loop
async def test_registered_handles_whose_store_is_gone_are_passed_over(tmp_path: Path) -> None:
    layout = Layout(tmp_path, a=MEMORY, s=MEMORY)
    registry = layout.registry
    registry.register("mine", registry.get("s"))
    registry.register("wrapped", Shout(registry.get("s")))
    async with registry:
        await layout.change(a=MEMORY)
        await registry.delete_expired()
        assert {name: result.ok for name, result in (await registry.ping()).items()} == {
            "a": True,
            "mine": False,
            "wrapped": False,
        }
        with pytest.raises(UnknownStoreError, match="'s'"):
            await registry["mine"].get("k")
        registry.register("late", registry["mine"])
        await layout.change(a=MEMORY, b=MEMORY)
    async with registry:  # which does not open them
        assert await registry["a"].get("k") is None
        await layout.change(a=MEMORY, s=MEMORY)
        await registry["mine"].set("k", "v")
        assert await registry["wrapped"].get("k") == b"V"
        mine = registry["mine"].root
    assert [mine.is_open] == [False]


@in_loop
async def test_a_fallback_follows_the_store_that_it_names(tmp_path: Path) -> None:
    down = {"type": "valkey", "url": "valkey://127.0.0.1:1", "namespace": "x", "retries": 0}
    main = down | {"middleware": {"fallback": "spare"}}
    layout = Layout(tmp_path, main=main, spare=MEMORY)
    async with layout.registry:
        s = layout.registry.get("main")
        await s.set("k", "v")
        result = await layout.change(main=main, spare=MEMORY, other=MEMORY)
        assert result.kept == ("main", "spare")
        await layout.change(main=main, spare={"type": "file", "path": "spare"})
        await s.set("k", "w")
        assert await layout.registry.get("spare").with_namespace("x").get("k") == b"w"


@in_loop
async def test_a_handle_adds_no_call_after_a_reload_either(tmp_path: Path) -> None:
    layout = Layout(tmp_path, a=MEMORY, s={"parent": "a"})
    async with layout.registry:
        s = layout.registry.get("s")
        await s.set("k", "v")
        await layout.change(a=MEMORY, s={"parent": "a", "middleware": {"ttl": "1h"}})
        await s.get("k")
        assert await entered(lambda: s.get("k")) == ["MemoryStore.get"]
