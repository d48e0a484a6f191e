"""The errors below a store, and the one table by which they become a `StoreError`.

Three kinds of failure arrive here: an error reply of the server (`ReplyError`), a failure on the way to it
(`TransportError` and its subclasses), and an exception of a client library (only from clients that are called through
their own methods). Imports no client library: their exceptions are known by name.
"""

from __future__ import annotations

import os
import re
import socket

from storeconf.errors import (
    StoreError,
    StoreRefusedError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreValueError,
    UnsupportedOperationError,
)

__all__ = [
    "DRIVER_ERRORS",
    "SendBufferFullError",
    "NotConnectedError",
    "TransportError",
    "ReplyTimeoutError",
    "ConnectionLostError",
    "LoginRefusedError",
    "ProtocolError",
    "ReplyError",
    "code_of",
    "from_driver",
    "is_forbidden",
    "is_temporary",
    "severity",
    "translate",
]


class ReplyError(Exception):
    """An error reply; its text begins with a code in capitals. ``sent``: other parts of the call took effect."""

    sent = False


class ProtocolError(Exception):
    """The bytes that came over a connection are not RESP."""


class TransportError(Exception):
    """A connection failed a command. ``sent``: it may have been executed; ``waited``: at most so many seconds."""

    sent = False

    def __init__(self, message: str, *, waited: float = 0.0, cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.waited = waited
        self.__cause__ = cause


class NotConnectedError(TransportError):
    """Without a connection, the command was not sent."""


class LoginRefusedError(NotConnectedError):
    """The server refused the user or the password; ``rotating``: it has accepted this store's before."""

    def __init__(self, message: str, *, rotating: bool, cause: BaseException | None = None) -> None:
        super().__init__(message, cause=cause)
        self.rotating = rotating


class SendBufferFullError(TransportError):
    """So much waits for a server that does not read that the command was refused."""


class ConnectionLostError(TransportError):
    """The connection broke after the command was sent and before its reply came."""

    sent = True


class ReplyTimeoutError(TransportError):
    """No reply came in time."""

    def __init__(self, message: str, *, sent: bool, cause: BaseException | None = None) -> None:
        super().__init__(message, cause=cause)
        self.sent = sent


_REPLIES: tuple[tuple[re.Pattern[str], type[StoreError], str | None], ...] = tuple(
    (re.compile(pattern), kind, text)
    for pattern, kind, text in (
        (r"^WRONGTYPE\b", StoreValueError, "the key holds a non-string value, probably another application's"),
        (r"value is not an integer", StoreValueError, "the value is not a signed 64-bit decimal integer"),
        (r"increment or decrement would overflow", StoreValueError, "the counter would leave the signed 64-bit range"),
        (r"string exceeds maximum allowed size|Protocol error: invalid bulk length", StoreValueError, None),
        (r"invalid expire time", StoreValueError, "the expiry is more than the server can hold"),
        (r"^(OOM|READONLY|MISCONF|NOREPLICAS)\b", StoreRefusedError, None),
        (r"^(LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY)\b", StoreUnavailableError, None),
        (r"^(MOVED|ASK)\b", StoreUnavailableError, "too many cluster redirections"),
        (r"^(ERR )?max number of clients", StoreUnavailableError, None),
        (r"^(ERR )?unknown (sub)?command", UnsupportedOperationError, None),
        # Rights without which a store still gets, sets and deletes.
        (r"^NOPERM .*'(scan|eval|evalsha|getdel|pttl)' command", UnsupportedOperationError, None),
        (r"", StoreError, None),
    )
)
"""Error replies without a script's preamble; the first match counts: its class, and a text instead of the server's."""

DRIVER_ERRORS: dict[str, type[TransportError] | type[ReplyError]] = {
    "AskError": ReplyError,
    "AuthenticationError": ReplyError,
    "AuthenticationWrongNumberOfArgsError": ReplyError,
    "AuthorizationError": ReplyError,
    "BusyLoadingError": ReplyError,
    "ChildDeadlockedError": ConnectionLostError,
    "ClusterCrossSlotError": ReplyError,
    "ClusterDownError": ReplyError,
    "ClusterError": ConnectionLostError,
    "ConnectionError": ConnectionLostError,
    "CrossSlotTransactionError": ReplyError,
    "DataError": ReplyError,
    "ExecAbortError": ReplyError,
    "ExternalAuthProviderError": NotConnectedError,
    "IncorrectPolicyType": ReplyError,
    "InvalidPipelineStack": ReplyError,
    "InvalidResponse": ConnectionLostError,
    "LockError": ReplyError,
    "LockNotOwnedError": ReplyError,
    "MasterDownError": ReplyError,
    "MaxConnectionsError": NotConnectedError,
    "ModuleError": ReplyError,
    "MovedError": ReplyError,
    "NoPermissionError": ReplyError,
    "NoScriptError": ReplyError,
    "NoSuchFieldsetError": ReplyError,
    "OutOfMemoryError": ReplyError,
    "PubSubError": ReplyError,
    "ReadOnlyError": ReplyError,
    "RedisClusterException": ConnectionLostError,
    "RedisError": ConnectionLostError,
    "ResponseError": ReplyError,
    "SlotNotCoveredError": ReplyError,
    "TimeoutError": ReplyTimeoutError,
    "TryAgainError": ReplyError,
    "ValkeyClusterException": ConnectionLostError,
    "ValkeyError": ConnectionLostError,
    "WatchError": ReplyError,
}
"""The client libraries' exceptions by name, and the failure that each means."""

_CODES = {
    "AskError": "ASK",
    "AuthenticationError": "NOAUTH",
    "AuthenticationWrongNumberOfArgsError": "NOAUTH",
    "AuthorizationError": "NOAUTH",
    "BusyLoadingError": "LOADING",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
    "MovedError": "MOVED",
    "NoPermissionError": "NOPERM",
    "NoScriptError": "NOSCRIPT",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "SlotNotCoveredError": "CLUSTERDOWN",
    "TryAgainError": "TRYAGAIN",
}
"""The codes that the libraries cut off the texts of the replies which they turn into exceptions."""

_PREAMBLE = re.compile(
    r"(ERR )?Error running script \(call to \w+\): (@user_script: ?\d+: )+-?"  # servers older than 7
    r"|(EXECABORT )?Transaction discarded because of: -?"
)
_TEMPORARY = re.compile(r"(LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|READONLY)\b|(ERR )?max number of clients")
_FORBIDDEN = re.compile(r"NOPERM\b|(ERR )?unknown (sub)?command")
_ARGUMENTS = re.compile(r",? with args beginning with:.*", re.DOTALL)
_SCRIPT = re.compile(r"\s*(script: ([0-9a-f]+, )?on @|@)user_script.*", re.DOTALL)


def _bare(error: ReplyError) -> str:
    """The text of an error reply, without the prefix that a script or a transaction puts before its command's error."""
    return _PREAMBLE.sub("", str(error), count=1)


def code_of(error: ReplyError) -> str:
    """Return the word that begins the reply, which is its code: also for an error in a script or a transaction."""
    return _bare(error).partition(" ")[0]


def is_temporary(error: ReplyError) -> bool:
    """Whether the server refused the command without executing it, and may take it a moment later."""
    return _TEMPORARY.match(_bare(error)) is not None


def is_forbidden(error: ReplyError) -> bool:
    """Whether the server does not know the command, or this user may not use it."""
    return _FORBIDDEN.match(_bare(error)) is not None


def from_driver(error: Exception, label: str, *, repeats: bool = True) -> Exception:
    """Turn an error of a client library into a `ReplyError` or `TransportError`; anything else comes back as it is.

    ``label`` names the client and the store in messages; ``repeats``: the client may have sent the command before.
    """
    for kind in type(error).__mro__:
        if kind.__module__.partition(".")[0] in ("redis", "valkey") and kind.__name__ in DRIVER_ERRORS:
            failure = DRIVER_ERRORS[kind.__name__]
            if not issubclass(failure, TransportError):
                code = _CODES.get(kind.__name__)
                text = str(error)
                return ReplyError(f"{code} {text}" if code is not None and not text.startswith(code) else text)
            if failure is ReplyTimeoutError:
                return ReplyTimeoutError(f"{label} got no reply in time", sent=True, cause=error)
            if failure is ConnectionLostError and not repeats and _never_connected(error):
                return NotConnectedError(f"{label} can't connect: {reason(error)}", cause=error)
            text = f"{label} lost its connection or never had one: {reason(error)}"
            return failure(text, cause=error)
    if isinstance(error, TimeoutError):
        return ReplyTimeoutError(f"{label} got no reply in time", sent=True, cause=error)
    if isinstance(error, OSError):
        return ConnectionLostError(f"{label} lost its connection: {reason(error)}", cause=error)
    return error


def _never_connected(error: BaseException | None) -> bool:
    """Whether a client's failure comes from one to connect."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError | FileNotFoundError | socket.gaierror):
            return True
        error = error.__cause__ or error.__context__
    return False


def reason(error: BaseException) -> str:
    """Say in a few words why a connection failed, without credentials."""
    if isinstance(error, ReplyError):
        return _shown(str(error))
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        if error.errno and error.strerror.startswith("Connect call failed"):
            return os.strerror(error.errno)  # asyncio's own text has the address in place of the reason
        return error.strerror
    return str(error) or type(error).__name__


def _shown(text: str) -> str:
    """A reply's text without the arguments that the server quotes, which may be values or passwords."""
    return _SCRIPT.sub("", _ARGUMENTS.sub("", text))


def translate(error: ReplyError | TransportError, *, writes: bool) -> StoreError:
    """Return the `StoreError` that callers see for a failed operation."""
    unknown = writes and error.sent
    if isinstance(error, ReplyError):
        return _of_reply(error, None, unknown)
    cause = error.__cause__
    text = str(error)
    if isinstance(cause, ReplyError) and not is_temporary(cause):
        return _of_reply(cause, text, unknown)
    kind = StoreTimeoutError if isinstance(error, ReplyTimeoutError) else StoreUnavailableError
    if unknown:
        text += "; it is unknown whether the operation took effect"
    return kind(text, outcome_unknown=unknown)


def severity(error: ReplyError | TransportError) -> int:
    """Return the rank of a failure among several of one call: callers get the one that a policy may hide least."""
    kind = type(translate(error, writes=False))
    return 0 if kind in (StoreUnavailableError, StoreTimeoutError) else 1 if kind is StoreRefusedError else 2


def _of_reply(error: ReplyError, text: str | None, unknown: bool) -> StoreError:
    """Return the error for an error reply, with ``text`` or else the text of the table or the server."""
    bare = _bare(error)
    kind, replacement = next((kind, replacement) for pattern, kind, replacement in _REPLIES if pattern.search(bare))
    text = text or replacement or f"the server refused: {_shown(bare)}"
    if issubclass(kind, StoreRefusedError):
        return kind(text, code=code_of(error), outcome_unknown=unknown)
    return kind(text, outcome_unknown=unknown)
