"""YAML: values by the core rules of YAML 1.2, and the location of every key and value, in one loop over the events.

Nothing recurses, so nesting can't exhaust the stack; limits end the loop long before memory or time does.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import yaml
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from storeconf.config.readers import (
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_PROBLEMS,
    MAX_VALUES,
    TWICE,
    Entry,
    Problem,
    ReaderResult,
    foreign,
    shortened,
)
from storeconf.config.readers.yaml_errors import explain

if TYPE_CHECKING:
    from storeconf.config.tree import TreePath

__all__ = ["read_yaml"]

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_BY_ALIASES = 10_000
_MAX_COMPARED = 1_000  # anchors among which a misspelt alias is looked for
_MAX_DIRECTIVES = 20  # libyaml compares each with all before it

_WORDS: Final[dict[str, Any]] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    **{f".{name}": float("nan") for name in ("nan", "NaN", "NAN")},
    **{f"{sign}.{name}": float(f"{sign}inf") for name in ("inf", "Inf", "INF") for sign in ("", "+", "-")},
}  # fmt: skip
_BEGINS: Final = frozenset("-+.0123456789~nNtTfF")
# An integer with leading zeros is a string: 0750 and 0123 keep their digits until a field decides their type.
_NUMBER: Final = re.compile(
    r"([-+]?(?:0|[1-9][0-9]*))"
    r"|([-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)"
    r"|0o([0-7]+)"
    r"|0x([0-9a-fA-F]+)"
)
_TAG: Final = re.compile(r"!<[^>\s]*>|[^\s\[\]{},]*")
_TAG_DIRECTIVE: Final = re.compile("(?:^|[\n\r\x85\u2028\u2029])(%TAG)")

_NO_KEY: Final[Any] = object()
_MERGE: Final[Any] = object()


class _BadKey(str):
    """Replaces an invalid key, so that its value can still be read."""

    __slots__ = ()


class _OpenKey(_BadKey):
    """Replaces such a key until it has ended."""

    __slots__ = ()


class _StopError(Exception):
    """The rest of the text is not read."""


def read_yaml(text: str) -> ReaderResult:
    """Read one document; a text without one gives None."""
    reader = _YamlReader(text)
    reader.read()
    return ReaderResult(reader.value, reader.problems, reader.places, reader.end)


class _YamlReader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.value: Any = None
        self.entry: Entry = (0, 0, None)
        self.problems: list[Problem] = []
        self._stopped = False
        self._open: list[tuple[Any, ...]] = []
        self._firsts: dict[tuple[int, str], int] = {}
        self._ends: dict[int, int] | None = None

    def read(self) -> None:
        """Build the value, or find the problems."""
        error = self._parse()
        if error is not None:
            mark = getattr(error, "problem_mark", None)
            limits = self._limits_before(len(self.text) if mark is None else mark.index)
            inside = self._open[-1][-1] if self._open else None
            self.problems = limits or [*self.problems, explain(self.text, error, inside)]
        elif _LOADER is yaml.SafeLoader and not self.problems:
            self.problems += foreign(self.value, self.places, self.end, surrogates=True)

    def _parse(self) -> Exception | None:
        """Build the value; returns the parser's error, if it raises one."""
        try:
            self._check_directives()
            loader = _LOADER(self.text)
            try:
                self.value, self.entry = self._build(loader.get_event)
            finally:
                loader.dispose()
        except _StopError:
            self._stopped = True  # the problem was reported before
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            return error
        return None

    def _limits_before(self, end: int) -> list[Problem] | None:
        """The problems of the text before ``end``, if a limit of ours is exceeded there.

        A parser looks ahead: it may reach a limit of its own, in brackets alone, before it has given us the events that
        reach ours. Without the rest of the text, it gives them.
        """
        if self.text.count("[", 0, end) + self.text.count("{", 0, end) <= MAX_DEPTH:
            return None
        before = _YamlReader(self.text[:end])
        before._parse()
        return before.problems if before._stopped else None

    def places(self) -> Entry:
        """The location of everything."""
        return self.entry

    def end(self, entry: Entry, key: bool) -> int:
        """The end of the key, or of the value if it is a scalar, an alias or in brackets."""
        if self._ends is None:
            self._ends = _ends(self.text)
        start = entry[0] if key else entry[1]
        return self._ends.get(start, start)

    def _build(self, get: Any) -> tuple[Any, Entry]:
        """The loop: ``value`` and ``entries`` are the open collection, ``key`` is the key of its next value.

        An anchor remembers value, entries, size with all aliases expanded, and its text as a key.
        """
        value: Any = None
        entries: Any = None
        key: Any = _NO_KEY
        key_at = at = 0
        in_mapping = False
        merges: list[tuple[Any, Any]] | None = None
        anchor: str | None = None
        before = values = by_aliases = 0
        anchors: dict[str, tuple[Any, Any, int, str | None]] = {}
        unfinished: set[str] = set()
        stack = self._open
        get()  # the stream's start
        event = get()
        if event.__class__ is StreamEndEvent:
            return None, (0, 0, None)
        while True:
            event = get()
            kind = event.__class__
            child: Any = None
            if kind is ScalarEvent:
                new: Any = event.value
                at = event.start_mark.index
                if event.tag is not None:
                    self._tag(event, value, key)
                if in_mapping and key is _NO_KEY:
                    if event.anchor is not None:
                        plain = self._scalar(event, value, key) if event.implicit[0] else new
                        anchors[event.anchor] = (plain, None, 1, new)
                    if new == "<<" and event.implicit[0]:
                        if merges is not None:
                            self._report(
                                "SC108", "a second merge key", at, at + 2, self._path(value, "<<"),
                                "put several mappings in one list: <<: [*a, *b]",
                            )  # fmt: skip
                        key = _MERGE
                    else:
                        if new in value:
                            self._duplicate(new, at, event.end_mark.index, value, entries)
                        key = new
                    key_at = at
                    continue
                if event.implicit[0] and (not new or new[0] in _BEGINS):
                    new = self._scalar(event, value, key)
                values += 1
                if event.anchor is not None:
                    anchors[event.anchor] = (new, None, 1, event.value)
            elif kind is MappingStartEvent or kind is SequenceStartEvent:
                at = event.start_mark.index
                if event.tag is not None:
                    self._tag(event, value, key)
                if len(stack) >= MAX_DEPTH:
                    self._deep(at)
                if in_mapping and key is _NO_KEY:
                    self._no_scalar(at, value)
                    key, key_at = _OpenKey(f"\0{values}"), at
                values += 1
                stack.append((value, entries, in_mapping, key, key_at, merges, anchor, before, at))
                in_mapping = kind is MappingStartEvent
                value, entries = ({}, {}) if in_mapping else ([], [])
                key, merges, anchor, before = _NO_KEY, None, event.anchor, values + by_aliases
                if anchor is not None:
                    unfinished.add(anchor)
                    anchors.pop(anchor, None)
                continue
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                if merges is not None:
                    for mapping, places in merges:
                        for each in mapping:
                            if each not in value:
                                value[each] = mapping[each]
                                entries[each] = places[each]
                new, child = value, entries
                if anchor is not None:
                    anchors[anchor] = (new, child, values + by_aliases - before + 1, None)
                    unfinished.discard(anchor)
                value, entries, in_mapping, key, key_at, merges, anchor, before, at = stack.pop()
                if key.__class__ is _OpenKey:
                    key = _BadKey(key)
                    continue
            elif kind is AliasEvent:
                at = event.start_mark.index
                found = anchors.get(event.anchor)
                if found is None:
                    self._bad_alias(event, value, key, anchors, unfinished)
                    found = (None, None, 1, "")
                new, child, size, source = found
                by_aliases += size
                if by_aliases > _MAX_BY_ALIASES:
                    self._report(
                        "SC111", f"the aliases up to here expand to more than {_MAX_BY_ALIASES:,} values", at,
                        event.end_mark.index, self._path(value, key), stop=True,
                    )  # fmt: skip
                if child is not None and len(stack) + _height(new) > MAX_DEPTH:
                    self._deep(at)
                if in_mapping and key is _NO_KEY:
                    if source is None:
                        self._no_scalar(at, value)
                        source = _BadKey(f"\0{values}")
                    elif source in value:
                        self._duplicate(source, at, event.end_mark.index, value, entries)
                    key, key_at = source, at
                    continue
            else:
                if kind is DocumentEndEvent:
                    event = get()
                if event.__class__ is not StreamEndEvent:
                    self._report(
                        "SC113", "a second document begins here", event.start_mark.index, event.end_mark.index,
                        hint="a layout is one document; put environments under 'environments'",
                    )  # fmt: skip
                return value, entries
            if values > MAX_VALUES:
                self._report("SC105", f"more than {MAX_VALUES:,} values", at, path=self._path(value, key), stop=True)
            if in_mapping:
                if key is _MERGE:
                    merges = (merges or []) + self._merges(new, child, at, value)
                else:
                    value[key] = new
                    entries[key] = (key_at, at, child)
                key = _NO_KEY
            elif value is None:
                value, entries = new, (at, at, child)
            else:
                value.append(new)
                entries.append((at, at, child))

    # ------------------------------------------------------------------ values

    def _scalar(self, event: Any, value: Any, key: Any) -> Any:
        """The value of a scalar without quotes."""
        text = event.value
        match = _NUMBER.fullmatch(text)
        if match is None:
            return _WORDS.get(text, text)
        if len(text) > MAX_DIGITS:
            start = event.start_mark.index
            self._report(
                "SC116", f"a number of {len(text)} characters", start, event.end_mark.index, self._path(value, key),
                "quote it if it is a string",
            )  # fmt: skip
            return 0
        form = match.lastindex
        if form == 1:
            return int(text)
        if form == 2:
            return float(text)
        return int(text, 0)

    def _merges(self, new: Any, entries: Any, at: int, value: Any) -> list[tuple[Any, Any]]:
        """The mappings that a merge key refers to, each with its locations."""
        if isinstance(new, dict):
            return [(new, entries)]
        found, wrong = [], [at]
        hint = "refer to an anchor (<<: *defaults), or put the key in quotes ('<<') if it is an ordinary one"
        if isinstance(new, list) and (not new or any(isinstance(each, dict) for each in new)):
            pairs = list(zip(new, entries, strict=True))
            found = [(each, entry[2]) for each, entry in pairs if isinstance(each, dict)]
            wrong = [entry[1] for each, entry in pairs if not isinstance(each, dict)]
            hint = "refer to anchors of mappings (<<: [*defaults, *others])"
        for place in wrong:
            path = self._path(value, "<<")
            self._report(
                "SC115", "a merge key must refer to a mapping or a list of mappings", place, path=path, hint=hint
            )
        return found

    # ------------------------------------------------------------------ problems

    def _check_directives(self) -> None:
        if self.text.count("%TAG") > _MAX_DIRECTIVES:
            found = list(islice(_TAG_DIRECTIVE.finditer(self.text), _MAX_DIRECTIVES + 1))
            if len(found) > _MAX_DIRECTIVES:
                at = found[0].start(1)
                self._report("SC112", "too many %TAG directives", at, hint="storeconf does not support tags", stop=True)

    def _path(self, value: Any, key: Any) -> TreePath:
        """The path of the next item of ``value``, the innermost open collection."""
        steps: list[str | int] = []
        for frame in (*self._open, (value, None, None, key)):
            inside, step = frame[0], frame[3]
            if isinstance(step, _BadKey):
                break
            if isinstance(inside, list):
                steps.append(len(inside))
            elif isinstance(inside, dict) and step is not _NO_KEY:
                steps.append("<<" if step is _MERGE else step)
        return tuple(steps)

    def _report(
        self,
        code: str,
        message: str,
        start: int,
        end: int | None = None,
        path: TreePath = (),
        hint: str | None = None,
        notes: tuple[tuple[str, int], ...] = (),
        *,
        stop: bool = False,
    ) -> None:
        self.problems.append(Problem(code, message, start, end, path, hint, notes))
        if stop:
            raise _StopError
        if len(self.problems) == MAX_PROBLEMS:
            self.problems.append(Problem("SC119", f"more than {MAX_PROBLEMS} problems; not all are shown", start))
            raise _StopError

    def _tag(self, event: Any, value: Any, key: Any) -> None:
        hint = "put the value in quotes to make it a string" if event.tag.endswith(":str") else "remove the tag"
        start = event.start_mark.index
        at = max(self.text.find("!", start), start)
        end = at + len(_TAG.match(self.text, at)[0])  # type: ignore[index]  # it matches every text
        self._report("SC112", "tags are not supported", at, end, self._path(value, key), hint)

    def _duplicate(self, key: str, start: int, end: int, value: Any, entries: Any) -> None:
        first = self._firsts.setdefault((id(entries), key), entries[key][0])
        message = f"duplicate key {shortened(key)}"
        self._report("SC108", message, start, end, self._path(value, key), notes=((TWICE, first),))

    def _no_scalar(self, at: int, value: Any) -> None:
        if any(frame[3].__class__ is _OpenKey for frame in self._open):
            return  # inside another such key, which is reported
        path = self._path(value, _NO_KEY)
        hint = "put braces that belong to a string or a template in quotes" if self.text.startswith("{", at) else None
        self._report("SC114", "a key must be a string, not a list or a mapping", at, None, path, hint)

    def _deep(self, at: int) -> None:
        self._report("SC109", f"nested deeper than {MAX_DEPTH} levels", at, stop=True)

    def _bad_alias(self, event: Any, value: Any, key: Any, anchors: dict[str, Any], unfinished: set[str]) -> None:
        name = event.anchor
        shown = name if len(name) <= 60 else f"{name[:57]}..."
        if name in unfinished:
            message, hint = f"the alias *{shown} is inside its own anchor", None
        else:
            message = f"the alias *{shown} has no anchor &{shown} before it"
            near = get_close_matches(shown, islice(anchors, _MAX_COMPARED), n=1)
            hint = f"did you mean *{near[0]}?" if near else "put the value in quotes if it is a string"
        start = event.start_mark.index
        self._report("SC110", message, start, event.end_mark.index, self._path(value, key), hint)


def _height(value: Any) -> int:
    """The number of levels of a collection; the caller has bounded its size."""
    levels, inside = 0, [value]
    while inside:
        levels += 1
        inside = [
            each
            for collection in inside
            for each in (collection.values() if isinstance(collection, dict) else collection)
            if isinstance(each, (dict, list))
        ]
    return levels


def _ends(text: str) -> dict[int, int]:
    """The end of each scalar, alias, and collection in brackets, by its beginning."""
    ends: dict[int, int] = {}
    starts: list[int | None] = []
    loader = _LOADER(text)
    event: Any = None
    try:
        while event.__class__ is not StreamEndEvent:
            event = loader.get_event()
            start, end = event.start_mark, event.end_mark
            if isinstance(event, (ScalarEvent, AliasEvent)):
                ends[start.index] = end.index
            elif isinstance(event, (MappingStartEvent, SequenceStartEvent)):
                starts.append(start.index if event.flow_style else None)
            elif isinstance(event, (MappingEndEvent, SequenceEndEvent)) and (opened := starts.pop()) is not None:
                ends[opened] = end.index
    except (yaml.YAMLError, ValueError, OverflowError):
        pass  # reported when the text was read; the locations before it still help
    finally:
        loader.dispose()
    return ends
