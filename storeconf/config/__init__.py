"""Text to layout: reading, merging, variables, interpolation, validation, a module for each stage.

Here are the records that the stages pass on: the arguments of a reading, and the parts of a validated layout. That is
one small frozen record per store, and one for the default factory; the settings in them are the backends' and
middleware's own frozen Pydantic models.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from storeconf.config.document import Looks

if TYPE_CHECKING:
    from pathlib import Path

    from storeconf.catalog import Catalog
    from storeconf.config.language import Format
    from storeconf.plugin import Backend, Middleware, ValueSource

__all__ = [
    "NO_MIDDLEWARE",
    "AliasSpec",
    "ChildSpec",
    "DefaultFactorySpec",
    "Links",
    "Overrides",
    "Request",
    "RootSpec",
    "Source",
    "Stream",
    "StoreSpec",
]


@dataclass(frozen=True, slots=True, repr=False)
class Stream:
    """A layout that was read elsewhere, such as from stdin; ``shown`` is its name for people."""

    data: bytes
    format: Format
    shown: str


Source: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | Stream | None
"""A layout's file, a mapping with the same content, a text, or None: the file is to be found."""

Overrides: TypeAlias = Mapping[str, Any] | Sequence[tuple[str, str]]
"""A mapping of dotted paths or nested, or pairs of dotted path and text as a command line gives them."""


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """The arguments of one reading.

    ``variables`` are the environment variables, ``catalog`` holds the kinds that may be named, ``directory`` is
    the base of relative paths that no file contains. ``without_secrets``: placeholders replace unset variables and
    missing secret files. ``pause_gc``: see `storeconf.layout.collection_paused`. ``looks`` takes down which files are
    read or looked for.
    """

    source: Source
    environment: str | None
    overrides: Overrides | None
    variables: Mapping[str, str]
    catalog: Catalog
    directory: Path
    without_secrets: bool = False
    pause_gc: bool = True
    looks: Looks = field(default_factory=Looks)


Links: TypeAlias = Mapping[str, "Middleware | Literal[False]"]
"""The middleware that one store names, by kind; False switches an inherited kind off."""

_EMPTY: dict[str, Any] = {}
NO_MIDDLEWARE: Final[Links] = MappingProxyType(_EMPTY)


def _none() -> Links:
    return NO_MIDDLEWARE


@dataclass(frozen=True, slots=True)
class RootSpec:
    """A store with a ``type``: it owns the resource. ``sources``: how settings that came from files are read again."""

    name: str
    backend: Backend
    middleware: Links = field(default_factory=_none)
    description: str | None = field(default=None, repr=False)
    sources: Mapping[str, ValueSource] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A store with a ``parent``: a namespace of that store, on the parent's resource."""

    name: str
    parent: str
    namespace: str
    middleware: Links = field(default_factory=_none)
    description: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class AliasSpec:
    """A store with ``use``: another name for the same store object."""

    name: str
    use: str
    description: str | None = field(default=None, repr=False)


StoreSpec: TypeAlias = RootSpec | ChildSpec | AliasSpec


@dataclass(frozen=True, slots=True)
class DefaultFactorySpec:
    """The store for a name that is not listed: exactly one of ``parent``, ``backend``, ``use`` and ``forbid`` is set.

    ``max_stores`` bounds the handles that are kept, None for no bound; data is never dropped.
    """

    parent: str | None = None
    backend: Backend | None = None
    use: str | None = None
    forbid: bool = False
    middleware: Links = field(default_factory=_none)
    max_stores: int | None = None
    sources: Mapping[str, ValueSource] = field(default_factory=dict, repr=False, compare=False)
