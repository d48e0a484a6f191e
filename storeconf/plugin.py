"""The interface for plugin authors: bases of backends, middleware and resolvers, field types and the build context.

A backend or middleware is one frozen Pydantic model: the settings that operators write under the kind's name,
validated, and the method that builds its store. storeconf's own kinds use exactly the same classes and declaration.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping  # noqa: TC003 - Pydantic reads annotations at run time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Protocol, TypeAlias
from weakref import WeakKeyDictionary

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, WithJsonSchema

from storeconf._arguments import parse_duration, parse_share, parse_size
from storeconf.operations import Capabilities

if TYPE_CHECKING:
    from storeconf.store import Store

__all__ = [
    "API_VERSION",
    "Backend",
    "BuildContext",
    "ConfigPath",
    "Duration",
    "Middleware",
    "NamesStore",
    "PROVIDERS",
    "PathFromFile",
    "ResolveContext",
    "Resolver",
    "Secret",
    "Settings",
    "Share",
    "Size",
    "StoreName",
    "ValueSource",
    "maker",
]

API_VERSION = 1
"""The version of this module's contract; a plugin states the one that it was written for."""


EXCLUSIVE_FIELDS = "exclusive_fields"
"""The type of a `PydanticCustomError` that says: of some fields exactly one must be given."""


class PathFromFile:
    """Marks a field whose relative value is relative to the file that contains it."""


