"""Which backends, middleware and resolvers there are: a value that maps names to lazily imported classes.

Built-in kinds are a table of ``module:Class``, the very form of an entry point's value. Installed plugins are found
by one cached scan, made only when a name is asked for that is not built in, and each is imported only when asked for.
"""

from __future__ import annotations

import functools
import logging
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from types import FunctionType, MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from storeconf._contract import model_fault, resolver_fault
from storeconf._text import nearest
from storeconf.config.language import RESERVED
from storeconf.errors import PluginError
from storeconf.plugin import API_VERSION, PROVIDERS, Backend, Middleware, Resolver

if TYPE_CHECKING:
    from collections.abc import Callable

    from storeconf.plugin import ResolveContext
    from storeconf.store import Capabilities

__all__ = ["Catalog", "CatalogEntry", "Part", "State"]

Part: TypeAlias = Literal["backend", "middleware", "resolver"]
State: TypeAlias = Literal["built-in", "loaded", "broken", "disabled", "conflict"]

GROUPS: Final[Mapping[Part, str]] = MappingProxyType(
    {
        "backend": "storeconf.backends",
        "middleware": "storeconf.middleware",
        "resolver": "storeconf.resolvers",
    }
)
"""The entry-point group of each part."""

BUILT_IN: Final[Mapping[Part, Mapping[str, str]]] = MappingProxyType(
    {
        "backend": {
            "memory": "storeconf.backends:MemoryBackend",
            "file": "storeconf.backends.file:FileBackend",
            "redis": "storeconf.backends.server:RedisBackend",
            "valkey": "storeconf.backends.server:ValkeyBackend",
        },
        "middleware": {
            "metrics": "storeconf.middleware.metrics:Metrics",
            "read_only": "storeconf.middleware.refusal:ReadOnly",
            "limit": "storeconf.middleware.refusal:Limit",
            "ttl": "storeconf.middleware.ttl:Ttl",
            "on_error": "storeconf.middleware.outage:OnError",
            "fallback": "storeconf.middleware.outage:Fallback",
            "refresh": "storeconf.middleware.refresh:Refresh",
            "cache": "storeconf.middleware.cache:Cache",
            "mirror": "storeconf.middleware.mirror:Mirror",
            "moved_from": "storeconf.middleware.moved_from:MovedFrom",
            "compress": "storeconf.middleware.compress:Compress",
            "encrypt": "storeconf.middleware.encrypt:Encrypt",
            "breaker": "storeconf.middleware.resilience:Breaker",
            "retry": "storeconf.middleware.resilience:Retry",
            "timeout": "storeconf.middleware.resilience:Timeout",
        },
        "resolver": {},
    }
)
"""The built-in kinds; middleware in its order from the caller inwards."""

RESERVED_RESOLVERS: Final = ("env", "file")
"""The resolvers of interpolation itself; plugins can't have these names."""

