"""Who a store is at its server: fixed, read again from files for each connection, or what a provider gives."""

from __future__ import annotations

import asyncio
import inspect
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storeconf._threads import OwnThread
from storeconf.stores.resp.options import ServerUrl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storeconf.plugin import ValueSource

__all__ = ["Credentials", "Login"]

log: logging.Logger = logging.getLogger("storeconf.stores")


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """What AUTH takes: nothing, a password, or a user and a password. Its repr shows nothing, so no traceback does."""

    words: tuple[str, ...]


class Credentials:
    """The user and the password of all connections to a server, a Cluster or the Sentinels, in every event loop.

    ``sources`` has those that came from files: ``username``, ``password``, and ``url`` where the URL holds them.
    ``provider`` is a credential provider of the client libraries and takes the place of all others.
    """

    def __init__(
        self,
        username: str | None = None,
        password: str | None = None,
        *,
        provider: Any = None,
        url: str | None = None,
        sources: Mapping[str, ValueSource] | None = None,
    ) -> None:
        self.username = username
        self.password = password
        self.provider = provider
        self.accepted = False
        """Whether a server has accepted them: a login that is refused later is one that is being changed."""
        self._url = None if url is None else ServerUrl(url)
        self._sources = sources or {}
        self._reading = OwnThread(self._read, "storeconf-credentials")

    async def login(self, label: str, within: float) -> Login:
        """Return what AUTH takes now; files are read again for at most ``within`` seconds. ``label`` is for warnings.

        What can't be read leaves the last value, with a warning.
        """
        if self.provider is not None:
            given = self.provider.get_credentials_async()
            return Login(tuple(await given if inspect.isawaitable(given) else given))
        if self._sources:
            try:
                async with asyncio.timeout(within):
                    failures = await self._reading.run()
            except TimeoutError:
                failures = [f"{self._names()} can't be read: nothing came within {within:.3g} s"]
            for failure in failures:
                log.warning("the credentials for %s stay as they were: %s", label, failure)
        if self.username:
            return Login((self.username, self.password or ""))
        return Login((self.password,) if self.password else ())

    @property
    def origin(self) -> str:
        """Where they come from, as an addition to a message: empty where that is the layout itself, or code."""
        return f" (from {self._names()})" if self._sources else ""

    def _names(self) -> str:
        return " and ".join(dict.fromkeys(map(str, self._sources.values())))

    def _read(self) -> list[str]:
        """Read everything again, in a thread; return why parts of it could not be used."""
        failures = []
        for name, source in self._sources.items():
            try:
                self._take(name, source.read())
            except Exception as error:  # noqa: BLE001 - a plugin's source may fail in any way
                failures.append(str(error) or type(error).__name__)
        return failures

    def _take(self, name: str, text: str) -> None:
        if name == "url":
            assert self._url is not None
            url = ServerUrl(text)
            if url.server != self._url.server:
                raise ValueError(f"the URL from {self._sources[name]} now differs in more than user and password")
            self.username, self.password = url.login
        elif text:
            setattr(self, name, text)
        else:
            raise ValueError(f"{self._sources[name]} is empty")

    def __repr__(self) -> str:
        return f"<Credentials{self.origin}>"
