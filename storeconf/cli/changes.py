"""`storeconf changes`: the fate of the data when one layout replaces another."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import click

from storeconf.backends import MemoryBackend
from storeconf.backends.file import FileBackend
from storeconf.backends.server import ServerBackend
from storeconf.catalog import BUILT_IN
from storeconf.cli.app import Source, format_option, on_layout
from storeconf.cli.completion import complete_files
from storeconf.cli.output import data, emit_json, escaped, message, print_table, style
from storeconf.plan import HIDDEN_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from storeconf.layout import Layout
    from storeconf.plan import FactoryStep, Step
    from storeconf.plugin import Backend, Middleware

__all__ = ["changes_command"]

Effect: TypeAlias = Literal["kept", "moved", "new", "left behind", "unreadable", "unknown"]

_MARKS: Final[dict[Effect, tuple[str, str]]] = {
    "kept": ("=", "green"),
    "moved": (">", "green"),
    "new": ("+", "green"),
    "left behind": ("-", "red"),
    "unreadable": ("!", "red"),
    "unknown": ("?", "yellow"),
}

_HARMLESS: Final = {"kept", "moved", "new"}

_USERINFO: Final = re.compile(r"//[^/]*@")

_CARRY: Final = (
    "keep the old store in the new layout under another name and add moved_from to the new one, "
    "or, while nobody uses them, run storeconf copy"
)

_ANY: Final = "*"
"""Represents every name for which the default factory makes a store."""


@dataclass(frozen=True)
class _Verdict:
    effect: Effect
    reason: str
    remedy: str | None = None


@dataclass(frozen=True)
class _Place:
    """Where one name keeps its data, and how. ``settings`` are the root's as written, with placeholders."""

    backend: Backend
    settings: dict[str, Any]
    path: tuple[str, ...]
    chain: dict[str, Middleware] = field(default_factory=dict)
    written: dict[str, Any] = field(default_factory=dict)
    """The settings of the chain as written."""
    below: tuple[str, ...] = ()
    """The names of the namespaces from the store that names ``moved_from`` to this one, which inherits it."""
    below_root: tuple[str, ...] = ()
    """The names of the namespaces from the root to this one, which ``mirror`` repeats on another root."""

    def __str__(self) -> str:
        return f"{self.backend.type}: {_shown(self.path)}" if self.path else self.backend.type


class _Side:
    """One of the two layouts."""

    def __init__(self, layout: Layout) -> None:
        self.plan = layout.plan()
        self.steps = {step.name: step for step in self.plan.steps}
        self._written = layout.dump(masked=False)

    def names(self) -> list[str]:
        """The listed names, and a placeholder for all others."""
        factory = self.plan.default_factory
        return [*self.plan.names, *([_ANY] if factory is not None and factory.kind != "forbid" else [])]

    def place(self, name: str) -> _Place | None:
        """Where a name keeps its data; None if no store that outlives the process has it."""
        step = self.steps.get(name)
        if step is not None:
            return self._of_step(step)
        factory = self.plan.default_factory
        if factory is None or factory.kind == "forbid":
            return None
        if factory.use is not None:
            return self._of_step(self.steps[factory.use])
        return self._of_factory(factory, name)

    def _of_step(self, step: Step) -> _Place:
        step = self.steps[step.use] if step.use is not None else step
        written: dict[str, Any] = {}
        line = [step]
        while line[-1].parent is not None:
            line.append(self.steps[line[-1].parent])
        for each in reversed(line):
            written |= self._store(each.name).get("middleware") or {}
        chain, path = dict(step.chain), self._path(step)
        below = path[len(path) - self._inherited(chain, step.parent) :]
        below_root = path[len(self._path(line[-1])) :]
        return _Place(step.backend, self._store(step.root), path, chain, written, below, below_root)

    def _inherited(self, chain: dict[str, Middleware], parent: str | None) -> int:
        """From how many stores above ``moved_from`` is inherited, of which the first is ``parent``."""
        link, count = chain.get("moved_from"), 0
        while link is not None and parent is not None and any(each is link for _, each in self.steps[parent].chain):
            count, parent = count + 1, self.steps[parent].parent
        return count

    def _of_factory(self, factory: FactoryStep, name: str) -> _Place:
        given = self._written.get("default_factory") or {}
        own = given.get("middleware") or {}
        assert factory.backend is not None
        if factory.parent is None:
            root = given.get("namespace")
            path = (*([root] if root else []), name)
            return _Place(factory.backend, given, path, dict(factory.chain), own, below_root=(name,))
        parent = self._of_step(self.steps[factory.parent])
        chain, path = dict(factory.chain), (*parent.path, name)
        below = path[len(path) - self._inherited(chain, factory.parent) :]
        below_root = (*parent.below_root, name)
        return _Place(parent.backend, parent.settings, path, chain, parent.written | own, below, below_root)

    def _path(self, step: Step) -> tuple[str, ...]:
        """The namespace path as it is written: the plan has samples in place of unknown names."""
        given = self._store(step.name).get("namespace")
        if step.parent is None:
            named = given if given is not None else step.backend.namespace
            return (named,) if named else ()
        return (*self._path(self.steps[step.parent]), given if given is not None else step.name)

    def _store(self, name: str) -> dict[str, Any]:
        if name == HIDDEN_ROOT:
            return dict(self._written.get("default_factory") or {})
        return dict(self._written.get("stores", {}).get(name) or {})


