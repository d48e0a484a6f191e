"""What a plugin's class raises in public operations that it overrides comes out as a StoreError with its name."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pytest

import storeconf
from storeconf import Backend, Catalog, CodecStore, GuardedStore, MemoryStore, Middleware, StoreError, StoreWrapper
from storeconf.operations import METHODS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SECRET = "hunter" + "22"


def compiled(make: Callable[..., storeconf.Store], *, backend: bool) -> storeconf.StoreRegistry:
    """A layout with a store of the plugin's class: of a backend, or around a memory store."""

    class Mine(Backend):
        type: Literal["mine"] = "mine"
        token: storeconf.Secret

        def build(self, context: storeconf.BuildContext) -> storeconf.Store:
            return make()

    class Around(Middleware):
        kind: ClassVar[str] = "mine"
        token: storeconf.Secret

        def wrap(self, inner: storeconf.Store, context: storeconf.BuildContext) -> storeconf.Store:
            return make(inner)

    catalog: Any = Catalog.builtin()
    if backend:
        store: dict[str, Any] = {"type": "mine", "token": SECRET}
        catalog = catalog.with_backend("mine", Mine)
    else:
        store = {"type": "memory", "middleware": {"mine": {"token": SECRET}}}
        catalog = catalog.with_middleware("mine", Around)
    return storeconf.read_layout({"stores": {"main": store}}, environ={}, catalog=catalog).compile()


async def raising(self: Any, *args: Any, **kwargs: Any) -> Any:
    raise KeyError(f"no luck with {SECRET}")


def raising_at_once(self: Any, *args: Any, **kwargs: Any) -> Any:
    raise KeyError(f"no luck with {SECRET}")


async def raising_late(self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
    yield "k"
    raise KeyError(f"no luck with {SECRET}")


async def listed(found: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in found]


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "set": ("k", "v"),
    "add": ("k", "v"),
    "touch": ("k", 3),
    "get_many": (["k"],),
    "delete_many": (["k"],),
    "set_many": ({"k": "v"},),
    "compare_and_set": ("k", None, b"v"),
    **dict.fromkeys(("keys", "walk", "ping", "delete_all", "delete_expired"), ()),
}


async def failure(registry: storeconf.StoreRegistry, operation: str) -> StoreError:
    """What a call of that operation raises."""

    async def call(store: storeconf.Store) -> None:
        result = getattr(store, operation)(*ARGUMENTS.get(operation, ("k",)))
        if operation in ("keys", "walk"):
            await listed(result)
        elif operation not in ("raw_key", "with_namespace"):
            await result

    async with registry:
        with pytest.raises(StoreError) as caught:
            await call(registry["main"])
    return caught.value


def check(error: StoreError, operation: str, plugin: str) -> None:
    assert f"{plugin} of store 'main' failed in {operation}: KeyError: " in str(error)
    assert "no luck" in str(error)
    assert (error.store, error.operation) == ("main", operation)
    assert isinstance(error.__cause__, KeyError)
    assert SECRET not in "".join(traceback.format_exception(error))


OPERATIONS = sorted({*METHODS, "walk", "raw_key", "with_namespace"})


@pytest.mark.parametrize(
    ("operation", "form"),
    [
        *((operation, "own") for operation in OPERATIONS),
        *((operation, form) for operation in ("get", "set", "keys", "with_namespace") for form in ("mixin", "plain")),
    ],
)
@pytest.mark.parametrize("base", [StoreWrapper, GuardedStore, CodecStore, MemoryStore])
def test_operations_that_a_class_overrides(base: type, operation: str, form: str) -> None:
    lists, at_once = operation in ("keys", "walk"), operation in ("raw_key", "with_namespace")
    method = raising_at_once if at_once or form == "plain" else raising_late if lists else raising
    methods = {operation: method, "__module__": __name__}
    kind: Any
    if form == "mixin":
        kind = type("Odd", (type("Mixin", (), methods), base), {"__module__": __name__})
    else:
        kind = type("Odd", (base,), methods)
    backend = base is MemoryStore
    plugin = "the backend 'mine'" if backend else "the middleware 'mine'"
    check(asyncio.run(failure(compiled(kind, backend=backend), operation)), operation, plugin)


