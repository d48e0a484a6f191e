"""``encrypt``: store values so that only holders of the key can read or change them.

AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce for each value, under a key that HKDF-SHA256 (RFC 5869) derives
from the configured text and a random 128-bit salt stored with the value. A store takes a new salt long before as many
values are encrypted under one key as the specification allows for random nonces (2^32), so that nonces do not repeat,
however many values there are. The namespace path and the key are authenticated with the value, which therefore can't be
moved to another key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from storeconf.errors import PluginError, StoreError
from storeconf.middleware.coded import CodecStore, NotCoded
from storeconf.plugin import BuildContext, Middleware, Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from storeconf.store import Store

__all__ = ["Encrypt"]

MAGIC = b"\x93SCe"
VERSION = 1
_ID, _SALT, _NONCE, _TAG = 8, 16, 12, 16
_PREFIX = MAGIC + bytes((VERSION,))
_HEAD = len(_PREFIX)
_AT_SALT = _HEAD + _ID
_AT_NONCE = _AT_SALT + _SALT
_AT_BODY = _AT_NONCE + _NONCE

_SHORTEST_KEY = 8
"""Characters below which a key deserves a warning; 16 random bytes have 22 in base64."""

_VALUES_PER_SALT = 1 << 20
"""Values that are encrypted under one derived key, also by processes forked since: far below 2^32."""

_MOST_CIPHERS = 1024
"""Derived keys that are kept ready; every process that writes has one or few."""


class Encrypt(Middleware):
    """Encrypt and authenticate values."""

    kind: ClassVar[str] = "encrypt"
    shorthand_field: ClassVar[str | None] = "keys"
    requires_bytes: ClassVar[bool] = True

    keys: tuple[Secret, ...] = Field(
        min_length=1,
        description="Long random texts. The first encrypts, all decrypt: put a new one in front to rotate.",
        examples=[["${file:/run/secrets/sessions}"]],
    )
    accept_plain: bool = Field(
        default=False, description="Read values that were stored before encryption was switched on.", examples=[True]
    )

    @field_validator("keys", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("keys")
    @classmethod
    def _not_empty(cls, value: tuple[Secret, ...]) -> tuple[Secret, ...]:
        if not all(key.get_secret_value() for key in value):
            raise ValueError("a key must not be empty")
        return value

    def warnings(self) -> list[tuple[str, str]]:
        """Keys that are quickly guessed."""
        return [
            (f"keys.{number}", f"a key of less than {_SHORTEST_KEY} characters can be guessed; use a long random text")
            for number, key in enumerate(self.keys)
            if len(key.get_secret_value()) < _SHORTEST_KEY
        ]

    def required_packages(self) -> Mapping[str, str]:
        """The library that encrypts."""
        return {"cryptography": "storeconf[encrypt]"}

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store that encrypts."""
        return EncryptStore(inner, self, context)


class _Key:
    """One configured key: its identifier, and the cipher for values. Threads may use it at once."""

    def __init__(self, text: str) -> None:
        self._secret = hashlib.sha256(b"storeconf encrypt 1" + text.encode()).digest()
        self.identifier = hmac.digest(self._secret, b"identifier", "sha256")[:_ID]
        self._ciphers: dict[bytes, Any] = {}
        self._current: tuple[bytes, Callable[[bytes, bytes, bytes], bytes]]
        self._left = 0

    def encrypt(self, value: bytes, bound_to: bytes) -> bytes:
        """Encrypt a value under a random nonce, and put before it the data that decrypting needs."""
        self._left -= 1
        if self._left < 0:
            salt = os.urandom(_SALT)
            self._current = (_PREFIX + self.identifier + salt, self.cipher(salt).encrypt)
            self._left = _VALUES_PER_SALT - 1
        head, encrypt = self._current
        nonce = os.urandom(_NONCE)
        return b"".join((head, nonce, encrypt(nonce, value, bound_to)))

    def cipher(self, salt: bytes) -> Any:
        """The cipher for values with that salt."""
        cipher = self._ciphers.get(salt)
        if cipher is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
            from cryptography.hazmat.primitives.hashes import SHA256
            from cryptography.hazmat.primitives.kdf.hkdf import HKDF

            if len(self._ciphers) >= _MOST_CIPHERS:
                self._ciphers.clear()
            derivation = HKDF(algorithm=SHA256(), length=32, salt=salt, info=b"value")
            cipher = self._ciphers[salt] = AESGCM(derivation.derive(self._secret))
        return cipher


class EncryptStore(CodecStore):
    """Encrypts with the first key, decrypts with whichever a value names."""

    _runs_without_loop: ClassVar[bool] = True

    def __init__(self, inner: Store, settings: Encrypt, context: BuildContext) -> None:
        try:
            import cryptography  # noqa: F401 - only whether it is there
        except ImportError:
            raise PluginError(
                "the middleware encrypt needs the package cryptography: pip install 'storeconf[encrypt]'",
                code="SC702",
            ) from None
        keys = [_Key(key.get_secret_value()) for key in settings.keys]
        self._first = keys[0]
        self._keys = {key.identifier: key for key in keys}
        self._accept_plain = settings.accept_plain
        self._logger = context.logger
        super().__init__(inner)

    def on_bind(self) -> None:
        """Prepare the data that are authenticated with each value of this namespace, in addition to its key."""
        super().on_bind()
        self._place = "\0".join(("", *self.namespaces)) + "\0\0"

    def encode(self, key: str, value: bytes) -> bytes:
        """Encrypt under the first key."""
        return self._first.encrypt(value, (self._place + key).encode())

    def decode(self, key: str, value: bytes) -> bytes:
        """Decrypt; a key that is not configured is StoreError, because a miss would hide the mistake."""
        if value[:_HEAD] != _PREFIX or len(value) < _AT_BODY + _TAG:
            if value.startswith(MAGIC):
                raise NotCoded("it has a format that this version does not know")
            if self._accept_plain:
                return value
            raise NotCoded("it was not encrypted (accept_plain: true would read it)")
        known = self._keys.get(value[_HEAD:_AT_SALT])
        if known is None:
            raise StoreError(
                f"store {self.name!r}: a value is encrypted with a key that is not among the configured ones",
                store=self.name,
            )
        decrypt = known.cipher(value[_AT_SALT:_AT_NONCE]).decrypt
        try:
            plain: bytes = decrypt(value[_AT_NONCE:_AT_BODY], value[_AT_BODY:], (self._place + key).encode())
        except Exception as error:
            from cryptography.exceptions import InvalidTag

            if not isinstance(error, InvalidTag):
                raise
            raise NotCoded("it is damaged, or was moved here from another key") from error
        return plain
