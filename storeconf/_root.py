"""The state that all handles of one root share: life cycle, calls in progress, flights, and coherence of near caches.

A handle keeps a reference to the `RootLife` of its root, whose attributes are public to the modules of the package:
the hot paths read them without a call. Applications never see it.

Longer than other modules, because the life of a root, its calls and the reports of changes share their invariants.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from concurrent.futures import Future as ThreadFuture
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, TypeVar

from storeconf._arguments import key_list, milliseconds
from storeconf._coherence import Coherence
from storeconf._lifecycle import (
    CLOSED,
    CLOSING,
    NEW,
    OPEN,
    LifeCycle,
    NoLoopError,
    require_asyncio,
    run_shielded,
    within,
)
from storeconf._pace import few, in_batches
from storeconf._single_flight import Flights, StandstillError
from storeconf.errors import (
    StoreClosedError,
    StoreconfError,
    StoreDeadlockError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from storeconf.operations import METHODS, TABLE, named

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterable, Iterator

    Watcher = Callable[[tuple[str, ...], Collection[str] | None], None]

__all__ = [
    "CHANGES",
    "CLOSE_GRACE",
    "CLOSE_LIMIT",
    "OPEN_LIMIT",
    "Calls",
    "Maker",
    "RootCaller",
    "RootLife",
    "anext_or_none",
    "described",
    "hides",
    "hook_of",
    "life_of",
    "maker_of",
    "raise_foreign",
    "refresh_of",
    "sign",
    "taken_over",
    "targets_of",
    "told",
    "translated",
]

_logger = logging.getLogger("storeconf")

T = TypeVar("T")
A = TypeVar("A")

OPEN_LIMIT = 30.0
"""Seconds that a backend gets to open, unless a ``timeout`` in its chain is shorter."""

CLOSE_GRACE = 5.0
"""Seconds that calls in progress get to finish when their store closes."""

CLOSE_LIMIT = 10.0
"""Seconds that a backend gets after that to give its resource back."""

CHANGES: Final = frozenset(row.method for row in TABLE if row.changes)
"""The public operations that change something; ``get`` does when it renews."""


_UNKNOWN: Final = named(lambda operation: operation.has_outcome)
"""The operations of which an unexpected error leaves open whether they took effect."""


class Owner(Protocol):
    """A root store, as its life sees it."""

    @property
    def name(self) -> str:
        """Its name in messages."""

    async def do_open(self) -> None:
        """See `Hooks.do_open`."""

    async def do_close(self) -> None:
        """See `Hooks.do_close`."""

    def do_forget(self) -> None:
        """See `Hooks.do_forget`."""


class Named(Protocol):
    """A store that an error names."""

    @property
    def name(self) -> str:
        """Its name in messages."""


def sign(error: StoreError, store: Named, operation: str) -> None:
    """Note on an error which store and which operation it is about, unless it has them already."""
    if error.store is None:
        error.store = store.name
    if error.operation is None:
        error.operation = operation


def raise_foreign(
    error: Exception, store: Named, operation: str, maker: Maker, *, outcome_unknown: bool | None = None
) -> NoReturn:
    """Raise a StoreError from an error of a plugin that is not of one of storeconf's classes.

    Only Python's own errors of connections and timeouts count as an outage, so that no policy hides a mistake.
    """
    if isinstance(error, NoLoopError):
        raise error  # the plugin did nothing: the caller that has begun without a loop goes to one
    name = store.name
    text = maker.redact(described(error))
    if isinstance(error, NotImplementedError) and not str(error):
        text += f" (it does not implement do_{operation}, or what that calls)"
    kind = StoreTimeoutError if isinstance(error, TimeoutError) else StoreError
    raise (StoreUnavailableError if isinstance(error, ConnectionError) else kind)(
        f"{maker.describe()} of store {name!r} failed in {operation}: {text}",
        store=name,
        operation=operation,
        outcome_unknown=operation in _UNKNOWN if outcome_unknown is None else outcome_unknown,
    ) from (error if hides(error, maker.redact) else None)


def hides(error: BaseException, redact: Callable[[str], str]) -> bool:
    """Hide secrets in an error and those that it comes from, as tracebacks print them; whether none is left."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        notes = getattr(each, "__notes__", None)
        if notes:
            each.__notes__ = [redact(str(note)) for note in notes]
        if isinstance(each, BaseExceptionGroup) and not all(hides(inner, redact) for inner in each.exceptions):
            return False
        if redact(str(each)) != str(each):
            each.args = tuple(redact(value) if isinstance(value, str) else value for value in each.args)
            if redact(str(each)) != str(each):  # its text is not that of its arguments
                return False
        each = each.__cause__ or each.__context__
    return True


