"""Sessions that are kept on a store, as plain ASGI middleware: no framework is imported here."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from storeconf.errors import StoreError, StoreTimeoutError, StoreUnavailableError
from storeconf.integrations import SessionBounds, check_age
from storeconf.registry import StoreRegistry, load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from storeconf.store import Store

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = [
    "DEFAULT_AGE",
    "DEFAULT_STORE",
    "STATE",
    "Session",
    "SessionMiddleware",
    "Source",
    "registry_from",
    "registry_in",
]

Source: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | StoreRegistry | None
"""A source of `storeconf.load`, or an existing registry."""


def registry_from(source: Source, environment: str | None) -> StoreRegistry:
    """Return the registry of a layout, or the given one."""
    if not isinstance(source, StoreRegistry):
        return load(source, environment=environment)
    if environment is not None:
        raise ValueError("environment applies to a layout; a registry is already loaded")
    return source


# ---------------------------------------------------------------- sessions


STATE = "storeconf_registry"
"""The name of the registry in the state of a running application."""

DEFAULT_AGE = 14 * 24 * 60 * 60
"""Seconds that a session lives if neither the application nor the layout sets an expiry."""

DEFAULT_STORE = "sessions"

_BYTES = 32
_IDENTIFIER = re.compile(rb"[A-Za-z0-9_-]{43}\Z")
_COOKIE_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_MOST_IDENTIFIERS = 4
"""Cookies of our name that are looked up: other hosts of the domain may have set some."""

_FRESH = 0.9
"""The part of its lifetime that a session has to have left not to be renewed."""

_TOLERANCE = 1.0
"""Seconds that a session may have left beyond its lifetime before it is cut: servers round."""

_MOST_TRIES = 1_000
"""Far more than concurrent requests of one browser need; a store that never takes a change is broken."""

_STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")

_logger = logging.getLogger("storeconf")


def registry_in(scope: Mapping[str, Any]) -> StoreRegistry:
    """Return the registry of the application that serves a request or WebSocket.

    The lifespan's state reaches mounted applications, too; where the server hands none on, it is the application's.
    """
    registry = _registry_in(scope)
    if registry is None:
        raise RuntimeError(
            "this application has no registry: give it lifespan=storeconf.integrations.starlette.lifespan(…), and in "
            "tests enter the client as a context manager, because only that runs a lifespan"
        )
    return registry


def _registry_in(scope: Mapping[str, Any]) -> StoreRegistry | None:
    registry = scope.get("state", {}).get(STATE)
    if registry is None and "app" in scope:
        registry = getattr(scope["app"].state, STATE, None)
    return registry  # type: ignore[no-any-return]  # the state of an application is untyped


class Session(dict[str, Any]):
    """The session of a request: a dict of JSON values."""

    accessed = False
    rotated = False
    rotated_at: float | None = None

    def mark_accessed(self) -> None:
        """Remember that the response depends on the session; Starlette calls it for ``request.session``."""
        self.accessed = True


class SessionMiddleware:
    """Keep ``request.session`` on a store; the browser holds only a random identifier.

    The session is a dict of JSON values. It is stored when it has changed, and is deleted when it is emptied.
    Concurrent requests keep each other's changes to different keys, and none restores a session that another has
    ended. Unknown identifiers are never adopted: a session begins with a new one.

    A session ends ``max_age`` seconds after its last use, give or take a tenth, and so does its cookie. Without
    ``max_age`` the layout decides: the expiry is the store's ``ttl.default``, else its ``ttl.max``, else 14 days, and
    reading gives the session the expiry of ``ttl.renew_on_get``. A ``max_age`` above ``ttl.max`` is reduced to it.

    With ``absolute_max_age`` a session ends so many seconds after it began, however much it is used, measured by the
    store's clock. With ``user_key``, the key under which the application keeps the user's identifier (a str or an int),
    `revoke_sessions` ends all sessions of one user, which costs one more read of the store for each request of a user
    who is logged in; and a login counts as the beginning of a session.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        store: str = DEFAULT_STORE,
        cookie: str = "session",
        max_age: int | None = None,
        absolute_max_age: float | None = None,
        user_key: str | None = None,
        path: str = "/",
        same_site: Literal["lax", "strict", "none"] = "lax",
        https_only: bool = False,
        domain: str | None = None,
    ) -> None:
        if _COOKIE_NAME.match(cookie) is None:
            raise ValueError(f"{cookie!r} is not a valid cookie name")
        if max_age is not None and max_age <= 0:
            raise ValueError(f"max_age must be above zero, not {max_age}")
        if not https_only and (same_site == "none" or cookie.startswith(("__Host-", "__Secure-"))):
            raise ValueError(f"browsers accept a cookie {cookie!r} with SameSite={same_site} only with https_only=True")
        self.app = app
        self.store = store
        self.cookie = cookie
        self.max_age = max_age
        self.absolute_max_age: float | None = check_age(absolute_max_age)
        self.user_key = user_key
        self._reduced_to: float | None = None
        self._name = cookie.encode()
        self._attributes = f"Path={path}; HttpOnly; SameSite={same_site}"
        if https_only:
            self._attributes += "; Secure"
        if domain is not None:
            self._attributes += f"; Domain={domain}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket with its session."""
        if scope["type"] == "lifespan":
            await self._start(scope, receive, send)
            return
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        store = registry_in(scope).require(self.store)
        visit = _Visit(store, self._lifetime(store), SessionBounds(store, self.absolute_max_age, self.user_key))
        await visit.load(self._identifiers(scope))
        scope["session"] = visit.session
        started = False

        async def send_with_session(message: Message) -> None:
            nonlocal started
            if not started and message["type"] in _STARTS:
                started = True
                headers = [*(message.get("headers") or ())]
                identifier = await visit.save(scope["session"])
                if identifier is not None:
                    headers.append((b"set-cookie", self._set_cookie(identifier, visit.age)))
                if identifier is not None or getattr(scope["session"], "accessed", False):
                    headers.append((b"vary", b"Cookie"))
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_with_session)
        # While a body was streamed, or a WebSocket was open, the session may have changed once more.
        if started:
            await visit.save(scope["session"], late=True)

    async def _start(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on the start of an application; make it fail if the store does not exist."""

        async def send_if_right(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                registry = _registry_in(scope)
                if registry is not None:
                    self._lifetime(registry.require(self.store))
            await send(message)

        await self.app(scope, receive, send_if_right)

    def _lifetime(self, store: Store) -> _Lifetime:
        """How long sessions live; asked of the store for each request, because its layout may be read again."""
        rules = store.expiry_rules
        if self.max_age is None:
            expiry = store.default_expiry
            stored = DEFAULT_AGE if expiry is None else expiry
            return _Lifetime(stored, stored if rules.renewal is None else rules.renewal)
        if rules.max is None or self.max_age <= rules.max:
            return _Lifetime(self.max_age, self.max_age)
        if self._reduced_to != rules.max:
            self._reduced_to = rules.max
            _logger.warning(
                "the max_age of SessionMiddleware, %g s, is above the ttl.max of store %r, %g s; sessions live %g s",
                self.max_age,
                store.name,
                rules.max,
                rules.max,
            )
        return _Lifetime(rules.max, rules.max)

    def _identifiers(self, scope: Scope) -> list[str]:
        """The cookies that may be identifiers of sessions."""
        found: dict[str, None] = {}
        for header, line in scope["headers"]:
            if header == b"cookie":
                for part in line.split(b";"):
                    name, _, value = part.strip().partition(b"=")
                    if name == self._name and _IDENTIFIER.match(value) is not None:
                        found[value.decode()] = None
        return list(found)[:_MOST_IDENTIFIERS]

    def _set_cookie(self, identifier: str, age: float) -> bytes:
        seconds = math.ceil(age) if identifier else 0
        return f"{self.cookie}={identifier}; {self._attributes}; Max-Age={seconds}".encode()


class _Lifetime(NamedTuple):
    """Seconds that a session lives after it was stored, and after it was read."""

    stored: float
    read: float


class _Visit:
    """The session of one request or WebSocket, and its stored form."""

    def __init__(self, store: Store, lifetime: _Lifetime, bounds: SessionBounds) -> None:
        self._store = store
        self._lifetime = lifetime
        self._bounds = bounds
        self.age = lifetime.stored  # the seconds that the browser is to keep the cookie
        self._identifier: str | None = None
        self._stored = b""  # the stored form as this request knows it; others may have changed it
        self._known = b"{}"  # the same without the notes on its bounds
        self._left: float | None = None
        self.session = Session()

    async def load(self, identifiers: list[str]) -> None:
        """Take the first of the sessions that is there."""
        for identifier in identifiers:
            found = await self._store.get_with_expiry(identifier)
            values = None if found is None else self._decode(found[0])
            if found is None or values is None:
                continue
            if not await self._bounds.admit(identifier, values, found[1]):
                continue
            self._identifier, self._stored, self._left = identifier, *found
            self._known = _encode(values)
            self.session.update(values)
            return

    async def save(self, session: Mapping[str, Any], *, late: bool = False) -> str | None:
        """Update the store; return the identifier to set in the browser, "" to remove it, None to leave it."""
        before = self._identifier
        data = _encode(session)
        rotated = getattr(session, "rotated", False)
        rotated_at = getattr(session, "rotated_at", None) or (time.time() if rotated else None)
        if not session or not await self._bounds.prepare(session, rotated_at):
            self._identifier = None
            if before is not None:
                await self._store.delete(before)
            return None if before is None else ""
        if late and (before is None or rotated):
            raise RuntimeError(
                "a session began, or needed a new identifier, after the response had started: too late for a cookie"
            )
        if before is None or rotated:
            return await self._begin(session, data)
        if data != self._known:
            return before if await self._update(before, session, self._lifetime.stored) and not late else None
        if late or self._is_fresh():
            return None
        if self._bounds.rest is not None:  # the notes go with the expiry
            return before if await self._update(before, session, self._lifetime.read) else None
        if await self._store.get(before, renew_for=self._lifetime.read) is None:
            return None
        self.age = self._lifetime.read
        return before

    def _is_fresh(self) -> bool:
        """Whether the session has so much of its lifetime left that it need not be renewed, and no more than that."""
        if self._left is None:
            return False
        lifetime = self._bounds.within(self._lifetime.read)
        return lifetime * _FRESH <= self._left <= lifetime + _TOLERANCE

    async def _begin(self, session: Mapping[str, Any], data: bytes) -> str:
        """Store the session under a new identifier; the old one, if any, is gone first."""
        values = session
        if self._identifier is not None:
            values = self._merge(await self._take(self._identifier), session)
        if isinstance(session, Session):
            session.rotated, session.rotated_at = False, None
        self.age = self._bounds.within(self._lifetime.stored)
        new = self._noted(values, self.age)
        self._identifier, self._stored, self._known = secrets.token_urlsafe(_BYTES), new, data
        await self._store.set(self._identifier, new, self.age)
        return self._identifier

    def _noted(self, values: Mapping[str, Any], expiry: float) -> bytes:
        """The stored form, with the notes on its bounds."""
        return _encode({**values, **self._bounds.noted(expiry)})

    async def _take(self, identifier: str) -> bytes | None:
        """Remove the stored session and return it, in one step if possible: no change of others is lost."""
        if "pop" in self._store.capabilities.atomic:
            return await self._store.pop(identifier)
        found = await self._store.get(identifier)
        await self._store.delete(identifier)
        return found

    async def _update(self, identifier: str, session: Mapping[str, Any], lifetime: float) -> bool:
        """Store this request's changes together with those of others; False if another request ended the session."""
        self.age = expiry = self._bounds.within(lifetime)
        new = self._noted(session, expiry)
        if "compare_and_set" not in self._store.capabilities.atomic:
            await self._store.set(identifier, new, expiry)
        else:
            expected, failures = self._stored, 0
            for _ in range(_MOST_TRIES):
                try:
                    if await self._store.compare_and_set(identifier, expected, new, expiry):
                        break
                except (StoreUnavailableError, StoreTimeoutError):
                    # A layout's policy for outages covers reads, but no compare-and-set: under on_error: miss there is
                    # no session now, without it reading fails as well. If only the reply was lost, nothing is left to
                    # change.
                    failures += 1
                    if failures > 1:
                        raise
                found = await self._store.get(identifier)
                if found is None:
                    return False
                expected, new = found, self._noted(self._merge(found, session), expiry)
            else:
                name = self._store.name
                raise StoreError(f"store {name!r}: the session changed during each of {_MOST_TRIES} tries", store=name)
        self._stored, self._known = new, _encode(session)
        return True

    def _merge(self, found: bytes | None, session: Mapping[str, Any]) -> dict[str, Any]:
        """The stored session, with this request's changes since it read it."""
        before = json.loads(self._known)
        newest = {} if found is None else self._decode(found) or {}
        self._bounds.follow(newest)
        kept = {key: value for key, value in newest.items() if key in session or key not in before}
        changed = {
            key: value
            for key, value in session.items()
            if key not in before or json.dumps(before[key]) != json.dumps(value)
        }
        return kept | changed

    def _decode(self, stored: bytes) -> dict[str, Any] | None:
        try:
            values = json.loads(stored)
        except ValueError:
            values = None
        if isinstance(values, dict):
            return values
        _logger.warning("store %r contains a value that is not a session; it is ignored", self._store.name)
        return None


def _encode(session: Mapping[str, Any]) -> bytes:
    for key in session:
        if not isinstance(key, str):
            raise TypeError(f"the keys of a session must be str, not {key!r}")
    try:
        return json.dumps(session, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise TypeError(f"session[{_culprit(session)!r}] can't be stored as JSON: {error}") from error


def _culprit(session: Mapping[str, Any]) -> str:
    """The key of the first value that is not valid JSON."""
    for key, value in session.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            return key
    return ""