ConfigPath = Annotated[
    Path,
    AfterValidator(Path.absolute),
    PathFromFile(),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
"""A path, absolute once validated: relative ones are relative to the file whose text holds them."""

Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {
            "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "minLength": 1}],
            "examples": ["90s", "15m", "1h30m", "14d", 3600],
        }
    ),
]
"""A span of time: seconds as a number, ``90s``, ``1h30m``, ``14d``, or ISO 8601. Validates to a timedelta."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "minLength": 1}],
            "examples": ["64KiB", "10MB", 65536],
        }
    ),
]
"""A number of bytes: a whole number, ``64KiB``, ``10MB``. Validates to an int."""


Share = Annotated[
    float,
    BeforeValidator(parse_share),
    WithJsonSchema(
        {
            "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "minLength": 1}],
            "examples": ["20%", 0.2],
        }
    ),
]
"""A part of one: ``20%``, ``0.2``. Validates to a float."""


class NamesStore:
    """Marks a field that names another store of the layout, which must then exist and not lead back here."""


StoreName = Annotated[str, NamesStore()]
"""The name of another store of the layout; `BuildContext.store` gives that store."""

Secret: TypeAlias = SecretStr
"""A text that is masked wherever it is shown."""


class Settings(BaseModel):
    """The base of every model that ops write values for: unknown fields are errors, instances are immutable."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, arbitrary_types_allowed=True
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Treat a name that is a class variable in a base as one here, too, though it was written like a field.

        Else ``kind: Literal["x"] = "x"``, the twin of a backend's ``type``, would become a setting.
        """
        super().__pydantic_init_subclass__(**kwargs)
        written = cls.model_fields.keys() & cls.__class_vars__
        for name in written:
            setattr(cls, name, cls.model_fields.pop(name).default)
        if written:
            cls.model_rebuild(force=True, raise_errors=False)

    def required_packages(self) -> Mapping[str, str]:
        """The optional packages that these settings need: each importable module with its requirement for pip.

        `storeconf validate` warns of those that are not installed.
        """
        return {}

    def warnings(self) -> list[tuple[str, str]]:
        """Settings that are allowed but deserve a warning: (field, message) pairs; no field means all of them."""
        return []

    def __repr_args__(self) -> Iterator[tuple[str, object]]:
        """The given settings, but no texts: any of them may have come from a secret file."""
        for name in type(self).model_fields:
            if name in self.model_fields_set:
                value = getattr(self, name)
                yield name, value if isinstance(value, int | float | timedelta | Settings) else _HIDDEN


class _HiddenInterface:
    def __repr__(self) -> str:
        return "…"


_HIDDEN = _HiddenInterface()


class ValueSource(Protocol):
    """Where the value of a setting came from, if it can be read again. Its text, for messages, names the place."""

    def read(self) -> str:
        """Return the value as it is now. This may block; it raises OSError, whose text never holds the value."""
        ...


def _no_names(middleware: Middleware | None) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class BuildContext:
    """The context in which a backend or middleware builds its store. Building does no I/O.

    ``name``: the store's name in the layout. ``environment``: the environment's name, or None. ``store``: another
    store of the layout by its name, for middleware that needs one; it raises `UnknownStoreError`. ``chain``: all
    middleware of the store that is being built, by kind, for middleware that depends on another's settings.
    ``sources``: the backend's settings that came from files, by dotted path (``password``, ``sentinel.password``), for
    code that reads a credential again when it connects. ``names_below(middleware)``: the names of the namespaces from
    the store that names this middleware to the one that is being built, which may inherit it; with None, those from the
    root.
    """

    name: str
    environment: str | None
    store: Callable[[str], Store]
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("storeconf"))
    chain: Mapping[str, Middleware] = field(default_factory=dict)
    sources: Mapping[str, ValueSource] = field(default_factory=dict, repr=False)
    names_below: Callable[[Middleware | None], tuple[str, ...]] = field(default=_no_names, repr=False)


class Backend(Settings):
    """A kind of store, declared as the model of its settings. Subclass it, give ``type`` a Literal, and build.

    ``exclusive_groups`` lists groups of fields of which a layout may set only one; a field in a higher layer drops the
    others of its group in lower layers.
    ``capabilities`` are those of the store that it builds.
    """

    api_version: ClassVar[int] = API_VERSION
    exclusive_groups: ClassVar[tuple[tuple[str, ...], ...]] = ()
    capabilities: ClassVar[Capabilities] = Capabilities()

    if TYPE_CHECKING:
        type: Any  # else pyright refuses the Literal of a subclass: it takes fields for writable, and so for invariant
    else:
        type: str
    namespace: str | None = Field(
        default=None, description="The namespace that this root keeps all its keys in.", examples=["shop"]
    )

    def build(self, context: BuildContext) -> Store:
        """Make the root store, without any I/O: that begins when the registry opens it.

        storeconf enters ``namespace`` afterwards unless the store that comes back has done so already.
        """
        raise NotImplementedError

    def adopt(
        self, root: Store, context: BuildContext, before: Backend, context_before: BuildContext
    ) -> Callable[[], None] | None:
        """Return a function that gives a running root these settings in place of its present ones; None: impossible.

        A reload calls it for a root of the same name, type and namespace, and calls the result, which must not fail,
        when everything is ready; `unchanged` does nothing. For None a new root replaces the old one.
        """
        return unchanged if self == before else None

    def location(self) -> tuple[str, ...] | None:
        """The actual location of the keys, outermost part first, or None when nobody else can reach them.

        Two roots collide when one's location is the beginning of the other's.
        """
        return None

    def locations(self) -> tuple[tuple[str, ...], ...]:
        """Every location under which the same keys can be reached, if there are several: the nodes of a cluster."""
        location = self.location()
        return () if location is None else (location,)

    def keeps_objects(self) -> bool:
        """Whether the store, so set up, keeps Python objects as they are; middleware for bytes is then an error."""
        return self.capabilities.objects


def unchanged() -> None:
    """Do nothing: `Backend.adopt` returns this function if the settings are those that the root has."""


class Middleware(Settings):
    """A link of the chain around a store, declared as the model of its settings.

    ``kind`` is its name in layouts; ``shorthand_field`` is the setting that a scalar sets; ``after`` and ``before``
    name kinds that are closer to the caller and closer to the backend, several or one. ``requires_bytes``: it can't be
    used where objects are kept. ``needs_namespaces``: it keeps something in namespaces below the store, so it can't be
    used on a server root without a namespace.
    """

    api_version: ClassVar[int] = API_VERSION
    kind: ClassVar[str]
    shorthand_field: ClassVar[str | None] = None
    after: ClassVar[tuple[str, ...]] = ()
    before: ClassVar[tuple[str, ...]] = ()
    requires_bytes: ClassVar[bool] = False
    needs_namespaces: ClassVar[bool] = False

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """See `Settings`; one name for ``after`` or ``before`` is not taken for its letters."""
        super().__pydantic_init_subclass__(**kwargs)
        for side in ("after", "before"):
            names = getattr(cls, side)
            if isinstance(names, str):
                setattr(cls, side, (names,))

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        """Return a store around ``wrapped``."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class ResolveContext:
    """The context of a resolver: the variables in force, and the directory of the file that holds the reference."""

    environ: dict[str, str]
    directory: Path
    environment: str | None = None


class Resolver(Protocol):
    """Turns ``${name:argument}`` into a text. A LookupError means "not there", so that a default can apply."""

    def resolve(self, argument: str, context: ResolveContext) -> str:
        """Return the value; it counts as a secret wherever it is shown."""
        ...


PROVIDERS: Final[WeakKeyDictionary[type, str]] = WeakKeyDictionary()
"""The distributions that classes came from, for messages; the catalog notes them when it loads an entry point."""


def maker(model: type[Settings]) -> str:
    """The name of a backend or middleware in messages, with the distribution that it comes from."""
    what = model.__name__
    if issubclass(model, Backend):
        what = f"the backend {model.model_fields['type'].default!r}"
    elif issubclass(model, Middleware):
        what = f"the middleware {model.kind!r}"
    return f"{what} of {PROVIDERS[model]}" if model in PROVIDERS else what