def described(error: BaseException) -> str:
    """An error in one text: its class and its message."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


@contextmanager
def hook_of(store: Any, operation: str) -> Iterator[None]:
    """Sign the errors that a hook raises; `RootCaller._call` does the same in fewer steps."""
    try:
        yield
    except StoreError as error:
        sign(error, store, operation)
        raise
    except StoreconfError:
        raise
    except Exception as error:  # noqa: BLE001  # a plugin's own code may fail in any way
        raise_foreign(error, store, operation, maker_of(store))


@dataclass(frozen=True, slots=True)
class Maker:
    """The code that made a store: its name in messages, and a function that hides the layout's secrets in texts."""

    describe: Callable[[], str]
    redact: Callable[[str], str] = str


class Calls:
    """The calls in progress on one root, which closing waits for: ``with calls:`` around each.

    This is the only way to account for a call. The entering comes before the look at the state, so that a close
    from another thread sees one of them. Where speed matters it is written out, because a context manager takes two
    calls:

        calls.count += 1
        try:
            ...
        finally:
            calls.count -= 1
            if calls.idle is not None:
                calls.leave()

    Several threads count without a lock: CPython with a GIL switches threads neither within ``+=`` nor within ``-=``.
    """

    __slots__ = ("__weakref__", "_mutex", "count", "idle")

    def __init__(self, life: LifeCycle) -> None:
        self._mutex = life.mutex
        self.count: int = 0
        self.idle: ThreadFuture[None] | None = None

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *error: object) -> None:
        self.count -= 1
        if self.idle is not None:
            self.leave()

    def leave(self) -> None:
        """Wake the waiting tasks if no call is in progress any more."""
        with self._mutex:
            if self.count > 0 or self.idle is None:
                return
            idle, self.idle = self.idle, None
        idle.set_result(None)

    async def wait(self, seconds: float | None = None) -> None:
        """Wait for the calls in progress, in any loop, but no longer than that; None: without limit."""
        with self._mutex:
            idle = self.idle
            if idle is None:
                idle = self.idle = ThreadFuture()
        if self.count <= 0:
            self.leave()
        await asyncio.wait([asyncio.wrap_future(idle)], timeout=seconds)


