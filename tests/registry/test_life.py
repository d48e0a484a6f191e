"""The life that all stores of a registry share: opening, closing, and what concerns all of them at once."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import warnings

import pytest

from storeconf.config import AliasSpec, DefaultFactorySpec
from storeconf.errors import StoreClosedError, StoreError
from storeconf.middleware.outage import Fallback
from storeconf.registry import StoreRegistry
from storeconf.stores.memory import MemoryStore
from tests.registry.probe import (
    Foreign,
    Probe,
    child,
    compiled,
    fail,
    foreign,
    happened,
    is_open,
    probe,
    root,
    wait_for_ever,
)

# ---------------------------------------------------------------------- opening and closing together


def test_roots_open_in_order_once_and_close_in_reverse() -> None:
    async def main() -> None:
        registry = compiled(
            child("b1", "b"), root("a"), root("b"), child("a1", "a"), AliasSpec("x", "a1"), root("c"),
            factory=DefaultFactorySpec(parent="c"),
        )  # fmt: skip
        async with registry as entered:
            assert entered is registry
            assert is_open(registry)
            assert happened == ["open a", "open b", "open c"]
            async with registry, registry["x"], registry["b1"]:
                pass
            assert is_open(registry)
            assert is_open(registry["a"])
        assert happened[3:] == ["close c", "close b", "close a"]
        assert not is_open(registry)

    asyncio.run(main())


def test_a_store_that_others_hold_outlives_the_registrys_opening() -> None:
    async def main() -> None:
        registry = compiled(root("a"))
        async with registry["a"]:
            async with registry:
                pass
            assert is_open(registry["a"])
            assert happened == ["open a"]
        assert happened == ["open a", "close a"]

    asyncio.run(main())


def test_stores_opened_by_a_call_are_adopted() -> None:
    async def main() -> None:
        registry = compiled(root("a"), child("a1", "a"))
        await registry["a1"].set("k", "v")
        async with registry:
            assert await registry["a1"].get("k") == b"v"
        assert happened == ["open a", "close a"]
        with pytest.raises(StoreClosedError):
            await registry["a1"].get("k")

    asyncio.run(main())


def test_registered_stores_are_entered_however_they_came() -> None:
    async def main() -> None:
        given, early, late, shared = Probe("given"), Probe("early"), Probe("late"), Probe("shared")
        registry = StoreRegistry(
            {"given": given.with_namespace("n")}, default_factory=lambda name: Probe(f"made {name}")
        )
        registry.register("early", early)
        registry.register("shared", shared.with_namespace("a"))
        registry.register("shared too", shared.with_namespace("b"))
        registry.get("before")
        async with registry:
            assert happened == ["open given", "open early", "open shared", "open made before"]
            happened.clear()
            registry.register("late", late)
            registry.register("late too", late.with_namespace("n"))
            made = registry.get("made")
            registry.get("never used")
            assert happened == []
            await made.get("k")
            await late.get("k")
            assert happened == ["open made made", "open late"]
            happened.clear()
        assert happened == [
            "close made made", "close late", "close made before", "close shared", "close early", "close given",
        ]  # fmt: skip
        for store in (made, late, registry.get("never used"), registry.get("new")):
            with pytest.raises(StoreClosedError):
                await store.get("k")
        happened.clear()
        async with registry:
            assert sorted(happened) == sorted(
                ["open given", "open early", "open shared", "open made before", "open late", "open made made",
                 "open made never used", "open made new"]
            )  # fmt: skip
            await registry.get("new").get("k")

    asyncio.run(main())


def test_a_closed_store_that_an_open_registry_gets_is_open_again_for_its_time() -> None:
    async def main() -> None:
        store = Probe("store")
        await store.aclose()
        registry = StoreRegistry()
        async with registry:
            registry.register("store", store)
            assert await store.get("k") is None
        assert happened == ["open store", "close store"]
        with pytest.raises(StoreClosedError):
            await store.get("k")

    asyncio.run(main())


def test_stores_of_other_libraries_are_entered_and_left_if_they_can_be() -> None:
    async def main() -> None:
        before, later = foreign("before"), foreign("later")
        plain = type("Plain", (), {"exists": Foreign.exists})()
        registry = StoreRegistry({"before": before, "plain": plain, "again": before}, default_factory=foreign)
        async with registry:
            assert happened == ["enter before"]
            registry.register("later", later)
            registry.get("made")
            assert {name: result.ok for name, result in (await registry.ping()).items()} == dict.fromkeys(
                registry, True
            )
        assert happened == ["enter before", "enter made", "leave made", "enter later", "leave later", "leave before"]
        assert (before.inside, later.inside) == (0, 0)

    asyncio.run(main())


def test_a_store_that_an_override_leaves_unused_is_not_opened() -> None:
    async def main() -> None:
        registry = compiled(root("a"), root("b"), child("b1", "b"), root("c"), root("d", fallback=Fallback(store="c")))
        replacement = Probe("replacement")
        registry.register("a", replacement, allow_override=True)
        registry.register("b", replacement, allow_override=True)
        registry.register("c", replacement, allow_override=True)
        async with registry:
            assert happened == ["open b", "open c", "open d", "open replacement"]
        happened.clear()
        registry = compiled(
            root("a"),
            root("spare"),
            factory=DefaultFactorySpec(parent="a", middleware={"fallback": Fallback(store="spare")}),
        )
        for name in registry:
            registry.register(name, replacement, allow_override=True)
        async with registry:
            assert happened == ["open spare", "open a", "open replacement"]

    asyncio.run(main())


@pytest.mark.parametrize("failing", range(5))
@pytest.mark.parametrize("how", ["error", "cancel"])
def test_an_opening_that_fails_anywhere_closes_what_it_had_opened(failing: int, how: str) -> None:
    names = [f"s{number}" for number in range(5)]

    async def main() -> None:
        registry = compiled(*map(root, names))
        store = probe(registry, names[failing])
        store.at["open"] = (lambda: fail(OSError("no space"))) if how == "error" else wait_for_ever
        opening = asyncio.ensure_future(registry.__aenter__())
        if how == "cancel":
            while len(happened) <= failing:
                await asyncio.sleep(0)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
        else:
            with pytest.raises(StoreError, match="no space"):
                await opening
        opened = [f"open {name}" for name in names[: failing + 1]]
        assert happened == opened + [f"close {name}" for name in reversed(names[:failing])]
        assert not is_open(registry)
        assert not any(is_open(registry[name]) for name in names)
        del store.at["open"]
        happened.clear()
        async with registry:
            assert happened == [f"open {name}" for name in names]

    asyncio.run(main())


@pytest.mark.parametrize("failing", range(4))
def test_a_failing_close_keeps_no_other_from_closing(failing: int) -> None:
    names = [f"s{number}" for number in range(4)]

    async def main() -> None:
        registry = compiled(*map(root, names))
        probe(registry, names[failing]).at["close"] = lambda: fail(StoreError("disk gone"))
        with pytest.raises(StoreError, match="disk gone") as caught:
            async with registry:
                pass
        assert (caught.value.store, caught.value.operation) == (names[failing], "close")
        assert happened[4:] == [f"close {name}" for name in reversed(names)]
        assert not is_open(registry)

    asyncio.run(main())


def test_several_failures_come_out_together() -> None:
    async def main() -> None:
        registry = compiled(root("a"), root("b"), root("c"))
        registry.register("d", foreign("d"))
        for name in ("a", "c"):
            probe(registry, name).at["close"] = lambda name=name: fail(OSError(name))  # type: ignore[misc]
        with pytest.raises(ExceptionGroup, match="could not be closed") as caught:
            async with registry:
                happened.clear()
        assert [str(error.__cause__) for error in caught.value.exceptions] == ["c", "a"]
        assert happened == ["leave d", "close c", "close b", "close a"]

    asyncio.run(main())


def test_an_opening_that_can_not_be_undone_tells_everything() -> None:
    async def main() -> None:
        registry = compiled(root("a"), root("b"))
        probe(registry, "a").at["close"] = lambda: fail(OSError("a stays"))
        probe(registry, "b").at["open"] = lambda: fail(OSError("b fails"))
        with pytest.raises(ExceptionGroup) as caught:
            await registry.__aenter__()
        assert [str(error.__cause__) for error in caught.value.exceptions] == ["b fails", "a stays"]
        assert not is_open(registry["a"])

    asyncio.run(main())


@pytest.mark.parametrize("at", range(3))
def test_a_cancellation_at_any_close_closes_everything_first(at: int) -> None:
    names = ["a", "b", "c"]

    async def main() -> None:
        registry = compiled(*map(root, names))
        reached, free = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            reached.set()
            await free.wait()

        probe(registry, names[at]).at["close"] = wait
        await registry.__aenter__()
        closing = asyncio.ensure_future(registry.__aexit__(None, None, None))
        await reached.wait()
        closing.cancel()
        await asyncio.sleep(0)
        closing.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not closing.done()
        free.set()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert happened[3:] == ["close c", "close b", "close a"]

    asyncio.run(main())


def test_a_loop_that_ends_in_the_middle_of_closing_still_gives_every_resource_its_turn() -> None:
    registry = compiled(root("a"), root("b"), root("c"))
    reached: list[bool] = []

    async def wait() -> None:
        reached.append(True)
        await asyncio.Event().wait()

    probe(registry, "c").at["close"] = wait

    async def main() -> None:
        await registry.__aenter__()
        closing = asyncio.ensure_future(registry.aclose())
        while not reached:
            await asyncio.sleep(0)
        assert not closing.done()

    asyncio.run(main())
    assert happened[3:] == ["close c", "close b", "close a"]
    assert not is_open(registry)


def test_tasks_that_open_together_open_once() -> None:
    async def main() -> None:
        registry = compiled(root("a"), root("b"))

        async def use() -> None:
            async with registry:
                await registry["a"].set("k", "v")

        await asyncio.gather(*(use() for _ in range(10)))
        assert happened == ["open a", "open b", "close b", "close a"]

    asyncio.run(main())


def test_a_registry_works_again_in_another_loop_and_after_closing() -> None:
    registry = compiled(root("a"), child("a1", "a"), factory=DefaultFactorySpec(parent="a"))
    store, made = registry["a1"], registry.get("made")

    async def use(expected: bytes | None) -> None:
        async with registry:
            assert await store.get("k") == expected
            await store.set("k", "v")
            await made.set("k", "v")

    asyncio.run(use(None))
    with pytest.raises(StoreClosedError):
        asyncio.run(made.get("k"))
    asyncio.run(use(b"v"))
    assert happened == ["open a", "close a"] * 2
    assert registry.get("made") is made


def test_threads_open_and_close_one_registry_together() -> None:
    registry = StoreRegistry({"a": Probe("a")}, default_factory=Probe)
    failures: list[BaseException] = []

    async def use(number: int) -> None:
        for turn in range(30):
            async with registry:
                await registry.get(f"made {number} {turn}").set("k", "v")
                assert await registry["a"].get("k") is None

    def run(number: int) -> None:
        try:
            asyncio.run(use(number))
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert not is_open(registry)
    assert not any(is_open(registry[name]) for name in registry)
    assert sorted(entry[4:] for entry in happened if entry.startswith("open")) == sorted(
        entry[5:] for entry in happened if entry.startswith("close")
    )


# ---------------------------------------------------------------------- aclose


def test_aclose_closes_the_layouts_stores_whoever_holds_them() -> None:
    async def main() -> None:
        registry = compiled(root("a"), root("b"))
        async with registry["a"]:
            async with registry:
                await registry.aclose()
                assert happened == ["open a", "open b", "close b", "close a"]
                assert not is_open(registry)
            await registry.aclose()
        assert len(happened) == 4
        async with registry:
            assert is_open(registry["a"])
        assert not is_open(registry["a"])

    asyncio.run(main())


def test_aclose_of_a_registry_that_was_never_opened_closes_what_calls_have_opened() -> None:
    async def main() -> None:
        mine, held = Probe("mine"), Probe("held")
        registry = compiled(root("a"), root("b"))
        registry.register("mine", mine)
        registry.register("held", held)
        await registry["a"].get("k")
        await mine.get("k")
        async with held:
            await registry.aclose()
            assert happened == ["open a", "open mine", "open held", "close a", "close mine"]
            await held.get("k")
            for name in ("a", "b", "mine"):
                with pytest.raises(StoreClosedError):
                    await registry[name].get("k")

    asyncio.run(main())


# ---------------------------------------------------------------------- all at once


def test_ping_tells_everything_and_never_raises() -> None:
    async def main() -> None:
        registry = compiled(root("good"), child("part", "good"), AliasSpec("alias", "part"), root("bad"), root("slow"))
        registry.register("foreign", foreign("f"))
        probe(registry, "bad").at["exists"] = lambda: fail(OSError("unreachable"))
        probe(registry, "slow").at["exists"] = wait_for_ever
        async with registry:
            happened.clear()
            results = await registry.ping(timeout=0.05)
        assert list(results) == registry.names()
        assert {name: result.ok for name, result in results.items()} == {
            "good": True, "part": True, "alias": True, "bad": False, "slow": False, "foreign": True,
        }  # fmt: skip
        assert str(results["bad"].error).endswith("of store 'bad' failed in ping: OSError: unreachable")
        assert results["slow"].error == "no answer within 0.05 s"
        assert results["alias"] is results["part"]
        assert results["good"].latency is not None
        assert happened.count("exists good") == 2
        closed = await registry.ping()
        assert not closed["good"].ok
        assert "StoreClosedError" in str(closed["good"].error)

    asyncio.run(main())


def test_delete_expired_reaches_every_root_once_and_survives_failures() -> None:
    async def main() -> None:
        registry = compiled(root("a"), child("a1", "a"), root("b"), root("c"))
        mine = Probe("mine")
        registry.register("mine", mine.with_namespace("n"))
        registry.register("foreign", foreign("f"))
        async with registry:
            happened.clear()
            await registry.delete_expired()
            assert sorted(happened) == ["sweep a", "sweep b", "sweep c", "sweep/n mine"]
            probe(registry, "b").at["sweep"] = lambda: fail(OSError("b"))
            with pytest.raises(StoreError, match="OSError: b"):
                await registry.delete_expired()
            probe(registry, "a").at["sweep"] = lambda: fail(OSError("a"))
            with pytest.raises(ExceptionGroup):
                await registry.delete_expired()
            assert sum(entry == "sweep c" for entry in happened) == 3

    asyncio.run(main())


# ---------------------------------------------------------------------- left open, forked


def test_a_registry_left_open_warns() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        registry = StoreRegistry({"a": MemoryStore()})
        asyncio.run(registry.aclose())
        del registry
        compiled(root("new"))
        gc.collect()
        assert not caught
        asyncio.run(StoreRegistry({"a": MemoryStore()}).__aenter__())
        gc.collect()
    messages = [str(entry.message) for entry in caught if entry.category is ResourceWarning]
    assert "<StoreRegistry of 1 stores, open> was left open" in messages


def test_a_forked_child_opens_for_itself_what_the_parent_had_open() -> None:
    script = textwrap.dedent(
        """
        import asyncio, os, sys
        from storeconf.registry import StoreRegistry
        from storeconf.store import StoreBase

        class Probe(StoreBase):
            def __init__(self):
                super().__init__()
                self.opened_in = []
            async def do_open(self): self.opened_in.append(os.getpid())
            async def do_close(self): self.opened_in.remove(os.getpid())
            async def do_get(self, path, key, renew): return b"v"

        registry = StoreRegistry({"a": Probe()}, default_factory=lambda name: Probe())
        registry._lock.acquire()  # as if another thread held it at the fork

        async def use():
            async with registry:
                assert await registry.get("a").get("k") == b"v"
                assert registry.get("a").opened_in[-1] == os.getpid()
                assert await registry.get("made").get("k") == b"v"
            assert not registry.get("a").is_open
            assert os.getpid() not in registry.get("made").opened_in

        async def main():
            await registry.__aenter__()

        asyncio.run(main())
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                assert not registry.is_open
                asyncio.run(use())
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert registry.is_open and registry.get("a").is_open
        asyncio.run(registry.aclose())
        sys.exit(os.waitstatus_to_exitcode(status))
        """
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
