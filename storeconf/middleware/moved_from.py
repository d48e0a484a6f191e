"""``moved_from``: entries that are still in an old store are carried over, one by one, while both stores are in use.

Before anything else, an operation settles its key: an entry of the old store is carried over once. An entry on its way
has a mark in front, with a token of its own:

1. the new store gets a provisional entry, only if it has none;
2. the entry of the old store is claimed for it, only if it is still the same;
3. the provisional entry is confirmed, only if it is still there: it will be the entry in any case;
4. the claimed entry becomes a carried one;
5. the confirmed entry becomes the entry;
6. the carried entry is deleted.

Any caller that meets a provisional or confirmed entry finishes it, so a process may die between any two steps. If the
old store has another value or none by then, the provisional entry is dead and is removed. A process that was slow may
claim an entry when its provisional one is gone for long, and the entry is another one with the same value: a claim
without a provisional or confirmed entry counts for nothing, and becomes the entry again.

A new entry for a key that neither store has is made under a reservation of the key in the store where it is not made,
so that a process that only prepares and one that carries entries over do not both make one. Where entries are made they
never have a mark: processes without this middleware share the old store with those that prepare, and the new one with
those that carry over.
``docs/decisions/0015-moved-from.md`` has the reasons.

Longer than other modules, because every operation has a way of its own through the two stores, with and without
``prepare``, and they are right only together.
"""

from __future__ import annotations

import asyncio
import math
import os
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, ParamSpec, Self, TypeVar

from pydantic import Field

from storeconf._root import targets_of
from storeconf.errors import (
    PluginError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreValueError,
    UnsupportedOperationError,
)
from storeconf.middleware import StoreWrapper, without_policies
from storeconf.middleware.coded import Tries
from storeconf.plugin import BuildContext, Middleware, StoreName
from storeconf.store import Expiry, Store, Value, key_text, milliseconds, next_counter, value_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence

    from storeconf._root import RootLife

__all__ = ["MovedFrom", "MovedFromStore"]

T = TypeVar("T")
P = ParamSpec("P")

_MARK: Final = b"\x93SCm\x01"
_TOKEN: Final = 16
_HEAD: Final = len(_MARK) + 1 + _TOKEN

_PROVISIONAL, _CONFIRMED = b"P", b"F"
"""In the new store: on its way from the old one; there for certain, but the old store may not know yet."""

_CLAIMED, _CARRIED = b"C", b"D"
"""In the old store: for the provisional entry with that token, if there is one; in the new store, or it has been."""

_RESERVED: Final = b"R"
"""In either store: somebody makes the entry in the other one."""

_LEASE: Final = 5.0
"""Seconds after which a reservation ends by itself; its maker has half of that to make the entry."""

_PAUSE: Final = 0.01
"""Seconds between two looks at a reservation."""

_MOST_TRIES: Final = 200
"""Times that a call looks at its key again because others have changed it. Many may want one key."""

_QUICK_TRIES: Final = 2
"""Tries without a pause before them, after the first: carrying an entry over takes two."""

_AT_ONCE: Final = 32
"""Keys of one call that are carried over at the same time."""


class MovedFrom(Middleware):
    """Carry entries over from the store in which they were before."""

    kind: ClassVar[str] = "moved_from"
    shorthand_field: ClassVar[str | None] = "store"
    requires_bytes: ClassVar[bool] = True

    store: StoreName = Field(
        description="The store in which the entries were before; those of a namespace are in the same namespace there.",
        examples=["old_sessions"],
    )
    prepare: bool = Field(
        default=False,
        description="Look in both stores, and write where the key is, else to the old store. To be deployed everywhere "
        "before it is switched off, so that no process looks in the old store alone while others carry entries over.",
        examples=[True],
    )

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store that carries entries over."""
        old = without_policies(context.store(self.store))
        for name in context.names_below(self):
            old = old.with_namespace(name)
        for store in (inner, old):
            missing = sorted({"add", "compare_and_set"} - store.capabilities.atomic)
            if missing:
                text = f"moved_from needs atomic {' and '.join(missing)}, which store {store.name!r} does not offer"
                raise PluginError(text, code="SC708")
        return MovedFromStore(inner, old, prepare=self.prepare)


class _Marked(NamedTuple):
    """An entry on its way."""

    kind: bytes
    token: bytes
    value: bytes

    @classmethod
    def parse(cls, data: bytes) -> _Marked | None:
        """Return the meaning of an entry with a mark, None for any other."""
        if not data.startswith(_MARK) or len(data) < _HEAD:
            return None
        start = len(_MARK)
        return cls(data[start : start + 1], data[start + 1 : _HEAD], data[_HEAD:])

    def of_kind(self, kind: bytes) -> _Marked:
        """Return the same with another mark."""
        return _Marked(kind, self.token, self.value)

    def claim(self) -> _Marked:
        """Return a claim of the value for this entry; no two are the same, as a slow process must not end another's."""
        return _Marked(_CLAIMED, self.token, os.urandom(_TOKEN) + self.value)

    def claimed(self) -> bytes:
        """Return the value that is claimed."""
        return self.value[_TOKEN:]

    def dump(self) -> bytes:
        """Return the entry."""
        return _MARK + self.kind + self.token + self.value