class RootLife(LifeCycle):
    """The life of a root, and the state that its handles share in addition to the resource.

    ``guests`` counts the entries into the store itself, and not into a registry that holds it. ``inside`` are the tasks
    whose further calls closing waits for. ``iterations`` are those of ``keys`` and ``walk`` in progress, of which each
    step is a call. ``observed`` is whether anybody has to be told of changes. ``watchers`` are called after each that
    has succeeded, with the path and the keys, None for all at and below it. ``on_acquire`` is called after each
    `acquire`. ``abandoned``: the layout does not list the root any more; see `abandon`.
    """

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.coherence: Coherence | None = None
        self.on_acquire: Callable[[], None] | None = None
        self.watchers: tuple[Watcher, ...] = ()
        self.abandoned = False
        self._open_limit = OPEN_LIMIT
        super().__init__(self._open_owner, self._close_owner, self._forget_parent)
        self._renew()

    def __repr__(self) -> str:
        return repr(self.owner)

    def _renew(self) -> None:
        self.calls = Calls(self)
        self.iterations = Calls(self)
        self._earlier: list[Calls] = []  # that began before `renew_calls`
        self._earlier_iterations: list[Calls] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.guests = 0
        self.inside: set[asyncio.Task[Any] | None] = set()
        self.flights = Flights(self._count_flight)
        self.observed = self.coherence is not None or bool(self.watchers)

    async def acquire(self) -> None:
        """Hold it open, and open it if it is not."""
        await super().acquire()
        if self.on_acquire is not None:
            self.on_acquire()

    async def _open_owner(self) -> None:
        owner = self.owner
        with hook_of(owner, "open"):
            await within(self._open_limit, owner.do_open(), f"opening store {owner.name!r}")
        if self.coherence is not None:
            self.coherence.resume()
        if self.abandoned:
            self.run_in_background(self._close_when_idle())

    async def _close_owner(self) -> None:
        owner = self.owner
        if self.coherence is not None:
            self.coherence.shut()
        try:
            self.flights.end(unneeded=True)
            async with asyncio.timeout(CLOSE_GRACE) as grace:
                for calls in (self.calls, *self._earlier):
                    await calls.wait()
        except TimeoutError:
            if not grace.expired():
                raise
        finally:
            self.flights.end()  # the factories that are still running
            with hook_of(owner, "close"):
                await within(CLOSE_LIMIT, owner.do_close(), f"closing store {owner.name!r}")

    # ------------------------------------------------------------------ reload

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run it as a task that stays referenced; its failure is logged."""
        task = asyncio.get_running_loop().create_task(self._logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _logged(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            _logger.exception("store %r could not release what it no longer needs", self.owner.name)

    def renew_calls(self) -> Calls:
        """Count calls that begin from now on apart; return those in progress. No two loops may do this at once."""
        earlier, self.calls = self.calls, Calls(self)
        self._earlier = [calls for calls in self._earlier if calls.count > 0] + [earlier]
        return earlier

    def renew_iterations(self) -> Calls:
        """As `renew_calls`, for iterations."""
        earlier, self.iterations = self.iterations, Calls(self)
        self._earlier_iterations = [each for each in self._earlier_iterations if each.count > 0] + [earlier]
        return earlier

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in progress: no call, no factory, no iteration."""
        return not any(each.count > 0 for each in self._in_progress())

    def _in_progress(self) -> Iterable[Calls]:
        return (self.calls, self.iterations, *self._earlier, *self._earlier_iterations)

    def abandon(self) -> asyncio.Task[None] | None:
        """Close it as soon as nobody holds it and nothing is in progress; a call that still comes opens it for itself.

        Return the task that closes it, or None if it is not open.
        """
        self.abandoned = True
        return None if self.state in (NEW, CLOSED) else self.run_in_background(self._close_when_idle())

    async def _close_when_idle(self) -> None:
        while not self.is_idle:
            for calls in self._in_progress():
                await calls.wait()
        await self.close(unless_held=True)

    async def let_close(self) -> None:
        """Within a call: wait until the closing in progress has ended, which does not wait for this call meanwhile."""
        calls = self.calls
        calls.__exit__()
        try:
            await self.until_settled()
        finally:
            calls.__enter__()

    def refuse(self) -> None:
        """Let calls on an abandoned root fail from now on: the registry that it belonged to is closed."""
        self.abandoned = False

    def _forget_parent(self) -> None:
        self._renew()
        if self.coherence is not None:
            self.coherence.forget()
        self.owner.do_forget()

    def _count_flight(self) -> Callable[[], object]:
        """Count a flight as a call from its beginning, before its task runs; return the function that ends the call."""
        calls = self.calls
        calls.__enter__()
        return calls.__exit__

    def limit_opening(self, seconds: float) -> None:
        """Let opening take no longer than that."""
        self._open_limit = min(self._open_limit, seconds)

    def share_coherence(self) -> Coherence:
        """Return the coherence that all near caches on the root share."""
        with self.mutex:
            if self.coherence is None:
                self.coherence = Coherence()
                self.observed = True
        return self.coherence

    def observe(self) -> None:
        """Find out whether anybody has to be told of changes."""
        with self.mutex:
            self.observed = self._is_observed()

    def _is_observed(self) -> bool:
        return self.coherence is not None or self.flights.can_be_overtaken or bool(self.watchers)

    def watch(self, watcher: Watcher) -> None:
        """Call it after each change from now on that succeeds."""
        with self.mutex:
            self.watchers += (watcher,)
            self.observed = True

    def unwatch(self, watcher: Watcher) -> None:
        """Call it no longer."""
        with self.mutex:
            self.watchers = tuple(each for each in self.watchers if each != watcher)
            self.observed = self._is_observed()

    async def overtake(self, store: Named, path: tuple[str, ...], keys: Collection[str] | None, operation: str) -> None:
        """Begin a change through a store: see `Flights.overtake`."""
        try:
            await self.flights.overtake(path, keys)
        except StandstillError:
            raise StoreDeadlockError(
                f"{operation} on store {store.name!r} would wait forever: get_or_set is storing a value of the same "
                "key in the event loop that this call blocks, because it was made without await in a coroutine; "
                "await the change (with Django aset in place of set, and so on), or make it in another thread",
                store=store.name,
                operation=operation,
            ) from None

    async def reporting(
        self, change: Callable[[], Awaitable[T]], path: tuple[str, ...], keys: Collection[str] | None
    ) -> T:
        """Begin a change, await it, and call the watchers."""
        done = await change()
        for watcher in self.watchers:
            watcher(path, keys)
        return done


def maker_of(store: Any) -> Maker:
    """Return whose code a store is, as far as that is known."""
    root = store.root
    return store._maker or root._maker or Maker(lambda: f"the class {type(root).__qualname__}")  # noqa: SLF001  # attributes of every store