_logger: Final = logging.getLogger("storeconf")
_PLURAL: Final[Mapping[Part, str]] = {"backend": "backends", "middleware": "middleware", "resolver": "resolvers"}


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One line of the plugin list: a name, its provider, and whether it works.

    ``reason`` is why it does not work (or, for a working one, its conflict). ``capabilities`` are a loaded backend's.
    """

    part: Part
    name: str
    state: State
    distribution: str | None = None
    version: str | None = None
    value: str | None = None
    reason: str | None = None
    capabilities: Capabilities | None = None

    def to_dict(self) -> dict[str, Any]:
        """The entry as plain data, ready for JSON."""
        shown: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        if self.capabilities is not None:
            shown["capabilities"] = {
                **{each.name: getattr(self.capabilities, each.name) for each in fields(self.capabilities)},
                "atomic": sorted(self.capabilities.atomic),
            }
        return shown


@dataclass(frozen=True, slots=True)
class _Claim:
    """The claim of one distribution on one name."""

    part: Part
    name: str
    value: str
    distribution: str
    version: str

    @property
    def by(self) -> str:
        return f"{self.distribution} {self.version}"

    @property
    def entry_point(self) -> str:
        return f"entry point {self.name!r} = {self.value!r} of {self.by}"


_Found: TypeAlias = Mapping[tuple[Part, str], tuple[_Claim, ...]]


@dataclass(frozen=True, slots=True)
class Catalog:
    """The backends, middleware and resolvers that layouts may name. Changing it gives a new catalog.

    `Catalog.installed()` holds the built-in kinds and every installed plugin; `Catalog.builtin()` the former alone.
    """

    _given: Mapping[tuple[Part, str], Any] = field(default_factory=dict)
    _removed: frozenset[str] = frozenset()
    _plugins: bool = False
    _disabled: frozenset[str] = frozenset()

    @classmethod
    def builtin(cls) -> Catalog:
        """The built-in kinds and nothing else."""
        return cls()

    @classmethod
    def installed(cls) -> Catalog:
        """The built-in kinds and all installed plugins; those are looked for only when one is asked for."""
        return _INSTALLED

    def with_backend(self, name: str, backend: type[Backend]) -> Catalog:
        """Return a catalog that also holds ``backend``, whose ``type`` is ``name``."""
        return self._with("backend", name, backend)

    def with_middleware(self, name: str, middleware: type[Middleware]) -> Catalog:
        """Return a catalog that also holds ``middleware``, whose ``kind`` is ``name``."""
        return self._with("middleware", name, middleware)

    def with_resolver(self, name: str, resolver: Resolver | Callable[[str, ResolveContext], str]) -> Catalog:
        """Return a catalog that also holds ``resolver``, an object or a function, for ``${name:…}``."""
        return self._with("resolver", name, resolver)

    def without(self, *names: str) -> Catalog:
        """Return a catalog in which nothing has any of these names; they can then be added again."""
        given = {key: value for key, value in self._given.items() if key[1] not in names}
        return replace(self, _given=given, _removed=self._removed | set(names))

    def without_plugins(self, switch: str | None) -> Catalog:
        """Return a catalog that obeys a value of ``STORECONF_DISABLE_PLUGINS``.

        ``1`` (or ``true``, ``all``) switches every installed plugin off; else it is a comma-separated list of kinds
        or distributions. None and an empty text change nothing.
        """
        names = frozenset(name for name in re.split(r"[\s,]+", switch or "") if name)
        return replace(self, _disabled=self._disabled | names) if names else self

    def backend(self, name: str) -> type[Backend]:
        """Return the backend of that ``type``, or raise `PluginError`."""
        return cast("type[Backend]", self._find("backend", name))

    def middleware(self, kind: str) -> type[Middleware]:
        """Return the middleware of that name, or raise `PluginError`."""
        return cast("type[Middleware]", self._find("middleware", kind))

    def resolver(self, name: str) -> Resolver:
        """Return the resolver of that name, or raise `PluginError`."""
        return cast("Resolver", self._find("resolver", name))

    def backend_names(self) -> tuple[str, ...]:
        """Every name that could be a ``type``, plugins included; imports none of them."""
        return self._names("backend")

    def middleware_names(self) -> tuple[str, ...]:
        """Every name that could be a middleware's kind; imports none of them."""
        return self._names("middleware")

    def resolver_names(self) -> tuple[str, ...]:
        """Every possible name in ``${name:…}``, ``env`` and ``file`` included; imports none of them."""
        return (*RESERVED_RESOLVERS, *self._names("resolver"))

    def is_built_in(self, part: Part, name: str) -> bool:
        """Whether the name is that of a built-in kind."""
        reserved = part == "resolver" and name in RESERVED_RESOLVERS
        return reserved or (name in BUILT_IN[part] and name not in self._removed)

    def shadowed(self, part: Part, name: str) -> str | None:
        """A sentence about the plugins that claim the name of a built-in kind in vain, or None."""
        if not self.is_built_in(part, name):
            return None
        claims = self._claims().get((part, name))
        return _shadow_reason(claims) if claims else None

    def entries(self) -> tuple[CatalogEntry, ...]:
        """Everything that the catalog holds or that claims to be in it; imports all of it."""
        return tuple(self._entries())

    # ------------------------------------------------------------------ inside

    def _with(self, part: Part, name: str, value: object) -> Catalog:
        if self.is_built_in(part, name):
            raise PluginError(f"the built-in {part} {name!r} can't be replaced; remove it first", code="SC705")
        return replace(self, _given={**self._given, (part, name): _checked(part, name, value, f"the {part} {name!r}")})

    def _claims(self) -> _Found:
        return _scan(tuple(sys.path)) if self._plugins else {}

    def _names(self, part: Part) -> tuple[str, ...]:
        names = [name for name in BUILT_IN[part] if name not in self._removed]
        names += (name for kind, name in self._given if kind == part)
        names += sorted(
            name
            for (kind, name), claims in self._claims().items()
            if kind == part and name not in self._removed and not self._switched_off(claims)
        )
        return tuple(dict.fromkeys(names))

    def _find(self, part: Part, name: str) -> object:
        given = self._given.get((part, name))
        if given is not None:
            return given
        if self.is_built_in(part, name):
            return _built_in(part, name)
        claims = () if name in self._removed else self._claims().get((part, name), ())
        if not claims:
            known = self.resolver_names() if part == "resolver" else self._names(part)
            raise _unknown(part, name, known)
        return self._load(claims)

    def _load(self, claims: tuple[_Claim, ...]) -> object:
        claim = claims[0]
        if self._switched_off(claims):
            raise PluginError(
                f"the {claim.part} {claim.name!r} of {_listed(claim.by for claim in claims)} is switched off by "
                "STORECONF_DISABLE_PLUGINS",
                code="SC707",
                hint="take it out of that variable, or name another one here",
            )
        claims = tuple(claim for claim in claims if claim.distribution not in self._disabled)
        if len(claims) > 1:
            raise PluginError(
                f"{len(claims)} distributions claim the {claim.part} {claim.name!r}: "
                f"{_listed(claim.by for claim in claims)}",
                code="SC706",
                hint="uninstall all but one of them, or name those that you do not want in STORECONF_DISABLE_PLUGINS",
            )
        return _plugin(claims[0])

    def _switched_off(self, claims: tuple[_Claim, ...]) -> bool:
        if not self._disabled:
            return False
        if not self._disabled.isdisjoint({"1", "true", "all", claims[0].name}):
            return True
        return all(claim.distribution in self._disabled for claim in claims)

    def _entries(self) -> Iterable[CatalogEntry]:
        for part in GROUPS:
            for name in BUILT_IN[part]:
                if name not in self._removed:
                    yield self._entry(part, name, "built-in", ())
            for kind, name in self._given:
                if kind == part:
                    yield self._entry(part, name, "loaded", ())
            for (kind, name), claims in sorted(self._claims().items()):
                if kind != part:
                    continue
                if self.is_built_in(part, name):
                    reason = _shadow_reason(claims)
                    yield from (
                        CatalogEntry(part, name, "conflict", claim.distribution, claim.version, claim.value, reason)
                        for claim in claims
                    )
                elif name not in self._removed:
                    yield from (self._entry(part, name, "loaded", (claim,), claims) for claim in claims)

    def _entry(
        self, part: Part, name: str, state: State, claim: tuple[_Claim, ...], claims: tuple[_Claim, ...] = ()
    ) -> CatalogEntry:
        reason, capabilities = None, None
        try:
            found = self._load(claims) if claims else self._find(part, name)
        except PluginError as error:
            state = cast("State", {"SC706": "conflict", "SC707": "disabled"}.get(error.code, "broken"))
            reason = error.args[0]
        else:
            capabilities = cast("type[Backend]", found).capabilities if part == "backend" else None
        if claim:
            return CatalogEntry(
                part, name, state, claim[0].distribution, claim[0].version, claim[0].value, reason, capabilities
            )
        return CatalogEntry(part, name, state, value=BUILT_IN[part].get(name), reason=reason, capabilities=capabilities)


