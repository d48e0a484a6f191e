"""A resolver for storeconf: `${secretbox:db_password}` is read from an encrypted file next to the layout.

The file is JSON, ``{"secretbox": 1, "secrets": {name: text}}``; its names can be read and its changes reviewed. Each
text is Base64 of a nonce and of what AES-256-GCM made of the value, bound to its name: none can take another's place.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storeconf import ResolveContext

__all__ = ["Box", "SecretBox", "make_key"]

DEFAULT_FILE: Final = "secrets.box"
KEY_VARIABLE: Final = "SECRETBOX_KEY"
_NONCE: Final = 12


class SecretBox:
    """Resolves ``name`` from ``secrets.box`` in the directory of the layout's file, ``file#name`` from that file."""

    api_version: ClassVar[int] = 1

    def resolve(self, argument: str, context: ResolveContext) -> str:
        """Return the secret. LookupError where there is none of that name, or no such file: a default applies then."""
        file, _, name = argument.rpartition("#")
        return Box(context.directory / (file or DEFAULT_FILE)).read(name, context.environ)


class Box:
    """One encrypted file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str, environ: Mapping[str, str]) -> str:
        """Return a secret; LookupError if it is not there, ValueError if the key or the file is wrong."""
        text = self._load().get(name)
        if text is None:
            raise LookupError(f"{self.path} holds no {name!r}")
        try:
            data = base64.b64decode(text, validate=True)
            return _cipher(environ).decrypt(data[:_NONCE], data[_NONCE:], name.encode()).decode()
        except (binascii.Error, InvalidTag) as error:
            raise ValueError(
                f"{name!r} in {self.path} can't be decrypted: {KEY_VARIABLE} is another key, or the file was changed"
            ) from error

    def write(self, name: str, value: str, environ: Mapping[str, str]) -> None:
        """Encrypt a secret into the file, which is made if it is missing."""
        try:
            secrets = self._load()
        except LookupError:
            secrets = {}
        nonce = os.urandom(_NONCE)
        secrets[name] = base64.b64encode(
            nonce + _cipher(environ).encrypt(nonce, value.encode(), name.encode())
        ).decode()
        text = json.dumps({"secretbox": 1, "secrets": dict(sorted(secrets.items()))}, indent=2)
        with tempfile.NamedTemporaryFile("w", dir=self.path.parent, delete=False) as file:
            file.write(f"{text}\n")
        Path(file.name).replace(self.path)

    def _load(self) -> dict[str, str]:
        try:
            content = json.loads(self.path.read_bytes())
        except FileNotFoundError as error:
            raise LookupError(f"{self.path} does not exist") from error
        except ValueError as error:
            raise ValueError(f"{self.path} is not valid JSON: {error}") from error
        if not isinstance(content, dict) or content.get("secretbox") != 1:
            raise ValueError(f"{self.path} is not a secretbox of version 1")
        secrets: dict[str, str] = content["secrets"]
        return secrets


def make_key() -> str:
    """Return a new key, as the variable holds it."""
    return base64.b64encode(AESGCM.generate_key(256)).decode()


def _cipher(environ: Mapping[str, str]) -> AESGCM:
    text = environ.get(KEY_VARIABLE)
    if not text:
        raise ValueError(f"{KEY_VARIABLE} is not set; it holds the key")
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        key = b""
    if len(key) != 32:
        raise ValueError(f"{KEY_VARIABLE} must be 32 bytes in Base64")
    return AESGCM(key)
