"""A backend that can be cut off, or made to refuse writes, for the tests of policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from storeconf import (
    Backend,
    BuildContext,
    Capabilities,
    Catalog,
    MemoryStore,
    Store,
    StoreError,
    StoreRefusedError,
    StoreTimeoutError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Collection

READS = frozenset({"get", "exists", "expires_in", "get_with_expiry", "get_many"})


class Line:
    """What is between a store and its backend."""

    def __init__(self) -> None:
        self.down: type[StoreUnavailableError | StoreTimeoutError] | None = None
        self.refuses: str | None = None
        self.fails_next: list[StoreError] = []
        self.reachable: Collection[str] = ()
        self.calls: list[str] = []

    def use(self, operation: str) -> None:
        self.calls.append(operation)
        if self.fails_next:
            raise self.fails_next.pop(0)
        if self.down is not None:
            raise self.down("the line is cut")
        if self.refuses is not None and operation not in READS:
            raise StoreRefusedError("the server refused", code=self.refuses)


class Unreliable(MemoryStore):
    """A memory store behind a `Line`, which its namespaces share; a bulk call reaches ``line.reachable`` anyway."""

    synchronous_operations = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self.line = Line()

    def do_attach(self, parent: Any) -> None:
        super().do_attach(parent)
        self.line = parent.line

    async def get(self, key: str, renew_for: Any = None) -> bytes | None:
        self.line.use("get" if renew_for is None else "renew")
        return await super().get(key, renew_for)

    async def set(self, key: str, value: Any, expires_in: Any = None, *, keep_ttl: bool = False) -> None:
        self.line.use("set")
        await super().set(key, value, expires_in, keep_ttl=keep_ttl)

    async def delete(self, key: str) -> bool:  # type: ignore[override]  # as in `Store`
        self.line.use("delete")
        return await super().delete(key)

    async def exists(self, key: str) -> bool:
        self.line.use("exists")
        return await super().exists(key)

    async def expires_in(self, key: str) -> int | None:
        self.line.use("expires_in")
        return await super().expires_in(key)

    async def get_with_expiry(self, key: str) -> tuple[bytes, float | None] | None:
        self.line.use("get_with_expiry")
        return await super().get_with_expiry(key)

    async def get_many(self, keys: Any) -> dict[str, bytes]:
        try:
            self.line.use("get_many")
        except (StoreUnavailableError, StoreTimeoutError) as error:
            if self.line.reachable:
                error.partial = await super().get_many([key for key in keys if key in self.line.reachable])
            raise
        return await super().get_many(keys)

    async def set_many(self, mapping: Any, expires_in: Any = None) -> None:
        self.line.use("set_many")
        await super().set_many(mapping, expires_in)

    async def delete_many(self, keys: Any) -> int | None:
        try:
            self.line.use("delete_many")
        except (StoreUnavailableError, StoreTimeoutError) as error:
            if self.line.reachable:
                error.partial = await super().delete_many([key for key in keys if key in self.line.reachable])
            raise
        return await super().delete_many(keys)

    async def delete_all(self) -> None:
        self.line.use("delete_all")
        await super().delete_all()

    async def keys(self, prefix: str = "") -> Any:
        self.line.use("keys")
        async for key in super().keys(prefix):
            yield key

    async def add(self, key: str, value: Any, expires_in: Any = None) -> bool:
        self.line.use("add")
        return await super().add(key, value, expires_in)

    async def touch(self, key: str, expires_in: Any) -> bool:
        self.line.use("touch")
        return await super().touch(key, expires_in)

    async def pop(self, key: str) -> bytes | None:
        self.line.use("pop")
        return await super().pop(key)

    async def increment(self, key: str, by: int = 1, expires_in: Any = None) -> int:
        self.line.use("increment")
        return await super().increment(key, by, expires_in)

    async def compare_and_set(self, *args: Any, **options: Any) -> bool:
        self.line.use("compare_and_set")
        return await super().compare_and_set(*args, **options)


class UnreliableBackend(Backend):
    type: Literal["unreliable"] = "unreliable"
    capabilities: ClassVar[Capabilities] = Capabilities(atomic=Capabilities.ALL_ATOMIC)

    def build(self, context: BuildContext) -> Store:
        return Unreliable()


CATALOG = Catalog.builtin().with_backend("unreliable", UnreliableBackend)


def line_of(store: Store) -> Line:
    """The line of a store of a layout."""
    root: Any = store.root
    return root.line  # type: ignore[no-any-return]  # as above