def _marked(data: bytes | None) -> _Marked | None:
    return None if data is None else _Marked.parse(data)


def _is_reservation(data: bytes | None) -> bool:
    return (marked := _marked(data)) is not None and marked.kind == _RESERVED


class _BoundedTries:
    """The tries of one call: they have pauses between them, and an end, in case that a store refuses every change."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pauses = Tries()
        self._count = 0

    async def next(self) -> None:
        """Begin another try; StoreError if there have been too many."""
        if self._count == _MOST_TRIES:
            name = self._store.name
            raise StoreError(f"store {name!r}: the entry changed during each of {_MOST_TRIES} tries", store=name)
        await self._pauses.begin(max(0, self._count - _QUICK_TRIES))
        self._count += 1


def _signed(operation: str) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Have the errors of a method name the store and the operation that the caller has called."""

    def decorate(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @wraps(method)
        async def signed(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return await method(*args, **kwargs)
            except StoreError as error:
                store: Any = args[0]
                failure = store.own_error(error, operation)
                if failure is error:
                    raise
                raise failure from error

        return signed

    return decorate


async def _end_of_reservation(store: Store, key: str) -> None:
    """Wait until the reservation that a key may have has ended."""
    there = data = await store.get(key)
    while _is_reservation(data) and data == there:
        await asyncio.sleep(_PAUSE)
        data = await store.get(key)


class MovedFromStore(StoreWrapper):
    """Settles each key before it is used; with ``prepare`` it leaves keys where they are."""

    lists_namespaces: bool = True
    """False once the old store was found to list no namespaces below the own one."""

    def __init__(self, inner: Store, old: Store, *, prepare: bool) -> None:
        self.old = old
        self.prepare = prepare
        super().__init__(inner)

    def with_namespace(self, namespace: str) -> Self:
        """Return the store of a namespace; its entries come from the same namespace of the old store."""
        child = super().with_namespace(namespace)
        child.old = self.old.with_namespace(namespace)
        return child

    def own_error(self, error: StoreError, operation: str) -> StoreError:
        """Return an error as the caller of an operation gets it, with an error of the old store as its cause."""
        if error.store in (None, self.name, self.wrapped.name) or error.store != self.old.name:
            error.store, error.operation = self.name, operation
            return error
        kind = type(error)
        failure = kind.__new__(kind, *error.args)
        vars(failure).update(vars(error))
        failure.args = (f"the store {error.store!r}, from which entries are moved: {error}",)
        failure.store, failure.operation = self.name, operation
        return failure

    def _targets(self) -> list[tuple[RootLife, tuple[str, ...]]]:
        return [*targets_of(self.wrapped), *targets_of(self.old)]

    # ------------------------------------------------------------------ settling

    async def settle(self, key: str) -> bytes | None:
        """Carry the key over if the old store has it; return the value that the new store has then."""
        new, old = self.wrapped, self.old
        tries = _BoundedTries(self)
        while True:
            await tries.next()
            data = await new.get(key)
            if data is not None and not _is_reservation(data):
                marked = _Marked.parse(data)
                if marked is None:
                    return data
                await self._finish(key, marked)
                continue
            found = await old.get_with_expiry(key)
            if found is None or _is_reservation(found[0]):
                if await new.get(key) == data:
                    return None
                continue
            value, left = found
            if (marked := _Marked.parse(value)) is not None:
                await self._tidy(key, marked)
            elif data is not None:
                await _end_of_reservation(new, key)
            else:
                provisional = _Marked(_PROVISIONAL, os.urandom(_TOKEN), value)
                if await new.add(key, provisional.dump(), left):
                    await self._finish(key, provisional)

    async def _finish(self, key: str, marked: _Marked) -> None:
        """Finish a marked entry of the new store, or remove it if the old store has changed."""
        if marked.kind == _CONFIRMED:
            await self._finish_confirmed(key, marked, _marked(await self.old.get(key)))
            return
        new, old, provisional = self.wrapped, self.old, marked.dump()
        confirmed = marked.of_kind(_CONFIRMED)
        tries = _BoundedTries(self)
        while True:
            await tries.next()
            there = await old.get(key)
            claim = _marked(there)
            if there == marked.value:
                claim = marked.claim()
                if not await old.compare_and_set(key, there, claim.dump(), keep_ttl=True):
                    continue
            elif claim is None or claim.kind != _CLAIMED or claim.token != marked.token:
                await new.compare_and_set(key, provisional, None)
                return
            if await new.compare_and_set(key, provisional, confirmed.dump(), keep_ttl=True):
                await self._finish_confirmed(key, confirmed, claim)
            else:  # others have confirmed it, or it was gone before it was claimed
                await self._tidy(key, claim)
            return

    async def _finish_confirmed(self, key: str, marked: _Marked, claim: _Marked | None) -> None:
        """Make a confirmed entry the entry; the old store, which had that claim, knows before."""
        new, old, carried = self.wrapped, self.old, None
        if claim is not None and claim.kind in {_CLAIMED, _CARRIED} and claim.token == marked.token:
            carried = claim.of_kind(_CARRIED).dump()
            if claim.kind == _CLAIMED:
                await old.compare_and_set(key, claim.dump(), carried, keep_ttl=True)
        await new.compare_and_set(key, marked.dump(), marked.value, keep_ttl=True)
        if carried is not None:
            await old.compare_and_set(key, carried, None)

    async def _tidy(self, key: str, marked: _Marked) -> None:
        """Finish a marked entry of the old store."""
        new, old = self.wrapped, self.old
        if marked.kind == _RESERVED:
            await _end_of_reservation(old, key)
            return
        there = _marked(await new.get(key))
        if there is not None and there.kind in {_PROVISIONAL, _CONFIRMED} and there.token == marked.token:
            await self._finish(key, there)
        elif marked.kind == _CARRIED:  # and the entry was finished, and perhaps changed or deleted since
            await old.compare_and_set(key, marked.dump(), None)
        else:
            await old.compare_and_set(key, marked.dump(), marked.claimed(), keep_ttl=True)

    async def _remove_hidden(self, key: str) -> None:
        """Remove an entry behind one of the new store, left by a process that died while it made an entry too late."""
        there = await self.old.get(key)
        if there is None or _Marked.parse(there) is not None:
            return
        # Another process may have deleted the one, and made this one since: nobody makes one while this one is claimed.
        claim = _Marked(_CLAIMED, os.urandom(_TOKEN), os.urandom(_TOKEN) + there)
        if await self.old.compare_and_set(key, there, claim.dump(), keep_ttl=True):
            data = await self.wrapped.get(key)
            if data is not None and _Marked.parse(data) is None:
                await self.old.compare_and_set(key, claim.dump(), None)
            else:
                await self.old.compare_and_set(key, claim.dump(), there, keep_ttl=True)

    async def tidy(self, key: str) -> None:
        """Settle a key, and leave nothing of it in the old store, also if a process has died that carried it over."""
        await self.settle(key)
        if (marked := _marked(await self.old.get(key))) is not None:
            await self._tidy(key, marked)

    async def tidy_all(self) -> int:
        """Carry over every key of the old store, those of the namespaces below too; return how many there were."""
        count = 0
        async for names, key in self._places(self.old):
            place = self
            for name in names:
                place = place.with_namespace(name)
            await place.tidy(key)
            count += 1
        with suppress(UnsupportedOperationError):  # the new store can't list its keys
            await self._settle_marked()
        return count

    async def _settle_marked(self) -> None:
        """Settle entries that have a mark in the new store, and nothing in the old one any more.

        A process that died has left it there, and then others deleted the entry that it was carrying over.
        """
        batch: dict[tuple[str, ...], list[str]] = {}
        waiting = 0
        async for names, key in self._places(self.wrapped):
            batch.setdefault(names, []).append(key)
            waiting += 1
            if waiting == _AT_ONCE:
                await self._settle_marked_of(batch)
                batch, waiting = {}, 0
        await self._settle_marked_of(batch)

    async def _settle_marked_of(self, batch: dict[tuple[str, ...], list[str]]) -> None:
        for names, keys in batch.items():
            place = self
            for name in names:
                place = place.with_namespace(name)
            for key, value in (await place.wrapped.get_many(keys)).items():
                if _Marked.parse(value) is not None:
                    await place.settle(key)

    async def _places(self, store: Store) -> AsyncIterator[tuple[tuple[str, ...], str]]:
        """Yield the keys of a store and of the namespaces below it, or only the former where it can't list these."""
        seen = False
        try:
            async for place in store.walk():
                seen = True
                yield place
            return
        except UnsupportedOperationError:
            if seen:
                raise
        if store is self.old:
            self.lists_namespaces = False
        async for key in store.keys():
            yield (), key

    async def remaining(self) -> int:
        """Return how many keys the old store has, without those that others are just about to make in the new one."""
        count = 0
        async for names, key in self._places(self.old):
            place = self.old
            for name in names:
                place = place.with_namespace(name)
            data = await place.get(key)
            count += data is not None and not _is_reservation(data)
        return count

    async def _each(
        self, keys: Iterable[str], work: Callable[[str], Awaitable[T]], results: list[T], *, changes: bool
    ) -> None:
        """Do something with each key, with several at a time; add the results in any order.

        A failure ends it, and is raised itself. If that ``changes`` something, other keys may be changed by then.
        """
        waiting, failure = iter(keys), None

        async def worker() -> None:
            for key in waiting:
                results.append(await work(key))
                await asyncio.sleep(0)  # stores in memory never wait

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_AT_ONCE):
                    group.create_task(worker())
        except ExceptionGroup as failures:
            failure = failures.exceptions[0]
        if failure is not None:  # raised here, so that it keeps its own cause, and has no other context
            if changes and isinstance(failure, StoreError):
                failure.outcome_unknown = True
            raise failure

    async def _look(self, key: str) -> tuple[Store, bytes] | None:
        """Where a key is, and its value; nothing is carried over."""
        new, old = self.wrapped, self.old
        tries = _BoundedTries(self)
        while True:
            await tries.next()
            data = await new.get(key)
            if data is not None and not _is_reservation(data):
                marked = _Marked.parse(data)
                if marked is None:
                    return new, data
                await self._finish(key, marked)
                continue
            there = await old.get(key)
            if there is None or _is_reservation(there):
                if await new.get(key) == data:
                    return None
            elif (marked := _Marked.parse(there)) is None:
                return old, there
            else:
                await self._tidy(key, marked)

    async def _create(self, key: str, value: bytes, expires_in: Expiry | None) -> bool:
        """Make an entry where neither store has one; whether nobody else was first.

        Of a caller that prepares and one that carries over, each reserves the key where the other makes its entry.
        """
        new, old = self.wrapped, self.old
        place, other = (old, new) if self.prepare else (new, old)
        reservation = _Marked(_RESERVED, os.urandom(_TOKEN), b"").dump()
        clock = asyncio.get_running_loop().time
        begun = clock()
        if not await other.add(key, reservation, _LEASE):
            await _end_of_reservation(other, key)
            return False
        made = clock() - begun < _LEASE / 2 and await place.add(key, value, expires_in)
        if await other.compare_and_set(key, reservation, None) or not made:
            if not made:
                await _end_of_reservation(place, key)
            return made
        if self.prepare:
            there = await new.get(key)
            if there is not None and _Marked.parse(there) is None:
                # The reservation has ended too early. The entry counts unless it is still there, behind the other one.
                return not await old.compare_and_set(key, value, None)
        elif clock() - begun >= _LEASE:
            reason = "the reservation of a new entry has ended, because making it took too long"
            raise StoreError(reason, store=self.name, outcome_unknown=True)
        return True  # the call that ended the reservation, such as `delete_all`, has changed nothing else

    # ------------------------------------------------------------------ reading

    async def get(self, key: str, renew_for: Expiry | None = None) -> bytes | None:
        """See `Store.get`."""
        if renew_for is None:
            value = await self._get(key)
            if value is not None and not value.startswith(_MARK):
                return value
        return await self._get_from_both(key, renew_for)

    @_signed("get")
    async def _get_from_both(self, key: str, renew_for: Expiry | None) -> bytes | None:
        if renew_for is None:
            if self.prepare:
                found = await self._look(key)
                return None if found is None else found[1]
            return await self.settle(key)
        tries = _BoundedTries(self)
        while (found := await self._found(key)) is not None:
            value = await found[0].get(key, renew_for)
            if value is not None and _Marked.parse(value) is None:
                return value
            await tries.next()
        return None

    @_signed("get_with_expiry")
    async def get_with_expiry(self, key: str) -> tuple[bytes, float | None] | None:
        """See `Store.get_with_expiry`."""
        tries = _BoundedTries(self)
        while (place := await self._found(key)) is not None:
            found = await place[0].get_with_expiry(key)
            if found is not None and _Marked.parse(found[0]) is None:
                return found
            await tries.next()
        return None

    @_signed("exists")
    async def exists(self, key: str) -> bool:
        """See `Store.exists`; nothing is carried over."""
        return await self._look(self._check("exists", key_text, key)) is not None

    @_signed("expires_in")
    async def expires_in(self, key: str) -> int | None:
        """See `Store.expires_in`; nothing is carried over."""
        tries = _BoundedTries(self)
        while (place := await self._look(self._check("expires_in", key_text, key))) is not None:
            found = await place[0].get_with_expiry(key)
            if found is not None and _Marked.parse(found[0]) is None:  # else it has just been carried over
                return -1 if found[1] is None else math.ceil(found[1])
            await tries.next()
        return None

    @_signed("get_many")
    async def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """See `Store.get_many`."""
        names = keys if isinstance(keys, str | bytes) else list(dict.fromkeys(keys))
        found: dict[str, bytes] = {}
        try:
            await self._get_many(names, found)
        except (StoreUnavailableError, StoreTimeoutError) as error:
            partial = found | (error.partial if isinstance(error.partial, dict) else {})
            error.partial = {key: value for key, value in partial.items() if not value.startswith(_MARK)} or None
            raise
        return found

    async def _get_many(self, names: Sequence[str], found: dict[str, bytes]) -> None:
        found |= await self.wrapped.get_many(names)
        missing = [key for key in names if key not in found or found[key].startswith(_MARK)]
        if not missing:
            return
        for key in missing:
            found.pop(key, None)
        there = await self.old.get_many(missing)
        if not self.prepare:
            await self._each([key for key in missing if key in there], self.settle, [], changes=False)
        again = await self.wrapped.get_many(missing)
        for key in missing:
            value = again.get(key, there.get(key) if self.prepare else None)
            if value is not None and _Marked.parse(value) is not None:
                value = await self.get(key)
            if value is not None:
                found[key] = value

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """See `Store.keys`: those of the old store first, so that one that is carried over meanwhile comes too."""
        seen: set[str] = set()
        try:
            for store in (self.old, self.wrapped):
                async for key in store.keys(prefix):
                    if key not in seen:
                        seen.add(key)
                        yield key
        except StoreError as error:
            failure = self.own_error(error, "keys")
            if failure is error:
                raise
            raise failure from error

    # ------------------------------------------------------------------ writing

    def _value(self, operation: str, value: Value) -> bytes:
        data = self._check(operation, value_bytes, value)
        if data.startswith(_MARK):
            raise StoreValueError(
                "the value begins as the marks of moved_from do", store=self.name, operation=operation
            )
        return data

    @_signed("set")
    async def set(self, key: str, value: Value, expires_in: Expiry | None = None, *, keep_ttl: bool = False) -> None:
        """See `Store.set`."""
        data = self._value("set", value)
        tries = _BoundedTries(self)
        while True:
            await tries.next()
            found = await self._found(key)
            if found is None:
                if await self._create(key, data, expires_in):
                    return
            elif await found[0].compare_and_set(key, found[1], data, expires_in, keep_ttl=keep_ttl):
                return

    @_signed("set_many")
    async def set_many(self, mapping: Mapping[str, Value], expires_in: Expiry | None = None) -> None:
        """See `Store.set_many`."""
        items = {key: self._value("set_many", value) for key, value in mapping.items()}
        await self._each(items, lambda key: self.set(key, items[key], expires_in), [], changes=True)

    @_signed("delete")
    async def delete(self, key: str) -> bool | None:  # type: ignore[override]  # as in `Store`
        """See `Store.delete`: the entry that was found is deleted, and none that is made meanwhile."""
        tries = _BoundedTries(self)
        while (found := await self._look(self._check("delete", key_text, key))) is not None:
            store, value = found
            if store is not self.old:
                await self._remove_hidden(key)
            if await store.compare_and_set(key, value, None):
                return True
            await tries.next()
        return False

    @_signed("delete_many")
    async def delete_many(self, keys: Iterable[str]) -> int | None:
        """See `Store.delete_many`."""
        names = keys if isinstance(keys, str | bytes) else list(dict.fromkeys(keys))
        deleted: list[bool | None] = []
        try:
            there = set(await self.wrapped.get_many(names)) | set(await self.old.get_many(names))
            there |= set(await self.wrapped.get_many([key for key in names if key not in there]))
            await self._each(there, self.delete, deleted, changes=True)
        except (StoreUnavailableError, StoreTimeoutError) as error:
            error.partial = sum(filter(None, deleted))
            raise
        return sum(filter(None, deleted))

    @_signed("delete_all")
    async def delete_all(self) -> None:
        """See `Store.delete_all`; in the old store first."""
        await self.old.delete_all()
        await self.wrapped.delete_all()

    @_signed("delete_expired")
    async def delete_expired(self) -> None:
        """See `Store.delete_expired`."""
        await self.old.delete_expired()
        await self.wrapped.delete_expired()

    # ------------------------------------------------------------------ atomic operations

    async def _found(self, key: str) -> tuple[Store, bytes] | None:
        """Where a key is, settled unless this only prepares, and its value."""
        if self.prepare:
            return await self._look(key)
        value = await self.settle(key)
        return None if value is None else (self.wrapped, value)

    @_signed("add")
    async def add(self, key: str, value: Value, expires_in: Expiry | None = None) -> bool:
        """See `Store.add`."""
        data = self._value("add", value)
        if expires_in is not None and self._check("add", milliseconds, expires_in) <= 0:
            return await self._found(key) is None
        tries = _BoundedTries(self)
        while await self._found(key) is None:
            if await self._create(key, data, expires_in):
                return True
            await tries.next()
        return False

    @_signed("touch")
    async def touch(self, key: str, expires_in: Expiry | None) -> bool:
        """See `Store.touch`."""
        tries = _BoundedTries(self)
        while (found := await self._found(key)) is not None:
            if await found[0].touch(key, expires_in):
                return True
            await tries.next()
        return False

    @_signed("pop")
    async def pop(self, key: str) -> bytes | None:
        """See `Store.pop`."""
        tries = _BoundedTries(self)
        while (found := await self._found(key)) is not None:
            if await found[0].compare_and_set(key, found[1], None):
                return found[1]
            await tries.next()
        await self._pop_nothing(key)
        return None

    @_signed("increment")
    async def increment(self, key: str, by: int = 1, expires_in: Expiry | None = None) -> int:
        """See `Store.increment`."""
        ends_at_once = expires_in is not None and self._check("increment", milliseconds, expires_in) <= 0
        tries = _BoundedTries(self)
        while True:
            await tries.next()
            found = await self._found(key)
            if found is None:
                first = self._check("increment", lambda by: next_counter(None, by), by)
                if ends_at_once or await self._create(key, b"%d" % first, expires_in):
                    return first
            elif (number := await self._added(key, found, by)) is not None:
                return number

    async def _added(self, key: str, found: tuple[Store, bytes], by: int) -> int | None:
        """Add to a counter that is there; None if it has changed meanwhile."""
        store, value = found
        number = self._check("increment", lambda value: next_counter(value, by), value)
        return number if await store.compare_and_set(key, value, b"%d" % number, keep_ttl=True) else None

    @_signed("compare_and_set")
    async def compare_and_set(
        self,
        key: str,
        old: Value | None,
        new: Value | None,
        expires_in: Expiry | None = None,
        *,
        keep_ttl: bool = False,
    ) -> bool:
        """See `Store.compare_and_set`."""
        before = None if old is None else self._check("compare_and_set", value_bytes, old)
        after = None if new is None else self._value("compare_and_set", new)
        span = None if expires_in is None else self._check("compare_and_set", milliseconds, expires_in)
        tries = _BoundedTries(self)
        while True:
            await tries.next()
            found = await self._found(key)
            if found is None:
                if before is not None or after is None or (span is not None and span <= 0):
                    return before is None
                if await self._create(key, after, expires_in):
                    return True
            elif found[1] != before:
                return False
            elif await found[0].compare_and_set(key, before, after, expires_in, keep_ttl=keep_ttl):
                return True
