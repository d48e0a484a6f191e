"""The store on a server that speaks RESP: every operation as one command, on one transport per event loop.

Longer than other modules, because the store is one class, with a command for every operation.
"""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Self

from storeconf._lifecycle import CLOSING, OPEN
from storeconf._root import life_of, sign
from storeconf.errors import (
    StoreClosedError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreValueError,
    UnsupportedOperationError,
)
from storeconf.store import (
    Capabilities,
    Expiry,
    StoreBase,
    Value,
    check_name,
    key_text,
    milliseconds,
    value_bytes,
)
from storeconf.stores.resp import protocol
from storeconf.stores.resp.bulk import MISSING, delete_tree, send_all, walk
from storeconf.stores.resp.driver import load_driver
from storeconf.stores.resp.errors import ReplyError, TransportError, code_of, is_forbidden, translate
from storeconf.stores.resp.keys import InvalidationFilter
from storeconf.stores.resp.keys import key_layout as layout_named
from storeconf.stores.resp.options import ServerOptions, ServerUrl
from storeconf.stores.resp.protocol import Script, pack
from storeconf.stores.resp.transport import ONCE, READ, WRITE
from storeconf.stores.resp.transports import (
    TransportFactory,
    Transports,
    factory_of_client,
    factory_of_options,
    make_client,
    with_url_options,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable

    from redis.asyncio import Redis, RedisCluster
    from valkey.asyncio import Valkey, ValkeyCluster

    from storeconf._coherence import Coherence
    from storeconf._root import Calls
    from storeconf.stores.resp.keys import KeyLayout, Layout
    from storeconf.stores.resp.transport import Transport

__all__ = ["RedisStore", "ServerStore", "ValkeyStore"]

CHUNK = 1000
"""Keys in one MGET or UNLINK: the server does nothing else meanwhile."""

BATCH = 10_000
"""Keys of a bulk call that are handled before the event loop has its turn: a few milliseconds' work."""

SHORT_ENOUGH = 10**12
"""Seconds below which an expiry needs no look at its size."""

_MOST_PREFIXES = 1024
"""Namespaces whose prefixes are remembered."""

_SET_PX = b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$2\r\nPX\r\n$%d\r\n%b\r\n"
_ENDED = b"-0"
"""The beginning of the milliseconds of an expiry that is over."""


class ServerStore(StoreBase):
    """The base of `RedisStore` and `ValkeyStore`, which differ only in the client library."""

    driver: ClassVar[str]
    default_url: ClassVar[str]
    capabilities: Capabilities = Capabilities(persistent=True, shared=True, atomic=Capabilities.ALL_ATOMIC)
    notifies: ClassVar[frozenset[str]] = frozenset({"get", "set"})

    _root: ServerStore
    _reads_expiry: ClassVar[bool] = True  # by itself: no subclass has a hook of its own for it

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._reads_expiry = cls.do_get_with_expiry is ServerStore.do_get_with_expiry

    def __init__(
        self, factory: TransportFactory, *, namespace: str | None, key_layout: Layout = "storeconf", client: Any = None
    ) -> None:
        super().__init__()
        self._path = () if not namespace else (check_name(namespace),)
        self._layout: KeyLayout = layout_named(key_layout)
        self._prefix = self._layout.prefix(self._path)
        self._prefixes: dict[tuple[str, ...], bytes] = {}
        self._options: ServerOptions | Callable[[], ServerOptions] | None = None
        self._client = client
        """The client to close with the store, if there is one."""
        self._transports = Transports(factory, lambda: self.name)
        self._replaced: list[Transports] = []  # which calls in progress still use
        self._forget_server()
        self._invalidations: InvalidationFilter | None = None

    @classmethod
    def with_client(
        cls,
        url: str | None = None,
        db: int | None = None,
        port: int | None = None,
        username: str | None = None,
        password: str | None = None,
        namespace: str | None = "LITESTAR",
        *,
        key_layout: Layout = "storeconf",
    ) -> Self:
        """Return a store on the server at ``url``, by default this machine's, with connections that it closes.

        Raises ValueError for a text that is not a URL of a server.
        """
        url = cls.default_url if url is None else url
        ServerUrl(url)  # raises for faults that a connection would meet later
        options = ServerOptions(url=url, db=db, port=port, username=username, password=password)
        return cls.from_options(options, namespace=namespace, key_layout=key_layout)

    @classmethod
    def from_options(
        cls,
        options: ServerOptions | Callable[[], ServerOptions],
        *,
        namespace: str | None,
        key_layout: Layout = "storeconf",
    ) -> Self:
        """Return a store that makes its own connections, by ``options``, or by its result if it is a function."""
        store = cls.__new__(cls)
        factory = factory_of_options(load_driver(cls.driver), options)
        ServerStore.__init__(store, factory, namespace=namespace, key_layout=key_layout)
        store._options = options
        return store

    def _new_client(self, blocking: bool) -> Any:
        options = self._root._options
        if options is None:
            raise UnsupportedOperationError(
                f"store {self.name!r} uses a client that was handed in: use that one",
                store=self.name,
                operation="new_client",
            )
        options = with_url_options(options() if callable(options) else options)
        return make_client(load_driver(self.driver), options, blocking=blocking)

    @classmethod
    def transport_factory_of(cls, client: Any) -> TransportFactory:
        """Return the way to the server of a client that was handed in."""
        return factory_of_client(load_driver(cls.driver), client)

    def reconnect(self, options: ServerOptions | Callable[[], ServerOptions]) -> None:
        """Make new connections from now on; those that there are close when the calls in progress have ended."""
        root = self._root
        earlier = root._transports
        root._transports = Transports(factory_of_options(load_driver(root.driver), options), lambda: root.name)
        root._options = options
        root._forget_server()
        life = life_of(root)
        if life.state == OPEN:
            root._replaced.append(earlier)
            life.run_in_background(root._give_up(earlier, (life.renew_calls(), life.renew_iterations())))

    def _forget_server(self) -> None:
        self._has_getdel = self._reads_by_script = self._has_all_keys = True
        if (near := self._life.coherence) is not None:
            near.all_changed()

    async def _give_up(self, transports: Transports, calls: Iterable[Calls]) -> None:
        for each in calls:
            await each.wait()
        await transports.close()
        if transports in self._replaced:
            self._replaced.remove(transports)
        if (near := self._life.coherence) is not None:
            near.all_changed()  # also the entries read meanwhile, whose changes are not announced any more

    def do_attach(self, parent: Self) -> None:
        """Know the prefix of this namespace's keys."""
        if not parent._path:
            raise UnsupportedOperationError(
                f"store {parent.name!r} has no namespace, so its keys are raw and it can't be a parent; "
                f"give the root one: {type(parent).__name__}.with_client(url, namespace=…)",
                store=parent.name,
                operation="with_namespace",
            )
        self._layout = parent._layout
        self._prefix = self._layout.prefix(self._path)

    # ------------------------------------------------------------------ sending

    async def do_close(self) -> None:
        """Close the connections of every loop, and the client where it is ours."""
        replaced, self._replaced = self._replaced, []
        for transports in (self._transports, *replaced):
            await transports.close()
        if self._client is not None:
            await self._client.aclose()

    def do_forget(self) -> None:
        """Leave the parent's connections alone."""
        for transports in (self._transports, *self._replaced):
            transports.forget()
        self._replaced = []

    async def _again(self, transport: Transport, error: Exception, data: bytes, key: bytes, kind: int) -> Any:
        """Repeat a failed command or raise the error for callers. Called on the root."""
        try:
            return await transport.again(error, data, key, kind)
        except (ReplyError, TransportError) as failure:
            raise self._failure(failure, kind) from failure

    def _failure(self, error: ReplyError | TransportError, kind: int) -> StoreError:
        if self._life.state >= CLOSING and isinstance(error, TransportError) and not error.sent:
            return StoreClosedError("the store was closed meanwhile")
        return translate(error, writes=kind != READ)

    async def _do(self, data: bytes, key: bytes, kind: int) -> Any:
        transport = self._transports.here()
        try:
            return await transport.send(data, key, kind)
        except (ReplyError, TransportError) as error:
            raise self._failure(error, kind) from error

    async def _do_all(
        self, names: list[bytes], command: Callable[[int], bytes], kind: int
    ) -> tuple[list[Any], StoreError | None]:
        """Send the commands on these keys; return the replies, `MISSING` for failed ones, and the error to raise."""
        replies, failure = await send_all(self._transports.here(), names, command, kind)
        if failure is None:
            return replies, None
        error = self._failure(failure, kind)
        error.__cause__ = failure
        return replies, error

    def _run(self, script: Script, key: bytes, kind: int, *arguments: bytes | int) -> Coroutine[Any, Any, Any]:
        return self._run_on(self._transports.here(), script, key, kind, *arguments)

    async def _run_on(
        self, transport: Transport, script: Script, key: bytes, kind: int, *arguments: bytes | int
    ) -> Any:
        try:
            return await transport.call(script.by_hash(key, *arguments), key)
        except (ReplyError, TransportError) as error:
            return await self._run_again(transport, error, script, key, kind, *arguments)

    async def _run_again(
        self, transport: Transport, error: Exception, script: Script, key: bytes, kind: int, *arguments: bytes | int
    ) -> Any:
        if isinstance(error, ReplyError) and str(error).startswith("NOSCRIPT"):
            return await self._do(script.by_text(key, *arguments), key, kind)
        return await self._again(transport, error, script.by_text(key, *arguments), key, kind)

    def _key(self, path: tuple[str, ...], key: str) -> bytes:
        prefix = self._prefixes.get(path)
        if prefix is None:
            if len(self._prefixes) >= _MOST_PREFIXES:
                self._prefixes.clear()
            prefix = self._prefixes[path] = self._layout.prefix(path)
        return prefix + key.encode()

    async def _names(self, path: tuple[str, ...], keys: Collection[str]) -> list[bytes]:
        """Return the server's keys, and let others have the event loop now and then."""
        prefix, rest = self._layout.prefix(path), iter(keys)
        names: list[bytes] = []
        while len(names) < len(keys):
            if names:
                await asyncio.sleep(0)
            names += [prefix + key.encode() for key in islice(rest, BATCH)]
        return names

    # ------------------------------------------------------------------ the fast ones

    async def get(self, key: str, renew_for: Expiry | None = None) -> bytes | None:
        """Return the value, or None when there is none or it has expired.

        ``renew_for`` gives an entry with an expiry a new one in the same step; a permanent key stays permanent. Zero or
        less ends the entry and still returns it.
        """
        if renew_for is not None:
            return await super().get(key, renew_for)
        root, life = self._root, self._life
        calls = life.calls
        calls.count += 1  # see `Calls`
        try:
            if life.state != OPEN:
                await self._ready()
            transport = root._transports.last
            if transport is None or transport.loop is not get_running_loop():
                transport = root._transports.here()
            if key.__class__ is not str or not key.isascii():
                key_text(key)
            name = self._prefix + key.encode()
            data = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(name), name)
            try:
                value: bytes | None = await transport.call(data, name)
                return value
            except (ReplyError, TransportError) as error:
                again: bytes | None = await root._again(transport, error, data, name, READ)
                return again
        except StoreError as error:
            sign(error, self, "get")
            raise
        finally:
            calls.count -= 1
            if calls.idle is not None:
                calls.leave()

    async def get_with_expiry(self, key: str) -> tuple[bytes, float | None] | None:
        """Return value and seconds left, in few steps: every miss of a near cache is one of these."""
        if not self._reads_expiry:
            return await super().get_with_expiry(key)
        root, life = self._root, self._life
        calls = life.calls
        calls.count += 1  # see `Calls`
        try:
            if life.state != OPEN:
                await self._ready()
            transport = root._transports.last
            if transport is None or transport.loop is not get_running_loop():
                transport = root._transports.here()
            if key.__class__ is not str or not key.isascii():
                key_text(key)
            name = self._prefix + key.encode()
            if (near := life.coherence) is not None:
                transport.listen(root._invalidations or root._listening(near))
            failure: Exception | None = None
            if root._reads_by_script:
                data = protocol.GET_WITH_EXPIRY.alone + b"$%d\r\n%b\r\n" % (len(name), name)
                try:
                    found = await transport.call(data, name)
                    if found is None:
                        return None
                    value, left = found
                    return value, None if left < 0 else (left or 1) / 1000  # as `_left` has it
                except (ReplyError, TransportError) as error:
                    failure = error
            read = await root._with_expiry(transport, name, failure)
            return None if read is None else (read[0], None if read[1] is None else read[1] / 1000)
        except StoreError as error:
            sign(error, self, "get_with_expiry")
            raise
        finally:
            calls.count -= 1
            if calls.idle is not None:
                calls.leave()

    async def set(self, key: str, value: Value, expires_in: Expiry | None = None, *, keep_ttl: bool = False) -> None:
        """Store the value, replacing value and expiry in one step; None: it never expires.

        ``keep_ttl`` keeps the expiry that the key has; it can't be given together with ``expires_in`` (ValueError).
        """
        root, life = self._root, self._life
        if life.flights.can_be_overtaken or life.watchers:
            await super().set(key, value, expires_in, keep_ttl=keep_ttl)
            return
        near, told = life.coherence, None
        calls = life.calls
        calls.count += 1  # see `Calls`
        try:
            if life.state != OPEN:
                await self._ready()
            transport = root._transports.last
            if transport is None or transport.loop is not get_running_loop():
                transport = root._transports.here()
            if key.__class__ is not str or not key.isascii():
                key_text(key)
            if value.__class__ is not bytes:
                value = value_bytes(value)
            name = self._prefix + key.encode()
            if keep_ttl:
                if expires_in is not None:
                    raise StoreValueError("give expires_in or keep_ttl, not both")
                data = pack(b"SET", name, value, b"KEEPTTL")
            elif expires_in is None:
                data = b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(name), name, len(value), value)
            else:
                if expires_in.__class__ is int and 0 < expires_in < SHORT_ENOUGH:
                    span = b"%d000" % expires_in
                else:
                    span = b"%d" % milliseconds(expires_in)
                if span[0] in _ENDED:
                    data = pack(b"UNLINK", name)
                else:
                    data = _SET_PX % (len(name), name, len(value), value, len(span), span)
            if near is not None and near.concerns(self._path):
                told = (str.__str__(key),)
                near.begin(self._path, told)
            try:
                await transport.call(data, name)
            except (ReplyError, TransportError) as error:
                await root._again(transport, error, data, name, WRITE)
        except StoreError as error:
            sign(error, self, "set")
            raise
        finally:
            if told is not None and near is not None:
                near.end(self._path, told)
            calls.count -= 1
            if calls.idle is not None:
                calls.leave()

    # ------------------------------------------------------------------ the hooks

    async def do_get(self, path: tuple[str, ...], key: str, renew: int | None) -> bytes | None:
        """GET, or the script that renews an entry with an expiry."""
        name = self._key(path, key)
        if renew is None:
            value: bytes | None = await self._do(pack(b"GET", name), name, READ)
            return value
        renewed: bytes | None = await self._run(protocol.GET_AND_RENEW, name, WRITE if renew > 0 else ONCE, renew)
        return renewed

    async def do_set(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None, keep_ttl: bool) -> None:
        """SET."""
        name = self._key(path, key)
        await self._do(pack(b"SET", name, value, *_terms(expiry, keep_ttl)), name, WRITE)

    async def do_delete(self, path: tuple[str, ...], key: str) -> bool:
        """UNLINK."""
        name = self._key(path, key)
        return bool(await self._do(pack(b"UNLINK", name), name, WRITE))

    async def do_exists(self, path: tuple[str, ...], key: str) -> bool:
        """EXISTS."""
        name = self._key(path, key)
        return bool(await self._do(pack(b"EXISTS", name), name, READ))

    async def do_expires_in(self, path: tuple[str, ...], key: str) -> int | None:
        """PTTL."""
        name = self._key(path, key)
        left = int(await self._do(pack(b"PTTL", name), name, READ))
        # With 0 there is less than a millisecond left.
        return None if left == -2 else left or 1

    async def do_get_many(self, path: tuple[str, ...], keys: list[str]) -> dict[str, bytes]:
        """MGET, or on a Cluster one GET per key, all in one round trip."""
        names = await self._names(path, keys)
        if self._transports.here().spreads:
            values, error = await self._do_all(names, lambda at: pack(b"GET", names[at]), READ)
        else:
            replies, error = await self._do_all(
                names[::CHUNK], lambda at: pack(b"MGET", *names[at * CHUNK : (at + 1) * CHUNK]), READ
            )
            values = []
            for reply in replies:
                values += [MISSING] * CHUNK if reply is MISSING else reply
        found: dict[str, bytes] = {}
        for at in range(0, len(keys), BATCH):
            if at:
                await asyncio.sleep(0)
            pairs = zip(keys[at : at + BATCH], values[at : at + BATCH], strict=False)
            found.update({key: value for key, value in pairs if value is not None and value is not MISSING})
        if error is not None:
            raise _with_partial(error, None if all(value is MISSING for value in values) else found)
        return found

    async def do_set_many(self, path: tuple[str, ...], items: dict[str, bytes], expiry: int | None) -> None:
        """One SET per key, all in one round trip."""
        terms = _terms(expiry, False)
        names, values = await self._names(path, items), list(items.values())
        _, error = await self._do_all(names, lambda at: pack(b"SET", names[at], values[at], *terms), WRITE)
        if error is not None:
            raise error

    async def do_delete_many(self, path: tuple[str, ...], keys: list[str]) -> int:
        """UNLINK, on a Cluster one per key, all in one round trip."""
        names = await self._names(path, keys)
        size = 1 if self._transports.here().spreads else CHUNK
        replies, error = await self._do_all(
            names[::size], lambda at: pack(b"UNLINK", *names[at * size : (at + 1) * size]), WRITE
        )
        counts = [reply for reply in replies if reply is not MISSING]
        if error is not None:
            raise _with_partial(error, sum(counts) if counts else None)
        return sum(counts)

    async def do_delete_all(self, path: tuple[str, ...]) -> None:
        """SCAN and UNLINK in turns that are short for the server."""
        if not path:
            raise UnsupportedOperationError(
                "this store has no namespace, so delete_all would delete what others keep in the database"
            )
        try:
            await delete_tree(self._transports.here(), self._layout.tree_glob(path), self._layout.tree(path))
        except (ReplyError, TransportError) as error:
            raise self._failure(error, WRITE) from error

    async def do_keys(self, path: tuple[str, ...], prefix: str) -> AsyncIterator[str]:
        """SCAN."""
        start = len(self._layout.prefix(path))
        try:
            async for names in walk(self._transports.here(), self._layout.glob(path, prefix)):
                for name in names:
                    with suppress(UnicodeDecodeError):  # no key of ours
                        yield name[start:].decode()
        except (ReplyError, TransportError) as error:
            raise self._failure(error, READ) from error

    async def do_walk(self, path: tuple[str, ...]) -> AsyncIterator[tuple[tuple[str, ...], str]]:
        """SCAN."""
        if not path:
            async for key in self.do_keys((), ""):
                yield (), key
            return
        ours = self._layout.tree(path)
        try:
            async for names in walk(self._transports.here(), self._layout.tree_glob(path)):
                for name in names:
                    if (found := ours.match(name)) is not None:
                        with suppress(UnicodeDecodeError):  # no key of ours
                            yield self._layout.split(name, path, found.end())
        except (ReplyError, TransportError) as error:
            raise self._failure(error, READ) from error

    async def do_add(self, path: tuple[str, ...], key: str, value: bytes, expiry: int | None) -> bool:
        """SET NX."""
        if expiry is not None and expiry <= 0:
            return not await self.do_exists(path, key)
        name = self._key(path, key)
        return await self._do(pack(b"SET", name, value, b"NX", *_terms(expiry, False)), name, ONCE) is not None

    @property
    def _numbers_in_one_step(self) -> bool:
        return self._has_all_keys and not self._transports.here().spreads

    async def _do_add_numbered(
        self, path: tuple[str, ...], key: str, value: bytes, expiry: int, counter: str
    ) -> int | None:
        """A script on two keys, which one node of a Cluster refuses that is used as a server."""
        names = self._key(path, key), self._key(path, counter)
        try:
            number = await self._run(protocol.ADD_NUMBERED, names[0], ONCE, names[1], value, expiry)
        except StoreError as error:
            if isinstance(error.__cause__, ReplyError) and code_of(error.__cause__) == "CROSSSLOT":
                self._has_all_keys = False
                raise UnsupportedOperationError("the server is a node of a Cluster") from error
            raise
        return None if number is None else int(number)

    async def do_touch(self, path: tuple[str, ...], key: str, expiry: int | None) -> bool:
        """PEXPIRE, UNLINK for an expiry that is over, and a script for an entry that becomes permanent."""
        name = self._key(path, key)
        if expiry is None:
            return bool(await self._run(protocol.PERSIST, name, WRITE))
        if expiry <= 0:
            return bool(await self._do(pack(b"UNLINK", name), name, ONCE))
        return bool(await self._do(pack(b"PEXPIRE", name, expiry), name, WRITE))

    async def do_pop(self, path: tuple[str, ...], key: str) -> bytes | None:
        """GETDEL, or a script on servers older than 6.2."""
        name = self._key(path, key)
        if self._has_getdel:
            try:
                value: bytes | None = await self._do(pack(b"GETDEL", name), name, ONCE)
                return value
            except UnsupportedOperationError:
                self._has_getdel = False
        popped: bytes | None = await self._run(protocol.POP, name, ONCE)
        return popped

    async def do_increment(self, path: tuple[str, ...], key: str, by: int, expiry: int | None) -> int:
        """INCRBY, or a script where creation brings an expiry."""
        name = self._key(path, key)
        if expiry is None:
            return int(await self._do(pack(b"INCRBY", name, by), name, ONCE))
        return int(await self._run(protocol.INCREMENT, name, ONCE, by, expiry, int(expiry <= 0)))

    async def do_compare_and_set(
        self,
        path: tuple[str, ...],
        key: str,
        old: bytes | None,
        new: bytes | None,
        expiry: int | None,
        keep_ttl: bool,
    ) -> bool:
        """A script that compares and sets."""
        name = self._key(path, key)
        how = b"delete" if new is None else b"keep" if keep_ttl else b"set" if expiry is None else b"expire"
        arguments = (int(old is not None), old or b"", how, new or b"", expiry or 0)
        return bool(await self._run(protocol.REPLACE, name, ONCE, *arguments))

    async def do_get_with_expiry(self, path: tuple[str, ...], key: str) -> tuple[bytes, int | None] | None:
        """A script that reads both, or for users who may only read three commands."""
        transport = self._transports.here()
        if (near := self._life.coherence) is not None:
            transport.listen(self._invalidations or self._listening(near))
        return await self._with_expiry(transport, self._key(path, key))

    def _listening(self, near: Coherence) -> InvalidationFilter:
        """Return the listener to the server for those near caches."""
        self._invalidations = InvalidationFilter(near, self._layout, self._path)
        return self._invalidations

    async def _with_expiry(
        self, transport: Transport, name: bytes, failure: Exception | None = None
    ) -> tuple[bytes, int | None] | None:
        """Read both; ``failure`` is the error of the script on that transport, if it was tried already."""
        if not self._reads_by_script:
            return await self._read_with_expiry(name)
        try:
            if failure is None:
                found = await self._run_on(transport, protocol.GET_WITH_EXPIRY, name, READ)
            else:
                found = await self._run_again(transport, failure, protocol.GET_WITH_EXPIRY, name, READ)
        except StoreError as error:
            if not isinstance(error.__cause__, ReplyError) or not is_forbidden(error.__cause__):
                raise
            read = await self._read_with_expiry(name)
            self._reads_by_script = False
            return read
        return None if found is None else (found[0], _left(found[1]))

    async def _read_with_expiry(self, name: bytes) -> tuple[bytes, int | None] | None:
        """Read value and expiry without a script, which servers count as writing: for users who may only read.

        The expiry is read before and after the value. Where both are the same point in time, the value had it, unless
        the key was set twice in between; and other clients come in between only where the three commands arrive apart.
        """
        transport = self._transports.here()
        get, pttl = pack(b"GET", name), pack(b"PTTL", name)
        clock, deadline = transport.loop.time, transport.loop.time() + transport.timeout
        while True:
            began = clock()
            try:
                before, value, after = await transport.read_in_order((pttl, get, pttl), name)
            except (ReplyError, TransportError) as error:
                raise self._failure(error, READ) from error
            if value is None or after == -2:
                return None
            if before == after or (0 <= after <= before and before - after <= (clock() - began) * 1000 + 1):
                return value, _left(after)
            if clock() > deadline:
                raise StoreTimeoutError(f"the expiry of the key did not stop changing for {transport.timeout:g} s")

    def do_raw_key(self, path: tuple[str, ...], key: str) -> str:
        """Return the server's key."""
        return self._key(path, key).decode()

    async def do_ping(self, path: tuple[str, ...]) -> str | None:
        """Ask the server for its version; tell the topology, TLS, and where it is."""
        try:
            return await self._transports.here().describe(self._layout.prefix(path) or b"storeconf")
        except (ReplyError, TransportError) as error:
            raise self._failure(error, READ) from error


