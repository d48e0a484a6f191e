"""TLS contexts from files: made in a thread, made again when a file changes, with errors that name the file."""

from __future__ import annotations

import copy
import logging
import os
import ssl
from pathlib import Path
from typing import Any, NoReturn

from storeconf._threads import OwnThread

__all__ = ["Tls", "TlsFileError"]

log: logging.Logger = logging.getLogger("storeconf.stores")


class TlsFileError(Exception):
    """A file with certificates or a key can't be used; the text names it."""


class _EncryptedKeyError(Exception):
    """OpenSSL wants a pass phrase."""


class Tls:
    """The TLS settings of a client library's connection, and the context that they make.

    The library's object is copied and never asked for the client's certificate: OpenSSL would prompt on the terminal
    for the pass phrase of an encrypted key, and its errors name no file.
    """

    def __init__(self, settings: Any) -> None:
        self._settings = settings
        self.ca_file: str | None = settings.ca_certs
        self.cert_file: str | None = settings.certfile
        self.key_file: str | None = settings.keyfile
        self._context: ssl.SSLContext | None = None
        self._seen: list[object] = []
        self._failure: str | None = None  # why changed files are not in use
        self._loading = OwnThread(self.load, "storeconf-tls")

    async def context(self, label: str) -> ssl.SSLContext:
        """Return the context without blocking the event loop, or any thread of its default executor.

        While changed files can't be used, it is the last one, with a warning about the connection to ``label``.
        """
        context = await self._loading.run()
        if self._failure is not None:
            log.warning("TLS to %s goes on with the files as they were: %s", label, self._failure)
        return context

    def load(self) -> ssl.SSLContext:
        """Return the context, made again if a file has changed; raise `TlsFileError` if there is none. This blocks."""
        seen = [_identity(path) for path in (self.ca_file, self.cert_file, self.key_file)]
        if self._context is None or seen != self._seen:
            try:
                self._context = self._make()
            except TlsFileError as error:
                if self._context is None:
                    raise
                self._failure = str(error)
            else:
                self._seen, self._failure = seen, None
        return self._context

    def _make(self) -> ssl.SSLContext:
        for what, path in (
            ("CA file", self.ca_file),
            ("certificate file", self.cert_file),
            ("key file", self.key_file),
        ):
            if path is not None:
                _check_readable(what, path)
        settings = copy.copy(self._settings)
        settings.certfile = settings.keyfile = settings.context = None
        try:
            context: ssl.SSLContext = settings.get()
        except (OSError, ValueError) as error:
            where = "" if self.ca_file is None else f" with the CA file {self.ca_file!r}"
            raise TlsFileError(f"TLS can't be set up{where}: {_reason(error)}") from error
        if self.cert_file is not None:
            self._load_chain(context, self.cert_file)
        return context

    def _load_chain(self, context: ssl.SSLContext, cert_file: str) -> None:
        key = f"the key file {self.key_file!r}" if self.key_file else f"the certificate file {cert_file!r}"
        password = getattr(self._settings, "password", None)
        try:
            context.load_cert_chain(cert_file, self.key_file, password or _refuse)
        except _EncryptedKeyError:
            raise TlsFileError(f"{key} can't be used: its key is encrypted, which is not supported") from None
        except (OSError, ValueError) as error:
            if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
                text = f"{key} holds another key than that of the certificate in {cert_file!r}"
            elif not _holds_certificate(cert_file):
                text = f"the certificate file {cert_file!r} holds no certificate in PEM format"
            else:
                text = f"{key} holds no private key in PEM format that can be used: {_reason(error)}"
            raise TlsFileError(text) from error


def _refuse() -> NoReturn:
    raise _EncryptedKeyError


def _check_readable(what: str, path: str) -> None:
    try:
        os.close(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)))
    except (OSError, ValueError) as error:
        raise TlsFileError(f"the {what} {path!r} can't be read: {_reason(error)}") from error


def _holds_certificate(path: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError:
        return False
    return True


def _identity(path: str | None) -> object:
    """What changes with a file's content; None where the file is missing."""
    try:
        found = None if path is None else Path(path).stat()
    except (OSError, ValueError):
        return None
    return found and (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
