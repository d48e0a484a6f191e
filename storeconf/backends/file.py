"""The ``file`` backend: the settings of a store in a directory of this host."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from storeconf.operations import Capabilities
from storeconf.plugin import Backend, ConfigPath

if TYPE_CHECKING:
    from collections.abc import Callable

    from storeconf.plugin import BuildContext
    from storeconf.store import Store
    from storeconf.stores.file import FileStore

__all__ = ["FileBackend", "FileMode"]

_MODE = re.compile(r"(?:0o)?0*(7[0-7]{2})\Z")


def parse_mode(value: object) -> int:
    """Return the permissions that an octal text such as ``0750`` means. Raises ValueError.

    Unquoted, YAML takes ``0750`` for the number 750; its digits are still the ones that were written. ``0o750``, as
    TOML and Python write it, arrives as 488, which can't be the digits of a mode, as those begin with 7.
    """
    if isinstance(value, int) and 0o700 <= value <= 0o777:
        return value
    if isinstance(value, str | int) and not isinstance(value, bool):
        found = _MODE.match(str(value).strip())
        if found is not None:
            return int(found[1], 8)
        text = str(value) if isinstance(value, str) else f"{value} (0o{value:o})"
        raise ValueError(
            f"{text[:40]!r} is not a valid directory mode: write it in quotes, with three octal digits of which the "
            'first is 7, because the owner needs every right ("0700", "0750", "0770")'
        )
    raise ValueError(f'a mode is an octal text such as "0750", not a {type(value).__name__}')


FileMode = Annotated[
    int,
    BeforeValidator(parse_mode),
    PlainSerializer(lambda mode: f"{mode:04o}", return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": "^(0o)?0*7[0-7]{2}$"},
                {
                    "type": "integer",
                    "anyOf": [{"minimum": 700, "maximum": 777}, {"minimum": 0o700, "maximum": 0o777}],
                },
            ],
            "examples": ["0700", "0750"],
        }
    ),
]
"""Permissions of a directory, octal from their text. Validates to an int."""


class FileBackend(Backend):
    """Keeps every key in a file of its own, below one directory of a local file system."""

    capabilities: ClassVar[Capabilities] = Capabilities(persistent=True, shared=True, atomic=Capabilities.ALL_ATOMIC)

    type: Literal["file"] = Field(default="file", description="Keep the entries in a directory.", examples=["file"])
    path: ConfigPath = Field(
        description=(
            "The directory; relative to the file that contains it. Other stores must be neither inside nor above it."
        ),
        examples=["var/uploads", "/var/lib/shop/uploads"],
    )
    create: bool = Field(
        default=True,
        description=(
            "Make the directory, and those above it, when the store opens. With false a missing directory is an "
            "error, so that an unmounted volume is noticed."
        ),
        examples=[False],
    )
    durability: Literal["flush", "fsync"] = Field(
        default="flush",
        description=(
            "What a finished write survives: `flush` the end of the process, however sudden; `fsync` that of the "
            "machine, at the price of waiting for the disk."
        ),
        examples=["fsync"],
    )
    mode: FileMode = Field(
        default=0o700,
        description=(
            "Permissions of the directories that the store makes, octal from the text; files get the same without "
            "the right to execute. They hold whatever the umask."
        ),
        examples=["0750"],
        json_schema_extra={"default": "0700"},
    )

    def location(self) -> tuple[str, ...]:
        """The parts of the directory's path, symbolic links resolved."""
        return ("file", *Path(os.path.realpath(self.path)).parts[1:])

    def adopt(
        self, root: Store, context: BuildContext, before: Backend, context_before: BuildContext
    ) -> Callable[[], None] | None:
        """Use the same directory with other settings."""
        from storeconf.stores.file import FileStore

        if self == before:
            return super().adopt(root, context, before, context_before)
        if not isinstance(root, FileStore) or before.location() != self.location():
            return None
        return partial(root.change_settings, self.build(context))

    def build(self, context: BuildContext) -> FileStore:
        """Make the store; the directory is made when it opens."""
        from storeconf.stores.file import FileStore

        return FileStore(
            self.path,
            create_directories=self.create,
            durability=self.durability,
            mode=self.mode,
            must_exist=not self.create,
        )