def _left(reply: int) -> int | None:
    """The milliseconds that PTTL tells of a key that is there: None for a permanent one, and 0 is less than one."""
    return None if reply < 0 else reply or 1


def _with_partial(error: StoreError, partial: dict[str, bytes] | int | None) -> StoreError:
    """Add the results of the servers that answered to the error of another one that did not."""
    if isinstance(error, StoreUnavailableError | StoreTimeoutError):
        error.partial = partial
    return error


class RedisStore(ServerStore):
    """Keys and values on Redis: one server, a Cluster, or a service that Sentinels watch.

    ``redis`` is a client of ``redis.asyncio``. Its settings are used, and calls from many tasks share one
    connection; a client of another class serves the calls itself. The client is borrowed, unless
    ``handle_client_shutdown`` says that the store closes it.

    ``namespace`` is ``LITESTAR`` unless another is given, as in Litestar; with None keys are raw, and the store can be
    no parent. Keys are storeconf's, whatever the namespace; ``key_layout="litestar"`` shares an existing deployment's.
    """

    driver = "redis"
    default_url = "redis://localhost:6379"

    def new_client(self) -> Redis | RedisCluster:
        """See `Store.new_client`: a client of ``redis.asyncio``."""
        return self._new_client(blocking=False)  # type: ignore[no-any-return]  # made by name

    def __init__(
        self,
        redis: Any,
        namespace: str | None = "LITESTAR",
        handle_client_shutdown: bool = False,
        *,
        key_layout: Layout = "storeconf",
    ) -> None:
        owned = redis if handle_client_shutdown else None
        super().__init__(self.transport_factory_of(redis), namespace=namespace, key_layout=key_layout, client=owned)