# ---------------------------------------------------------------------- the same data?


def _unknown(*values: object) -> bool:
    """Whether any of these has a placeholder in it."""
    return any("${" in str(value) for value in values)


def _location(old: _Place, new: _Place) -> _Verdict | None:
    """Why the new place has other keys than the old one; None if it has the same."""
    if isinstance(old.backend, ServerBackend) and isinstance(new.backend, ServerBackend):
        verdict = _server(old.backend, old.settings, new.backend, new.settings)
    elif type(old.backend) is not type(new.backend):
        verdict = _left(f"the kind changes from {old.backend.type} to {new.backend.type}")
    elif isinstance(old.backend, FileBackend) and isinstance(new.backend, FileBackend):
        verdict = _file(old.backend, old.settings, new.backend, new.settings)
    elif isinstance(old.backend, MemoryBackend) or old.backend == new.backend:
        verdict = None
    elif old.backend.locations():
        verdict = None if set(old.backend.locations()) & set(new.backend.locations()) else _left("the location changes")
    else:
        verdict = _Verdict("unknown", f"the settings of {old.backend.type} change")
    if verdict is not None or old.path == new.path:
        return verdict
    if _unknown(old.path, new.path):
        return _Verdict("unknown", "the namespace has an unknown part", "set its variables")
    return _left(f"the namespace changes from {_shown(old.path)} to {_shown(new.path)}")


def _shown(path: Iterable[str]) -> str:
    return " > ".join(str(getattr(name, "shown", name)) for name in path) or "none"


def _left(reason: str) -> _Verdict:
    return _Verdict("left behind", reason, _CARRY)


def _server(
    old: ServerBackend, old_settings: dict[str, Any], new: ServerBackend, new_settings: dict[str, Any]
) -> _Verdict | None:
    if old.key_layout != new.key_layout:
        return _left(f"the key layout changes from {old.key_layout} to {new.key_layout}")
    before, after = (_address(settings) for settings in (old_settings, new_settings))
    if before != after and _unknown(before, after):
        return _Verdict("unknown", "the server has an unknown part", "set its variables")
    if before == after:
        return None
    places = [{location[:2] for location in backend.locations()} for backend in (old, new)]
    if places[0] & places[1]:
        return None
    databases = [{db for _, db in each} for each in places]
    if databases[0] != databases[1]:
        return _left(f"the database changes from {min(databases[0])} to {min(databases[1])}")
    return _Verdict(
        "unknown",
        "the server's address changes; it may be another name of the same server",
        f"if it is another server: {_CARRY}",
    )


def _address(settings: dict[str, Any]) -> tuple[object, ...]:
    """The address of a server, without credentials."""
    sentinel = settings.get("sentinel")
    if isinstance(sentinel, dict):
        sentinel = (sentinel.get("nodes"), sentinel.get("service"))
    url = settings.get("url")
    return (_USERINFO.sub("//", str(url)) if url else None, settings.get("cluster"), sentinel, settings.get("db") or 0)