class Passing(GuardedStore):
    async def around(self, operation: str, call: Any, *args: Any, **kwargs: Any) -> Any:
        return await call(*args, **kwargs)


@pytest.mark.parametrize("method", [raising_late, raising_at_once])
def test_around_keys(method: Any) -> None:
    kind = type("Odd", (Passing,), {"around_keys": method, "__module__": __name__})
    check(asyncio.run(failure(compiled(kind, backend=False), "keys")), "keys", "the middleware 'mine'")


def test_around_keys_may_be_a_generator() -> None:
    class Upper(Passing):
        async def around_keys(self, keys: AsyncIterator[str]) -> AsyncIterator[str]:
            async for key in keys:
                yield key.upper()

    async def main() -> None:
        store = Upper(MemoryStore())
        await store.set("k", "v")
        assert await listed(store.keys()) == ["K"]
        with pytest.raises(TypeError, match="must be a str"):
            await listed(store.keys(3))  # type: ignore[arg-type]  # on purpose

    asyncio.run(main())


@pytest.mark.parametrize("operation", ["get", "set", "increment"])
def test_what_is_shielded_is_the_plugins_own_code(operation: str) -> None:
    class Shields(GuardedStore):
        async def around(self, operation: str, call: Any, *args: Any, **kwargs: Any) -> Any:
            return await storeconf.run_shielded(raising(self))

    check(asyncio.run(failure(compiled(Shields, backend=False), operation)), operation, "the middleware 'mine'")


def test_the_handle_of_a_namespace() -> None:
    class Binds(StoreWrapper):
        def on_bind(self) -> None:
            if self.namespaces:
                raising_at_once(self)

    check(
        asyncio.run(failure(compiled(Binds, backend=False), "with_namespace")),
        "with_namespace",
        "the middleware 'mine'",
    )


def test_what_callers_and_factories_raise_stays() -> None:
    class Passes(MemoryStore):
        async def get(self, key: str, renew_for: Any = None) -> bytes | None:
            return await super().get(key, renew_for)

        async def get_or_set(self, *args: Any, **kwargs: Any) -> bytes:
            return await super().get_or_set(*args, **kwargs)

    async def main() -> None:
        for store in (Passes(), Passing(Passes())):
            with pytest.raises(TypeError, match="a key must be a str"):
                await store.get(3)  # type: ignore[arg-type]  # on purpose
            with pytest.raises(ZeroDivisionError):
                await store.get_or_set("k", lambda: b"%d" % (1 // 0))

    asyncio.run(main())


def test_changes_that_a_mixin_makes_are_noticed_by_near_caches() -> None:
    class Mixin:
        async def set(self, key: str, value: Any, expires_in: Any = None, *, keep_ttl: bool = False) -> None:
            await MemoryStore.set(self, key, value, expires_in, keep_ttl=keep_ttl)  # type: ignore[arg-type]  # a mixin

    class Mixed(Mixin, MemoryStore):
        pass

    async def main() -> None:
        class Mine(Backend):
            type: Literal["mine"] = "mine"

            def build(self, context: storeconf.BuildContext) -> storeconf.Store:
                return Mixed()

        layout = {"stores": {"main": {"type": "mine", "middleware": {"cache": "1h"}}}}
        catalog = Catalog.builtin().with_backend("mine", Mine)
        async with storeconf.read_layout(layout, environ={}, catalog=catalog).compile() as registry:
            store = registry["main"]
            await store.set("k", "1")
            assert await store.get("k") == b"1"
            await store.root.set("k", "2")
            assert await store.get("k") == b"2"

    asyncio.run(main())


def noted() -> Exception:
    error = KeyError("no luck")
    error.add_note(f"tried with {SECRET}")
    return error


def grouped() -> Exception:
    return ExceptionGroup("no luck", [KeyError(f"tried with {SECRET}"), noted()])


def in_bytes() -> Exception:
    return KeyError({"token": SECRET.encode()})


@pytest.mark.parametrize("make", [noted, grouped, in_bytes])
def test_no_secret_is_in_notes_groups_and_bytes(make: Callable[[], Exception]) -> None:
    class Failing(MemoryStore):
        async def ping(self) -> storeconf.PingResult:
            raise make()

    error = asyncio.run(failure(compiled(Failing, backend=True), "ping"))
    assert SECRET not in "".join(traceback.format_exception(error))