_INSTALLED: Final = Catalog(_plugins=True)


@functools.lru_cache(maxsize=1)
def _scan(path: tuple[str, ...]) -> _Found:
    """Every claim of every distribution on ``path``, which is ``sys.path``; reads metadata, imports no plugin."""
    import importlib_metadata

    parts: Mapping[str, Part] = {group: part for part, group in GROUPS.items()}
    found: dict[tuple[Part, str], list[_Claim]] = {}
    seen = set()
    for distribution in importlib_metadata.distributions(path=list(path)):
        name = None
        try:
            # Looking at the text first spares parsing everybody's metadata, and their errors.
            if "storeconf." not in (distribution.read_text("entry_points.txt") or ""):
                continue
            name, version = distribution.name, distribution.version
            if name in seen:  # an older copy, further down the path, which imports do not reach either
                continue
            seen.add(name)
            points = tuple(distribution.entry_points)
        except Exception as error:  # noqa: BLE001  # metadata may be damaged in any way; nobody else must suffer
            where = name or getattr(distribution, "_path", "a distribution")  # without a readable name, its directory
            _logger.warning("the entry points of %s can't be read: %s", where, error)
            continue
        for point in points:
            if point.group in parts:
                claim = _Claim(parts[point.group], point.name, point.value, name, version)
                found.setdefault((claim.part, claim.name), []).append(claim)
    return MappingProxyType({key: tuple(sorted(claims, key=lambda claim: claim.by)) for key, claims in found.items()})


