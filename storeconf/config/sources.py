"""From a source to layers, lowest first.

The file (or mapping, or the file that discovery finds) comes with all that it extends, and with the overlays beside
them. Each of these parts, and each section for the environment, becomes a layer.

Longer than other modules, because finding, extending and layering files are one walk, whose steps share what was
read.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from storeconf._text import nearest, slips
from storeconf.config import Stream
from storeconf.config.addresses import PREFIX
from storeconf.config.document import parse, read
from storeconf.config.language import CANDIDATES, FORBIDDEN, NAME_RULE, NOT_HERE, SUFFIXES, valid_name
from storeconf.config.layers import Layer, Place, place_of
from storeconf.config.tree import Removals, TreePath, parse_path
from storeconf.diagnostics import Note
from storeconf.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from storeconf.config import Request
    from storeconf.config.document import Document
    from storeconf.config.merge import Merge
    from storeconf.config.reporter import Reporter

__all__ = ["Files", "Part", "candidates_in", "chosen_environment", "environments_of", "layers_of", "plain_data"]

_SCHEMA: Final = "schema.json"
"""The end of a JSON Schema's file name for editors, so it is not an environment's overlay."""

_DIGITS: Final = re.compile(r"\d+")
_SHORTEST_TYPED: Final = 4  # words in which a typing error is told from another word
_LONG_ENOUGH: Final = 8  # names in which two typing errors are

_MAX_CHAIN: Final = 100
_MAX_DEPTH: Final = 100


@dataclass(eq=False, repr=False, slots=True)
class Part:
    """One document: ``value`` is its top level, ``path`` is None for a mapping, ``shown`` is its name for people.

    ``strays`` are files beside it whose names are almost those of overlays, so that they are not read.
    """

    value: dict[str, Any]
    directory: Path
    document: Document | None = None
    path: Path | None = None
    shown: str = ""
    overlays: dict[str, list[Path]] = field(default_factory=dict)
    strays: list[str] = field(default_factory=list)

    def place(self, path: TreePath, *, key: bool = False) -> Place:
        """The location of a value in this document."""
        layer = "mapping" if self.document is None else "file"
        return {"layer": layer} | place_of(self.document, path, key=key)


@dataclass(frozen=True, slots=True)
class _Extension:
    """A file on the way to the one that is being read, and the entry of the part before it that extends it."""

    identity: str
    shown: str
    extended_by: Part | None = None
    entry: TreePath = ()

    def note(self, message: str) -> Note:
        """Show where this file is extended; places are looked up only now."""
        place = {} if self.extended_by is None else self.extended_by.place(self.entry)
        return Note(message, *(place.get(key) for key in ("file", "line", "column")))


class Files:
    """Reads ``documents``; a file that can't be read is reported, and leaves the reporter incomplete.

    ``names`` has all files that are there, as shown to people.
    """

    def __init__(self, request: Request, report: Reporter, documents: list[Document]) -> None:
        self.documents = documents
        self.names: list[str] = []
        self._request = request
        self._report = report
        self._seen: set[str] = set()
        self._overlays: set[str] = set()
        self._listings: dict[str, list[str] | None] = {}

    def parts(self) -> list[Part]:
        """Return the parts of the source: extended files, depth first as listed, each once, then itself."""
        source = self._request.source
        if isinstance(source, Mapping):
            return self._mapping(source)
        if isinstance(source, Stream):
            return self._stream(source)
        if source is None:
            found = self._discovered()
            return [] if found is None else self._file(self._request.directory / found, found, ())
        shown = os.fspath(source)
        if not isinstance(shown, str):
            raise TypeError(f"a path must be a str, not {type(shown).__name__}")
        if not shown:
            self._fail("SC101", "the file's name is empty", (), {}, hint="name a file")
            return []
        return self._file(self._request.directory / shown, shown, ())

    def overlay(self, part: Part, environment: str) -> Part | None:
        """Return the overlay of a part for one environment, if there is one that no part before it had."""
        complete, self._report.complete = self._report.complete, True
        overlay = self._overlay(part, environment)
        self._report.overlays_complete &= self._report.complete
        self._report.complete &= complete
        return overlay

    # ------------------------------------------------------------------ inside

    def _mapping(self, source: Mapping[str, Any]) -> list[Part]:
        value = plain_data(source, lambda code, message, path: self._fail(code, message, path, {"layer": "mapping"}))
        part = Part(value if isinstance(value, dict) else {}, self._request.directory)
        return [*self._extended(part, ()), part]

    def _stream(self, source: Stream) -> list[Part]:
        try:
            document = parse(source.data, source.format, source.shown)
        except ConfigError as error:
            self._report.complete = False
            self._report.found += error.diagnostics
            return []
        self.documents.append(document)
        self.names.append(document.file)
        part = Part(document.value, self._request.directory, document, shown=document.file)
        return [*self._extended(part, ()), part]

    def _discovered(self) -> str | None:
        """Return the file that ``STORECONF_FILE`` names, else the only candidate, else report why there is none.

        Where variables set the layout, there need be none.
        """
        directory = self._request.directory
        named = self._request.variables.get("STORECONF_FILE")
        if named:
            path = directory / named
            self._request.looks.at(path)
            if "\0" not in named and path.exists():
                return named
            message = f"STORECONF_FILE names {named!r}, which does not exist"
            hint = f"the path is {path}"
            self._fail("SC101", message, (), {"variable": "STORECONF_FILE"}, hint=hint)
            return None
        for name in CANDIDATES:
            self._request.looks.at(directory / name)
        found = candidates_in(directory)
        if len(found) == 1:
            return found[0]
        if found:
            message = f"{' and '.join(found)} could each be the layout in {directory}"
            self._fail("SC202", message, (), {}, hint="name one of them, or set STORECONF_FILE")
            return None
        if any(value and name.startswith(PREFIX) for name, value in self._request.variables.items()):
            return None  # a layout of variables alone
        looked = f"{', '.join(CANDIDATES[:-1])}, and {CANDIDATES[-1]} with [tool.storeconf]"
        message = f"no layout was named, STORECONF_FILE is not set, and {directory} holds none of {looked}"
        self._fail("SC201", message, (), {}, hint="name a file, write one (storeconf init), or set variables")
        return None

    def _overlay(self, part: Part, environment: str) -> Part | None:
        paths = part.overlays.get(environment, [])
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths)
            self._fail(
                "SC209",
                f"{part.shown} has two overlays for environment {environment!r}: {names}",
                (),
                {"file": _beside(part.shown, paths[1].name), "layer": "overlay"},
                hint="keep one of them, in one format",
            )
        if not paths or (identity := _identity(paths[0])) in self._overlays:
            return None
        self._overlays.add(identity)
        return self._read(paths[0], _beside(part.shown, paths[0].name))

    def _fail(
        self,
        code: str,
        message: str,
        path: TreePath,
        place: Place,
        *,
        hint: str | None = None,
        notes: tuple[Note, ...] = (),
    ) -> None:
        self._report.complete = False
        self._report.add(code, message, path, place=place, hint=hint, notes=notes)

    def _read(self, path: Path, shown: str, step: _Extension | None = None) -> Part | None:
        self._request.looks.at(path)
        try:
            document = read(path, shown)
        except ConfigError as error:
            self._report.complete = False
            self.names.append(str(error.diagnostics[0].file))
            for each in error.diagnostics:
                why = step is not None and step.extended_by is not None and each.line is None
                notes = (step.note("it is extended here"),) if step is not None and why else ()
                self._report.found.append(replace(each, notes=(*each.notes, *notes)))
            return None
        self.documents.append(document)
        self.names.append(document.file)
        value = document.value
        return Part({} if value is None else value, path.parent, document, path, shown)

    def _file(
        self, path: Path, shown: str, trail: tuple[_Extension, ...], step: _Extension | None = None
    ) -> list[Part]:
        step = step or _Extension(_identity(path), shown)
        trail = (*trail, step)
        self._seen.add(step.identity)
        part = self._read(path, shown, step)
        if part is None:
            return []
        part.overlays, part.strays = self._siblings(path)
        return [*self._extended(part, trail), part]

    def _extended(self, part: Part, trail: tuple[_Extension, ...]) -> list[Part]:
        entries = part.value.get("extends")
        if entries is None:
            return []
        if not isinstance(entries, list):
            hint = f"write [{entries}]" if isinstance(entries, str) else None
            self._fail("SC205", "extends must be a list of paths", ("extends",), part.place(("extends",)), hint=hint)
            return []
        parts = []
        for number, entry in enumerate(entries):
            path: TreePath = ("extends", number)
            if not isinstance(entry, str) or not entry:
                self._fail("SC205", "each entry of extends must be a file path", path, part.place(path))
                continue
            target = part.directory / entry
            shown = _beside(part.shown, entry) if part.document is not None else entry
            step = _Extension(_identity(target), shown, part, path)
            cycle = [each.identity for each in trail]
            if step.identity in cycle:
                self._report_cycle((*trail[cycle.index(step.identity) :], step))
            elif len(trail) >= _MAX_CHAIN:
                message = f"the chain of extended files is longer than {_MAX_CHAIN}"
                self._fail("SC205", message, path, part.place(path))
            elif step.identity not in self._seen and self._there(target, entry, path, part):
                parts += self._file(target, shown, trail, step)
        return parts

    def _there(self, target: Path, entry: str, path: TreePath, part: Part) -> bool:
        self._request.looks.at(target)
        try:
            os.stat(target)
        except (OSError, ValueError) as error:
            why = "does not exist"
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                why = f"can't be read: {error.strerror}"
            hint = None
            if "${" in entry:
                hint = "paths under extends are literal: nothing is substituted in them"
            elif entry.startswith("~"):
                hint = "'~' is not expanded; write a path relative to this file"
            elif isinstance(error, FileNotFoundError):
                hint = self._near_file(target)
            message = f"extended file {entry!r} {why}"
            self._fail("SC203", message, path, part.place(path), hint=hint)
            return False
        return True

    def _near_file(self, target: Path) -> str | None:
        """A hint to the file or directory that was probably meant."""
        while target.name and not target.parent.is_dir():
            target = target.parent
        try:
            near = nearest(target.name, sorted(os.listdir(target.parent)))
        except (OSError, ValueError):
            return None
        return None if near is None else f"did you mean {near!r}?"

    def _report_cycle(self, steps: tuple[_Extension, ...]) -> None:
        """Report files that extend each other; the last step is the first file again."""
        notes = tuple(after.note(f"{before.shown} extends {after.shown}") for before, after in pairwise(steps))
        names = " → ".join(step.shown for step in (*steps[:-1], steps[0]))
        last = steps[-1]
        place = {} if last.extended_by is None else last.extended_by.place(last.entry)
        message = f"circular extends: {names}"
        # Each of them is read once, so nothing is missing.
        self._report.add("SC204", message, last.entry, place=place, notes=notes)

    def _siblings(self, path: Path) -> tuple[dict[str, list[Path]], list[str]]:
        """Return the overlays beside a file, by environment, and the names of files that are almost overlays."""
        self._request.looks.at(path, beside=True)
        directory = str(path.parent)
        if directory not in self._listings:
            try:
                self._listings[directory] = sorted(os.listdir(directory))
            except (OSError, ValueError):
                self._listings[directory] = None
        names = self._listings[directory]
        if names is None:
            names = self._without_listing(path)
        found: dict[str, list[Path]] = {}
        strays = []
        start = f"{path.stem}."
        for name in names:
            if name[: len(start)].lower() == start.lower() and name not in (path.name, f"{start}{_SCHEMA}"):
                environment, _, suffix = name[len(start) :].rpartition(".")
                if f".{suffix}" in SUFFIXES and valid_name(environment) and name.startswith(start):
                    found.setdefault(environment, []).append(path.parent / name)
                elif environment and f".{suffix.lower()}" in SUFFIXES:
                    strays.append(name)
        return found, strays

    def _without_listing(self, path: Path) -> list[str]:
        """Return the overlays of the chosen environment in a directory that may be entered but not listed."""
        environment = self._request.environment or self._request.variables.get("STORECONF_ENV")
        if not valid_name(environment):
            return []
        names = (f"{path.stem}.{environment}{suffix}" for suffix in SUFFIXES)
        return [name for name in names if os.path.lexists(path.parent / name)]


def plain_data(value: Any, fail: Callable[[str, str, TreePath], None], path: TreePath = ()) -> Any:
    """Copy values from code into plain data; values that files can't contain are left as they are, or fail."""
    if len(path) > _MAX_DEPTH:
        fail("SC212", f"mappings and lists are nested deeper than {_MAX_DEPTH} levels", path[:3])
        return {}
    if isinstance(value, Mapping):
        out = {}
        for key, item in value.items():
            if isinstance(key, str):
                out[str(key)] = plain_data(item, fail, (*path, str(key)))
            else:
                fail("SC212", f"a key must be a str, not {type(key).__name__}", (*path, str(key)))
        return out
    if isinstance(value, list | tuple):
        return [plain_data(item, fail, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return str.__str__(value)
    return value


def _beside(shown: str, name: str) -> str:
    """Name a file beside, or relative to, the one shown as ``shown``, without needless steps."""
    joined = os.path.join(os.path.dirname(shown), name)
    short = os.path.normpath(joined)
    try:  # after a symbolic link, '..' is not the directory in the text
        return short if os.path.samefile(short, joined) else joined
    except (OSError, ValueError):
        return joined


def _identity(path: Path) -> str:
    """A text that is equal for two paths of one file."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # no file can have such a name, or the working directory is gone
        return str(path)


# ---------------------------------------------------------------------- discovery


def candidates_in(directory: Path) -> list[str]:
    """Return the names of the files in a directory that discovery takes for layouts."""
    return [name for name in CANDIDATES if _counts(directory / name)]


def _counts(path: Path) -> bool:
    if path.name != CANDIDATES[-1]:
        return path.is_file() or path.is_symlink()
    try:
        data = path.read_bytes()
    except OSError:
        return False
    if b"storeconf" not in data:
        return False
    try:
        tool = tomllib.loads(data.decode()).get("tool")
    except (ValueError, RecursionError):
        return b"tool.storeconf" in data  # reading it will report the error
    return isinstance(tool, dict) and "storeconf" in tool


# ---------------------------------------------------------------------- layers

_HANDLED: Final = frozenset({"$schema", "extends", "environments", "unset"})
"""The top-level keys that are not part of the layout itself."""


def environments_of(parts: list[Part]) -> tuple[str, ...]:
    """Return all environments that the parts declare, by section or overlay, in the order of their first mention."""
    names: dict[str, None] = {}
    for part in parts:
        sections = part.value.get("environments")
        if isinstance(sections, dict):
            names |= dict.fromkeys(filter(valid_name, sections))
        names |= dict.fromkeys(sorted(part.overlays))
    return tuple(names)


def chosen_environment(request: Request, known: tuple[str, ...], parts: list[Part], report: Reporter) -> str | None:
    """Return the environment that is chosen, and report one that does not exist, or that none is chosen."""
    chosen, place = request.environment, {}
    if chosen is None and request.variables.get("STORECONF_ENV"):
        chosen, place = request.variables["STORECONF_ENV"], {"variable": "STORECONF_ENV"}
    if chosen is not None and chosen not in known:
        near = nearest(chosen, known)
        there = f"there are {', '.join(known)}" if known else "the layout declares none, by section or overlay"
        if not chosen:
            there += "; leave --env or environment= out to choose none"
        hint = f"did you mean {near!r}? {there[0].upper()}{there[1:]}" if near else there
        message = f"unknown environment {chosen!r}" if chosen else "the name of the environment is empty"
        report.add("SC206", message, place=place, hint=hint, lacking=True)
    _check_overlay_names(known, parts, report)
    if chosen is None and known:
        message = f"no environment is chosen, and the layout declares {', '.join(known)}"
        hint = "give one (--env, environment=, or STORECONF_ENV); only the base configuration applies"
        declaring = next((part for part in reversed(parts) if part.value.get("environments")), None)
        location: Place = (
            {"file": parts[-1].shown} if declaring is None else declaring.place(("environments",), key=True)
        )
        report.add("SC803", message, place=location, hint=hint, severity="warning")
    return chosen


def _check_overlay_names(known: tuple[str, ...], parts: list[Part], report: Reporter) -> None:
    """Warn of files that were probably meant as overlays of another environment, or are not read at all."""
    if not known:
        return
    declared = {
        name
        for part in parts
        if isinstance(part.value.get("environments"), dict)
        for name in part.value["environments"]
    }
    for part in parts:
        meant = [(name, near) for name in part.strays if (near := _environment_meant(part, name, known))]
        for name, near in meant:
            file = _beside(part.shown, name)
            right = f"{Path(part.shown).stem}.{near}{Path(name).suffix.lower()}"
            message = f"{file} is not read: the overlay of environment {near!r} is called {right}"
            place: Place = {"file": file, "layer": "overlay"}
            path = ("environments", near)
            report.add("SC809", message, path, place=place, severity="warning", hint="rename it, or move it elsewhere")
        for name in part.overlays:
            others = declared - {name} if declared else set(known) - {name}
            near = None if name in declared else _mistyped(name, sorted(others))
            if near is not None:
                file = _beside(part.shown, part.overlays[name][0].name)
                message = f"{file} is the overlay of an environment {name!r}, but {near!r} exists"
                hint = f"did you mean {Path(part.shown).stem}.{near}{part.overlays[name][0].suffix}?"
                place = {"file": file, "layer": "overlay"}
                report.add("SC809", message, ("environments", name), place=place, severity="warning", hint=hint)


def _environment_meant(part: Part, name: str, known: tuple[str, ...]) -> str | None:
    """Return the known environment of a file that only almost has the name of an overlay."""
    written = name[len(Path(part.shown).stem) + 1 :].rpartition(".")[0]
    plain = re.sub("[^a-z0-9]", "", written.lower())
    same = next((each for each in known if re.sub("[^a-z0-9]", "", each.lower()) == plain), None)
    return same or (_mistyped(written, known) if valid_name(written) else None)


def _mistyped(name: str, known: Iterable[str]) -> str | None:
    """Return the environment of whose name this one is a typing error; us-east and us-west are not."""
    for each in known:
        one, other = (re.split("[-_]", text.lower()) for text in (name, each))
        if one == other or "".join(one) == "".join(other):
            return each
        if _DIGITS.sub("", name) == _DIGITS.sub("", each):
            continue
        pairs = [(a, b) for a, b in zip(one, other, strict=False) if a != b]
        short = any(min(len(a), len(b)) < _SHORTEST_TYPED or a[0] != b[0] for a, b in pairs)
        most = 1 if len(each) < _LONG_ENOUGH else 2
        if len(one) == len(other) and not short and slips(name.lower(), each.lower()) <= most:
            return each
    return None


def layers_of(parts: list[Part], files: Files, environment: str | None, merge: Merge, report: Reporter) -> list[Layer]:
    """All plain parts, then all of the environment's sections, then all of its overlays, in the parts' order."""
    layers = []
    for part in parts:
        _check_sections(part, report)
        layers.append(_layer("mapping" if part.document is None else "file", part, part.value, (), merge, report))
    if environment is None:
        return layers
    for part in parts:
        sections = part.value.get("environments")
        section = sections.get(environment) if isinstance(sections, dict) else None
        if isinstance(section, dict):
            layers.append(_layer("environment", part, section, ("environments", environment), merge, report))
    for part in parts:
        overlay = files.overlay(part, environment)
        if overlay is not None:
            layers.append(_layer("overlay", overlay, overlay.value, (), merge, report))
    return layers


def _check_sections(part: Part, report: Reporter) -> None:
    sections = part.value.get("environments")
    if sections is not None and not isinstance(sections, dict):
        message = "environments must be a mapping from names to changes"
        report.add("SC207", message, ("environments",), place=part.place(("environments",)))
        return
    for name, section in (sections or {}).items():
        path = ("environments", name)
        if not valid_name(name):
            message = f"{name!r} can't name an environment"
            report.add("SC509", message, path, place=part.place(path, key=True), hint=NAME_RULE)
        if section is not None and not isinstance(section, dict):
            report.add("SC207", f"environment {name!r} must be a mapping", path, place=part.place(path))


def _layer(kind: str, part: Part, value: dict[str, Any], prefix: TreePath, merge: Merge, report: Reporter) -> Layer:
    misplaced = NOT_HERE.get(kind, frozenset())
    data = {}
    for key, set_to in value.items():
        if key in misplaced:
            where = "an environment" if kind == "environment" else "an overlay"
            place = part.place((*prefix, key), key=True) | {"layer": kind}
            report.add("SC208", f"{where} can't hold {key!r}", (*prefix, key), place=place)
        elif key not in _HANDLED and key[:2] != "x-":
            data[key] = set_to
    layer = Layer(kind, data, part.directory, part.document, prefix)
    if value.get("unset") is not None:
        _unset(layer, value["unset"], merge, report)
    return layer


def _unset(layer: Layer, entries: Any, merge: Merge, report: Reporter) -> None:
    """Put the removals that ``unset`` names below the layer's other values."""
    if not isinstance(entries, list):
        message = "unset must be a list of dotted paths"
        report.add("SC210", message, (*layer.prefix, "unset"), place=layer.place(("unset",)))
        return
    removals: Any = Removals()
    unset: dict[TreePath, int] = {}
    for number, entry in enumerate(entries):
        path = parse_path(entry) if isinstance(entry, str) else None
        if path is None or path[0] in FORBIDDEN:
            message = "each entry of unset must be a dotted path, such as stores.main.tls"
            if path is not None:
                message = f"{path[0]!r} can't be unset"
            where = ("unset", number)
            report.add("SC210", message, (*layer.prefix, *where), place=layer.place(where))
            continue
        unset[path] = number
        removal: Any = None
        for step in reversed(path):
            removal = Removals({step: removal})
        removals = merge.combine(removals, removal, one_layer=True)
    layer.data = dict(merge.combine(removals, layer.data, one_layer=True))
    layer.unset = unset
    layer.plain = False