def _file(
    old: FileBackend, old_settings: dict[str, Any], new: FileBackend, new_settings: dict[str, Any]
) -> _Verdict | None:
    before, after = str(old_settings.get("path")), str(new_settings.get("path"))
    if _unknown(before, after):
        return (
            None if before == after else _Verdict("unknown", "the directory has an unknown part", "set its variables")
        )
    return None if old.location() == new.location() else _left(f"the directory changes from {old.path} to {new.path}")


# ---------------------------------------------------------------------- readable?


def _readable(old: _Place, new: _Place) -> _Verdict | None:
    """Why values that were stored in the old way can't be read in the new one; None if they can."""
    for kind, what in (("encrypt", "encryption"), ("compress", "compression")):
        before, after = old.chain.get(kind), new.chain.get(kind)
        if before is None and after is not None and not getattr(after, "accept_plain", False):
            remedy = f"set {kind}.accept_plain to true until every value has been written again"
            return _Verdict("unreadable", f"{what} is switched on, so values without it are misses", remedy)
        if before is not None and after is None:
            return _Verdict("unreadable", f"{what} is switched off, but the stored values have it", f"keep {kind}")
    verdict = _keys(old, new)
    if verdict is not None:
        return verdict
    for kind, name in (("limit", "value_size"), ("compress", "max_size")):
        before, after = (getattr(side.chain.get(kind), name, None) for side in (old, new))
        unlimited = before is None and kind == "limit"
        if after is not None and (unlimited or (before is not None and after < before)):
            return _Verdict("unknown", f"{kind}.{name} is smaller: larger values count as damaged", f"keep {name}")
    foreign = {kind for kind in old.chain.keys() | new.chain.keys() if kind not in BUILT_IN["middleware"]}
    for kind in sorted(foreign):
        if old.chain.get(kind) != new.chain.get(kind):
            return _Verdict("unknown", f"the middleware {kind!r} of a plugin changes")
    return None


def _keys(old: _Place, new: _Place) -> _Verdict | None:
    before, after = (_key_texts(side) for side in (old, new))
    missing = [key for key in before if key not in after]
    if not missing:
        return None
    remedy = "keep the old keys behind the new one"
    if _unknown(missing, after):
        return _Verdict("unknown", "the keys of encrypt have unknown parts", "set their variables")
    if before[0] in missing:
        return _Verdict("unreadable", "the key that encrypted the values is not configured any more", remedy)
    return _Verdict("unknown", "an earlier key of encrypt is not configured any more", remedy)


def _key_texts(side: _Place) -> list[str]:
    if "encrypt" not in side.chain:
        return []
    written = side.written.get("encrypt")
    keys = written.get("keys") if isinstance(written, dict) else written
    return [str(key) for key in (keys if isinstance(keys, list | tuple) else [keys])]


# ---------------------------------------------------------------------- verdicts


def compared(before: Layout, after: Layout) -> dict[str, _Verdict]:
    """The verdict on the data of each name."""
    old, new = _Side(before), _Side(after)
    verdicts: dict[str, _Verdict] = {}
    for name in old.names():
        place = old.place(name)
        if place is not None:
            verdicts[name] = _verdict(name, place, old, new)
    for name in new.names():
        if name not in verdicts:
            verdicts[name] = _listed(name, old, new)
    return verdicts


def _listed(name: str, old: _Side, new: _Side) -> _Verdict:
    """Say whether a name that the old layout does not list may have entries there, by its default factory."""
    place = old.place(name)
    if place is not None and name != _ANY:
        verdict = _verdict(name, place, old, new)
        if verdict.effect in _HARMLESS:
            return verdict
        reason = f"if the default factory has made a store of that name: {verdict.reason}"
        return _Verdict("unknown", reason, verdict.remedy)
    return _Verdict("new", f"a new store, {new.place(name)}")