@functools.cache
def _built_in(part: Part, name: str) -> object:
    module, _, attribute = BUILT_IN[part][name].partition(":")
    found: object = getattr(import_module(module), attribute)
    return found


def _plugin(claim: _Claim) -> object:
    module, _, attributes = claim.value.partition("[")[0].partition(":")
    try:
        value: object = import_module(module.strip())
        for attribute in filter(None, attributes.strip().split(".")):
            value = getattr(value, attribute)
    except KeyboardInterrupt:  # the user's
        raise
    except BaseException as error:  # a plugin's import may fail in any way, with SystemExit or pytest's Skipped, say
        raise PluginError(
            f"the {claim.part} {claim.name!r} can't be loaded ({claim.entry_point}): {type(error).__name__}: {error}",
            code="SC702",
            hint=f"repair or upgrade {claim.distribution}, or report this to its author",
        ) from error
    found = _checked(claim.part, claim.name, value, claim.entry_point, claim.distribution)
    if isinstance(found, type):
        PROVIDERS[found] = claim.by
    return found


def _checked(part: Part, name: str, value: object, what: str, distribution: str | None = None) -> object:
    """Return the class of ``name``, or for a resolver an object, if it implements the contract."""
    hint = f"report this to the author of {distribution}" if distribution else None
    try:
        if part == "resolver":
            value, fault = _resolver_of(value)
        elif part == "backend":
            fault = model_fault(value, Backend, "type", name, RESERVED)
        else:
            fault = model_fault(value, Middleware, "kind", name, ())
        version = getattr(value, "api_version", API_VERSION)
    except Exception as error:
        # A plugin's own code may fail in any way, even when it is only looked at.
        text = f"{what} can't be examined: {type(error).__name__}: {error}"
        raise PluginError(text, code="SC703", hint=hint) from error
    # A plugin for another version may differ in everything else, too.
    if fault is not None and (version == API_VERSION or not isinstance(version, int)):
        raise PluginError(f"{what} {fault}", code="SC703", hint=hint)
    if not isinstance(version, int) or isinstance(version, bool):
        text = f"has api_version {version!r}, which must be a whole number: {API_VERSION}"
        raise PluginError(f"{what} {text}", code="SC704", hint=hint)
    if version != API_VERSION:
        raise PluginError(
            f"{what} was made for version {version} of storeconf's plugin API, and this storeconf has {API_VERSION}",
            code="SC704",
            hint=f"install a version of {distribution} that fits" if distribution else None,
        )
    return value


def _resolver_of(value: object) -> tuple[object, str | None]:
    """The resolver that an entry point leads to, and its fault, if it has one."""
    if isinstance(value, FunctionType):
        return SimpleNamespace(resolve=value, api_version=getattr(value, "api_version", API_VERSION)), resolver_fault(
            value
        )
    if isinstance(value, type):
        try:
            value = _instance(value)
        except Exception as error:  # noqa: BLE001  # a plugin's own code may fail in any way
            return value, f"can't be made without arguments: {type(error).__name__}: {error}"
    return value, resolver_fault(getattr(value, "resolve", None))


@functools.cache
def _instance(resolver: type) -> object:
    """The one object of a resolver's class, so that it may remember the values that it read."""
    return resolver()


def _unknown(part: Part, name: str, known: tuple[str, ...]) -> PluginError:
    near = nearest(name, known)
    listed = f"nown {_PLURAL[part]}: {', '.join(known) or 'none'}"
    if near:
        hint = f"did you mean {near!r}? K{listed}"
    else:
        hint = f"k{listed}; or install the package whose entry point {name!r} in {GROUPS[part]!r} provides it"
    return PluginError(f"unknown {part} {name!r}", code="SC701", hint=hint)


def _shadow_reason(claims: tuple[_Claim, ...]) -> str:
    return (
        f"{_listed(claim.by for claim in claims)} claims the name of the built-in {claims[0].part} "
        f"{claims[0].name!r}, which can't be replaced"
    )


def _listed(items: Iterable[str]) -> str:
    *rest, last = items
    return f"{', '.join(rest)} and {last}" if rest else last