class Handle(Protocol):
    """A store, as far as this module knows it."""

    _life: RootLife
    _refresh: Any  # a `RefreshPolicy`, whose module imports this one
    _maker: Maker | None

    def _targets(self) -> list[tuple[RootLife, tuple[str, ...]]]: ...


async def anext_or_none(items: AsyncIterator[T]) -> T | None:
    """Return the next item, or None at the end: one step of an iteration, as a call of its own."""
    return await anext(items, None)


def life_of(store: Handle) -> RootLife:
    """Return the life of a store's root."""
    return store._life  # noqa: SLF001  # the door to it for all other modules, so that completion on a store has no such name


def refresh_of(store: Handle) -> Any:
    """Return the `RefreshPolicy` of a store's chain, or None."""
    return store._refresh  # noqa: SLF001  # as above


def targets_of(store: Handle) -> list[tuple[RootLife, tuple[str, ...]]]:
    """Return where a store's `get_or_set` may store a value: roots, each with a path."""
    return store._targets()  # noqa: SLF001  # as above


class RootCaller:
    """A store as a caller of its root: each public method of `Store` calls the root's hooks through one of these."""

    _life: RootLife
    _path: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its name in messages."""
        raise NotImplementedError

    def _targets(self) -> list[tuple[RootLife, tuple[str, ...]]]:
        """Where `get_or_set` may store a value: roots, each with a path."""
        return [(self._life, self._path)]

    async def _ready(self) -> None:
        """Prepare a call on a root that is not open: open a new one, refuse on a closed one."""
        life = self._life
        while (state := life.state) != OPEN:  # read once: another thread may change it meanwhile
            require_asyncio()
            if state == CLOSING and asyncio.current_task() in life.inside:
                return
            if life.abandoned and state == CLOSING:
                await life.let_close()
            elif state == NEW or life.abandoned:
                await life.open(reopen=life.abandoned)
            else:
                raise StoreClosedError(
                    f"store {self.name!r} is closed; open it, or its registry, again", store=self.name
                )

    async def _call(self, work: Coroutine[Any, Any, T], operation: str = "") -> T:
        """Run one of the root's ``do_*`` coroutines as a call in progress, which closing waits for.

        ``operation`` is its name in errors, by default the name of the hook.
        """
        life = self._life
        calls = life.calls
        calls.count += 1  # see `Calls`
        try:
            if life.state != OPEN:
                await self._ready()
            return await work
        except StoreError as error:
            sign(error, self, operation or getattr(work, "__name__", "").removeprefix("do_"))
            raise
        except StoreconfError:
            raise
        except Exception as error:  # noqa: BLE001  # a backend's own code may fail in any way
            raise_foreign(error, self, operation or getattr(work, "__name__", "").removeprefix("do_"), maker_of(self))
        finally:
            work.close()
            calls.count -= 1
            if calls.idle is not None:
                calls.leave()

    def _change(self, keys: Collection[str] | None, work: Coroutine[Any, Any, T], operation: str) -> Awaitable[T]:
        """As `_call`, for hooks that change these keys, or with None anything at and below this namespace."""
        life = self._life
        if not life.observed:
            return self._call(work, operation)
        if life.flights.can_be_overtaken or (keys is not None and not few(keys)):
            change: Awaitable[T] = self._overtaking(keys, work, operation)
        else:
            change = self._telling(keys, self._call(work, operation))
        return life.reporting(lambda: change, self._path, keys) if life.watchers else change

    async def _overtaking(self, keys: Collection[str] | None, work: Coroutine[Any, Any, T], operation: str) -> T:
        try:
            await self._life.overtake(self, self._path, keys, operation)
            return await self._telling(keys, self._call(work, operation))
        finally:
            work.close()  # which has not begun if this was cancelled before

    def _change_expiry(
        self, keys: Collection[str], work: Coroutine[Any, Any, T], expiry: int | None, operation: str
    ) -> Awaitable[T]:
        """As `_change`, for hooks that give these keys another expiry: values stay, unless the entry is removed."""
        if expiry is not None and expiry <= 0:
            return self._change(keys, work, operation)
        return self._telling(keys, self._call(work, operation))

    def _telling(self, keys: Collection[str] | None, call: Coroutine[Any, Any, T]) -> Awaitable[T]:
        near = self._life.coherence
        if near is None or (keys is not None and not near.concerns(self._path)):
            return call
        return near.during(call, self._path, keys)

    def _check(self, operation: str, check: Callable[[A], T], argument: A) -> T:
        try:
            return check(argument)
        except StoreError as error:
            sign(error, self, operation)
            raise

    async def _many_keys(self, operation: str, keys: Iterable[str]) -> list[str]:
        """As `key_list`, and lets others run meanwhile."""
        names: list[str] = []
        if isinstance(keys, str | bytes):
            return self._check(operation, key_list, keys)  # which raises the right error
        await in_batches(list(keys), lambda batch: names.extend(self._check(operation, key_list, batch)))
        return names


def taken_over(kind: type, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """The attributes under these names that a class brings in: its own, and those of a mixin that is not a store."""
    for name in names:
        owner = next((each for each in kind.__mro__ if name in vars(each)), kind)
        if owner is kind or not (issubclass(owner, RootCaller) or _is_ours(owner.__module__)):
            attribute = vars(owner).get(name)
            if attribute is not None:
                yield name, attribute


def translated(name: str, method: Any) -> Any:
    """Return a public operation of a plugin's class, whose own errors become errors of storeconf."""
    if not isinstance(method, FunctionType) or _is_ours(method.__module__):
        return method

    def failed(error: Exception, store: Any, args: tuple[Any, ...]) -> None:
        if not isinstance(error, StoreconfError) and not _passed_through(error):
            operation = args[0] if name == "around" else name.removeprefix("around_")
            raise_foreign(error, store, operation, maker_of(store))

    @wraps(method)
    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await method(self, *args, **kwargs)
        except Exception as error:
            failed(error, self, args)
            raise

    @wraps(method)
    def call_at_once(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            failed(error, self, args)
            raise

    @wraps(method)
    async def iterate(self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        found = None
        try:
            found = method(self, *args, **kwargs)
            async for each in found:
                yield each
        except Exception as error:
            failed(error, self, args)
            raise
        finally:
            if isinstance(found, AsyncGenerator):
                await found.aclose()

    if name in ("around_keys", "keys", "walk"):
        return iterate
    return call_at_once if name in ("new_client", "raw_key", "with_namespace") else call


TRANSLATED: Final = METHODS.keys() | {"around", "around_keys", "new_client", "raw_key", "walk", "with_namespace"}
"""Methods whose errors are translated where a plugin's class overrides them. Not ``get_or_set``, whose factory is the
application's."""


def _is_ours(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] == "storeconf"


def _passed_through(error: Exception) -> bool:
    """Whether an error came out of storeconf's own code, which refuses wrong arguments with Python's own errors."""
    trace = error.__traceback__.tb_next if error.__traceback__ is not None else None
    while trace is not None:
        # The shielded coroutine is the plugin's code again.
        if _is_ours(trace.tb_frame.f_globals.get("__name__")) and trace.tb_frame.f_code is not run_shielded.__code__:
            return True
        trace = trace.tb_next
    return False


def told(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
    """Return a public operation that a class has taken over, so that caches and flights learn of its changes."""
    row = METHODS[name]

    @wraps(operation)
    def telling(self: Any, *args: Any, **kwargs: Any) -> Any:
        life = life_of(self)
        if not life.observed:
            return operation(self, *args, **kwargs)
        keys, overtakes = None, True
        if row.target == "key":
            key = args[0] if args else kwargs.get("key")
            if not isinstance(key, str):
                return operation(self, *args, **kwargs)
            if row.effect == "renew":
                span = row.span(args) if len(args) > 1 else kwargs.get("renew_for", kwargs.get("expires_in"))
                if span is None and row.gives_values:  # a plain read
                    return operation(self, *args, **kwargs)
                overtakes = _is_over(span)
            keys = (str.__str__(key),)
        near, path = life.coherence, self.namespaces
        if near is not None and keys is not None and not near.concerns(path):
            near = None
        overtake = None
        if overtakes and life.flights.can_be_overtaken:
            overtake = partial(life.overtake, self, path, keys, name)
        if near is None and overtake is None and not (overtakes and life.watchers):
            return operation(self, *args, **kwargs)
        # Each within a coroutine: if that is cancelled before it begins, none is left that nobody awaits.
        change = partial(_tell, near, overtake, path, keys, lambda: operation(self, *args, **kwargs))
        return life.reporting(change, path, keys) if overtakes and life.watchers else change()

    return telling


def _is_over(span: Any) -> bool:
    """Whether a renewal by this span removes the entry; the operation itself refuses a value that is not a span."""
    try:
        return span is not None and milliseconds(span) <= 0
    except (TypeError, StoreError):
        return False


async def _tell(
    near: Coherence | None,
    overtake: Callable[[], Awaitable[None]] | None,
    path: tuple[str, ...],
    keys: Collection[str] | None,
    change: Callable[[], Awaitable[T]],
) -> T:
    if overtake is not None:
        await overtake()
    return await (change() if near is None else near.during(change(), path, keys))