def _verdict(name: str, place: _Place, old: _Side, new: _Side) -> _Verdict:
    target = new.place(name)
    if target is not None:
        found = _location(place, target)
        if found is None:
            return _readable(place, target) or _kept(place)
        return _carried(place, target, new) or _mirrored(place, target, old) or found
    for other in new.names():
        reader = new.place(other)
        if other != name and reader is not None and _location(place, reader) is None:
            return _readable(place, reader) or _Verdict("kept", f"now called {other!r}")
    for other in new.names():
        reader = new.place(other)
        if reader is not None and (found := _mirrored(place, reader, old)) is not None:
            return found
    for other in old.names():
        reader = old.place(other)
        if reader is not None and getattr(reader.chain.get("moved_from"), "store", None) == name:
            reason = f"what moved_from of {other!r} has not carried over yet would be left behind"
            return _Verdict("unknown", reason, f"run storeconf move {other} before, until nothing remains")
    return _left("the new layout has no store of that name")


def _kept(place: _Place) -> _Verdict:
    if isinstance(place.backend, MemoryBackend):
        return _Verdict("kept", "in memory: a reload keeps it, a restart does not")
    return _Verdict("kept", str(place))


def _carried(place: _Place, target: _Place, new: _Side) -> _Verdict | None:
    """Whether the new store carries the entries over from where they are."""
    source = getattr(target.chain.get("moved_from"), "store", None)
    if not isinstance(source, str) or (origin := new.place(source)) is None:
        return None
    origin = replace(origin, path=(*origin.path, *target.below))
    if _location(place, origin) is not None:
        return None
    unreadable = _readable(place, origin)
    return unreadable or _Verdict("moved", f"moved_from carries entries over from {source!r}")


def _mirrored(place: _Place, target: _Place, old: _Side) -> _Verdict | None:
    """Whether the new store is where the old layout has repeated all calls."""
    link = place.chain.get("mirror")
    source = getattr(link, "store", None)
    if not isinstance(source, str) or (origin := old.place(source)) is None:
        return None
    origin = replace(origin, path=(*origin.path, *place.below_root))
    if _location(origin, target) is not None:
        return None
    percent = getattr(link, "percent", 0)
    if percent < 100:
        return _left(f"it becomes the store {source!r} on which mirror repeats {percent:g} % of the keys")
    return _readable(origin, target) or _Verdict(
        "unknown",
        f"mirror has repeated on {source!r} what was written since it began; older entries would be left behind",
        "change it once mirror has run for longer than entries last, and has dropped no call (see mirror_report); "
        f"else {_CARRY}",
    )


# ---------------------------------------------------------------------- the command


@click.command("changes")
@click.argument("old", metavar="OLD", shell_complete=complete_files)
@click.argument("new", metavar="[NEW]", required=False, shell_complete=complete_files)
@format_option("text", "json")
@on_layout()
def changes_command(source: Source, old: str, new: str | None, form: str) -> None:
    """Show what becomes of the data when the layout NEW replaces OLD.

    OLD and NEW are files; without NEW it is the file of -f, or the one that is found. Unset variables and missing
    secret files count as placeholders. The status is 1 if data is left behind or can't be read, or if that is not
    known.
    """
    if new is not None and source.file is not None:
        raise click.UsageError("give NEW as an argument or with -f, not both")
    before, after = replace(source, without_secrets=True).read(
        (old, source.environment), (new or source.file, source.environment)
    )
    verdicts = compared(before, after)
    if form == "json":
        changes = [
            {"store": name, "effect": each.effect, "reason": each.reason, "remedy": each.remedy}
            for name, each in verdicts.items()
        ]
        emit_json({"environment": after.environment, "changes": changes})
    elif verdicts:
        if after.environment is not None:
            data(f"{style(after.environment, bold=True)}:")
        rows = []
        for name, each in verdicts.items():
            mark, color = _MARKS[each.effect]
            shown = "unlisted names" if name == _ANY else name
            rows.append([style(f"{mark} {shown}", fg=color), each.effect, escaped(each.reason)])
        print_table(rows)
        remedies: dict[str, list[str]] = {}
        for name, each in verdicts.items():
            if each.remedy is not None:
                remedies.setdefault(each.remedy, []).append("unlisted names" if name == _ANY else name)
        for remedy, names in remedies.items():
            text = f"{', '.join(names)}: {escaped(remedy)}"
            message(text, breaks=True)
    else:
        message("neither layout has a store")
    if any(each.effect not in _HARMLESS for each in verdicts.values()):
        raise SystemExit(1)
