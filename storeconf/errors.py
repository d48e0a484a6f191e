"""The error tree, divided by the people who must act, and the diagnostics of a configuration error.

StoreconfError
├── ConfigError(ValueError)            the author of the files
├── PluginError                        the author or installer of a plugin
├── UnknownStoreError(LookupError)     the application: no store of that name
└── StoreError                         the operator: one operation on one store failed
    ├── StoreUnavailableError(ConnectionError)
    │   └── StoreRefusedError          the server answers, but refused this write
    ├── StoreTimeoutError(TimeoutError)
    ├── StoreDeadlockError(RuntimeError)
    ├── StoreLockBusyError(TimeoutError)
    ├── StoreLockLostError
    ├── StoreClosedError
    ├── StoreReadOnlyError
    ├── StoreValueError(ValueError)
    └── UnsupportedOperationError

Imports nothing of storeconf but the types of diagnostics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable

    from storeconf.diagnostics import Diagnostic

__all__ = [
    "ConfigError",
    "Damage",
    "PluginError",
    "StoreClosedError",
    "StoreDeadlockError",
    "StoreError",
    "StoreLockBusyError",
    "StoreLockLostError",
    "StoreReadOnlyError",
    "StoreRefusedError",
    "StoreTimeoutError",
    "StoreUnavailableError",
    "StoreValueError",
    "StoreconfError",
    "UnknownStoreError",
    "UnsupportedOperationError",
    "describe",
    "report",
]


class StoreconfError(Exception):
    """The root of everything that storeconf raises on purpose."""


class ConfigError(StoreconfError, ValueError):
    """The configuration is wrong; ``diagnostics`` holds every problem that one run found.

    The text of the exception shows each problem with its place and never a secret.
    """

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        from storeconf.diagnostics.render import render_text, summary

        return f"{summary(self.diagnostics)}\n\n{render_text(self.diagnostics)}"


class PluginError(StoreconfError):
    """A plugin is missing, broken, claimed twice, or made for another version of the API.

    ``code`` is its diagnostic code in a layout, ``hint`` is help for fixing it.
    """

    def __init__(self, message: str, *, code: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.args[0]} ({self.hint})" if self.hint else str(self.args[0])


class UnknownStoreError(StoreconfError, LookupError):
    """The registry holds no store of that name and makes none."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class StoreError(StoreconfError):
    """An operation on a store failed.

    ``store`` names the store, ``operation`` the method that was called. ``outcome_unknown`` is true when a write may
    or may not have taken effect (its reply was lost); when it is false, a failed write has changed nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        store: str | None = None,
        operation: str | None = None,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.store = store
        self.operation = operation
        self.outcome_unknown = outcome_unknown


class StoreUnavailableError(StoreError, ConnectionError):
    """The backend can't be reached, or the connection to it was lost.

    ``partial`` is the result of the part of a bulk operation that succeeded: the values found by ``get_many``, the
    number of keys that ``delete_many`` removed. It is None where no part succeeded, and for all other operations.
    """

    partial: dict[str, bytes] | int | None = None


class StoreRefusedError(StoreUnavailableError):
    """The server answers and can be read, but refused this write; nothing has changed.

    ``code`` is the server's error code: ``OOM``, ``READONLY``, ``MISCONF`` or ``NOREPLICAS``.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        store: str | None = None,
        operation: str | None = None,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message, store=store, operation=operation, outcome_unknown=outcome_unknown)
        self.code = code


class StoreTimeoutError(StoreError, TimeoutError):
    """The backend did not answer within the time that the layout allows.

    ``partial`` is as for `StoreUnavailableError`.
    """

    partial: dict[str, bytes] | int | None = None


class StoreDeadlockError(StoreError, RuntimeError):
    """A factory of ``get_or_set`` would wait for its own key, directly or through other keys.

    Or a change that blocks an event loop would wait for a value of its key that this loop is storing.
    """


class StoreLockBusyError(StoreError, TimeoutError):
    """Somebody else holds the lock, and still did when the time to wait for it was over."""


class StoreLockLostError(StoreError):
    """The lease on a lock ended before the body did, so somebody else may have held the lock meanwhile."""


class StoreClosedError(StoreError):
    """The store was closed; opening its registry (or the store itself) again revives every handle."""


class StoreReadOnlyError(StoreError):
    """The ``read_only`` middleware of this store accepts no writes."""


class StoreValueError(StoreError, ValueError):
    """A key, a value, or an expiry that the store can't take."""


class UnsupportedOperationError(StoreError):
    """This backend does not offer the operation."""


def describe(error: BaseException) -> str:
    """The text of an error, with the operation and the store it is about, and whether its outcome is known."""
    if not isinstance(error, StoreError):
        return str(error)
    operation = (error.operation or "").removesuffix("_with_expiry")
    about = f"{operation} on {error.store!r}: " if operation and error.store else ""
    unknown = "; whether it took effect is not known" if error.outcome_unknown else ""
    return f"{about}{error}{unknown}"


# ---------------------------------------------------------------- damage


@dataclass(frozen=True, slots=True)
class Damage:
    """A stored entry that can't be read, and so counts as missing.

    ``store`` is the name of the store that found it, ``namespaces`` its path. Where the damage hides the key, ``key``
    is None. ``raw_key`` is the backend's name for the entry, a file's path for example, if that is known. ``removed``:
    the entry has been removed with the expired ones.
    """

    store: str
    namespaces: tuple[str, ...]
    reason: str
    key: str | None = None
    raw_key: str | None = None
    removed: bool = False

    def __str__(self) -> str:
        if self.removed:
            return f"{self.raw_key} was damaged and has been removed"
        if self.key is None:
            return f"{self.raw_key} is damaged and counts as missing"
        return f"store {self.store!r}: a value reads as missing: {self.reason}"


def report(damage: Damage, listener: Callable[[Damage], None] | None, logger: logging.Logger) -> None:
    """Hand a damaged entry to the listener of its root, or log it where there is none."""
    if listener is None:
        logger.warning("%s", damage)
    else:
        listener(damage)