class ValkeyStore(ServerStore):
    """Keys and values on Valkey: one server, a Cluster, or a service that Sentinels watch.

    ``valkey`` is a client of ``valkey.asyncio``. Its settings are used, and calls from many tasks share one
    connection; a client of another class serves the calls itself. The client is borrowed, unless
    ``handle_client_shutdown`` says that the store closes it.

    ``namespace`` is ``LITESTAR`` unless another is given, as in Litestar; with None keys are raw, and the store can be
    no parent. Keys are storeconf's, whatever the namespace; ``key_layout="litestar"`` shares an existing deployment's.
    """

    driver = "valkey"
    default_url = "valkey://localhost:6379"

    def new_client(self) -> Valkey | ValkeyCluster:
        """See `Store.new_client`: a client of ``valkey.asyncio``."""
        return self._new_client(blocking=False)  # type: ignore[no-any-return]  # made by name

    def __init__(
        self,
        valkey: Any,
        namespace: str | None = "LITESTAR",
        handle_client_shutdown: bool = False,
        *,
        key_layout: Layout = "storeconf",
    ) -> None:
        owned = valkey if handle_client_shutdown else None
        super().__init__(self.transport_factory_of(valkey), namespace=namespace, key_layout=key_layout, client=owned)


def _terms(expiry: int | None, keep_ttl: bool) -> tuple[bytes | int, ...]:
    """The arguments of SET about expiry."""
    return (b"KEEPTTL",) if keep_ttl else () if expiry is None else (b"PX", expiry)
