"""The two highest layers: the environment variables, and the overrides of a call or of ``--set PATH=VALUE``.

``STORECONF__STORES__SESSIONS__URL`` sets ``stores.sessions.url``. Texts become values of the types that the fields
take.

Longer than other modules, because variables and overrides share the way from a text to a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from storeconf._text import almost, close, slips
from storeconf.config.addresses import PREFIX, SUFFIX, Names, kind_key, variable_name
from storeconf.config.document import BYTE_ORDER_MARK, MARKED, SecretFile, SecretText, parse, read_secret
from storeconf.config.fields import TEXT
from storeconf.config.language import FORBIDDEN, SWITCHES
from storeconf.config.layers import Layer
from storeconf.config.merge import NO_KIND, Rules, kind_of
from storeconf.config.sources import plain_data
from storeconf.config.tree import (
    MISSING,
    Items,
    Placeholder,
    Removals,
    Text,
    TreePath,
    dotted,
    is_middleware_path,
    item_index,
    lookup,
    parse_path,
)
from storeconf.diagnostics import Fault
from storeconf.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from storeconf.catalog import Catalog
    from storeconf.config import Overrides, Request
    from storeconf.config.fields import Expect
    from storeconf.config.merge import Merge
    from storeconf.config.reporter import Reporter
    from storeconf.diagnostics import Severity

__all__ = [
    "OURS",
    "Variable",
    "at",
    "declared",
    "iter_variables",
    "parse_overrides",
    "read_overrides",
    "read_variables",
]

OURS: Final = "STORECONF_"
"""How the names of all variables of storeconf begin."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that could override a value: its name and path, and whether the value is a secret."""

    name: str
    path: TreePath
    secret: bool


@dataclass(frozen=True, repr=False, slots=True)
class _Assignment:
    name: str
    value: Any


def iter_variables(tree: dict[str, Any], catalog: Catalog) -> Iterator[Variable]:
    """Every variable that could override something in ``tree``, by path."""
    names = Names(tree, Rules(catalog))
    for path in names.paths():
        yield Variable(variable_name(path), path, names.expect(path).secret)


def read_variables(
    request: Request, given: Sequence[str], tree: dict[str, Any], later: dict[str, Any], merge: Merge, report: Reporter
) -> Layer | None:
    """Return the layer of the variables whose names are given, over ``tree``.

    ``later`` are the values of the overrides: a store that only they declare can be set by variables too.
    """
    return _VariablesReader(request, later, merge, report).read(sorted(given), tree)


class _VariablesReader:
    def __init__(self, request: Request, later: dict[str, Any], merge: Merge, report: Reporter) -> None:
        self._request = request
        self._environ = request.variables
        self._later = later
        self._report = report
        self._merge = merge
        self._rules = merge.rules
        self._settings: dict[TreePath, _Assignment] = {}

    def read(self, given: Sequence[str], tree: dict[str, Any]) -> Layer | None:
        kinds: list[tuple[str, list[str]]] = []
        others: list[tuple[str, list[str]]] = []
        for name in given:
            if name.startswith(PREFIX):
                segments = name[len(PREFIX) :].split("__")
                if segments[0].lower() in FORBIDDEN:
                    hint = f"write {segments[0].lower()!r} in a file"
                    self._fail("SC303", name, f"a variable can't set {segments[0].lower()!r}", hint=hint)
                else:
                    (kinds if _sets_kind(segments, self._environ[name]) else others).append((name, segments))
        # Kinds go first: the other variables are matched against the fields of the kinds that come of it.
        names = Names(_declared(tree, self._later), self._rules)
        for name, segments in sorted(kinds, key=lambda each: len(each[1])):
            self._set(name, segments, names, create=True)
        if self._settings:
            self._newcomers(tree)
            names = Names(_declared(self._merge.apply(tree, self._patch()), self._later), self._rules)
        for name, segments in sorted(others, key=lambda each: (len(each[1]), _indices(each[1]))):
            self._set(name, segments, names)
        for name in given:
            if not name.startswith(OURS):
                self._other_case(name, names)
            elif not name.startswith(PREFIX) and name not in SWITCHES:
                self._stranger(name, names)
        self._contradictions()
        if not self._settings:
            return None
        variables = {path: setting.name for path, setting in self._settings.items()}
        return Layer("variable", self._patch(), self._request.directory, variables=variables, plain=False)

    # ------------------------------------------------------------------ one variable

    def _set(self, name: str, segments: list[str], names: Names, *, create: bool = False) -> None:
        try:
            found = names.find(segments, create=create)
        except Fault as misfit:
            self._misfit(name, segments, names, misfit)
            return
        before = self._settings.get(found.path)
        if before is not None:
            hint = "unset one of them"
            self._fail("SC306", name, f"{before.name} and {name} both set {dotted(found.path)}", found.path, hint=hint)
            return
        removes = not found.from_file and self._environ[name] == "null"
        value: Any = self._from_file(name, found.path) if found.from_file else self._environ[name]
        if value is None:
            return
        if removes:
            if isinstance(found.path[-1], int):
                self._fail(
                    "SC305",
                    name,
                    f"{dotted(found.path)}: an item of a list can't be removed",
                    found.path,
                    hint="set the whole list",
                )
                return
            value = None
        elif value.__class__ is not Placeholder:
            try:
                value = value_of(value, found.expect, found.path)
            except Fault as fault:
                # A parser's message may contain a part of the secret.
                reason = f"{found.expect.what} is expected" if found.from_file else fault.reason
                self._fail(
                    fault.code, name, f"{dotted(found.path)}: {reason}", found.path, hint=fault.hint, lacking=True
                )
                if not _is_setting(found.path):
                    return
                value = Placeholder("?")  # so that users of this setting are not reported as well
            else:
                if found.from_file:
                    value = self._tainted(value, self._environ[name])
        names.note(found.path, value)
        self._settings[found.path] = _Assignment(name, value)

    def _from_file(self, name: str, where: TreePath) -> str | None:
        """Return the text of the file that a variable names, None where there is none."""
        path = self._environ[name]
        self._request.looks.at(self._request.directory / path)
        try:
            text = read_secret(self._request.directory / path)
        except Fault as error:
            if error.absent and self._request.without_secrets:
                return Placeholder(f"${{file:{path}}}")
            self._fail("SC307", name, f"the file {path!r}, which {name} names, {error.reason}", where)
            return None
        if not text:
            message = f"the file {path!r}, which {name} names, is empty, so the variable counts as unset"
            self._fail("SC805", name, message, where, severity="warning")
            return None
        if text.startswith(BYTE_ORDER_MARK):
            message = f"the file {path!r}, which {name} names, {MARKED}"
            self._fail("SC810", name, message, where, severity="warning")
        return self._report.redactor.taint(text)

    def _tainted(self, value: Any, file: str | None = None) -> Any:
        """Return the content of a file, with every text and number in it as secret; their fields decide their types.

        One text that is all that the ``file`` holds can be read again.
        """
        if isinstance(value, dict):
            return {key: self._tainted(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._tainted(item) for item in value]
        if value is None or isinstance(value, bool):
            return value
        source = None if file is None else SecretFile(self._request.directory / file)
        if source is None or not source.is_lasting:
            return self._report.redactor.taint(str(value))
        return self._report.redactor.taint(str(value), SecretText((source,)))

    def _patch(self) -> dict[str, Any]:
        patch: dict[str, Any] = {}
        for path in sorted(self._settings, key=lambda path: (len(path), [str(step).zfill(9) for step in path])):
            value = self._settings[path].value
            patched = _removal(path) if value is None else at(path, value)
            patch = self._merge.combine(patch, patched, one_layer=True)
        return patch

    def _contradictions(self) -> None:
        """Report variables of which one sets, or removes, a part of a value that another one sets as a whole."""
        for path, setting in sorted(self._settings.items(), key=lambda each: len(each[0])):
            for length in range(1, len(path)):
                whole = self._settings.get(path[:length])
                where = None if whole is None else self._overlap(whole.value, path[:length], path, setting.value)
                if whole is not None and where is not None:
                    both = f"{whole.name} and {setting.name} contradict each other"
                    what = f"{both}: both set {dotted(where)}"
                    if whole.value is None or whole.value is False:
                        word = "removes" if whole.value is None else "disables"
                        what = f"{both}: the first {word} {dotted(path[:length])}, the second sets {dotted(path)}"
                    elif where == path[:length]:
                        what = f"{both}: both set {dotted(where)}, the second as a mapping"
                    self._fail("SC306", setting.name, what, path, hint="unset one of them")

    def _overlap(self, whole: Any, base: TreePath, path: TreePath, value: Any) -> TreePath | None:
        """Return where a value for ``base`` and one for ``path`` inside it set the same; None for nowhere."""
        here, at_step = whole, base
        for step in path[len(base) :]:
            expanded = self._rules.expanded(at_step[-1], here) if is_middleware_path(at_step) else None
            here = here if expanded is None else expanded
            if here is True or (isinstance(here, str) and here.lower() == "true"):
                return None  # switched on, and its details
            if isinstance(here, list) and isinstance(step, int):
                return None  # an item on top of the whole list
            if isinstance(here, dict):
                here = here.get(str(step), MISSING)
            else:
                return at_step
            if here is MISSING:
                return None
            at_step = (*at_step, step)
        if isinstance(here, dict) and isinstance(value, dict):
            inner = (self._overlap(here, at_step, (*at_step, key), item) for key, item in value.items())
            return next(filter(None, inner), None)
        return at_step

    # ------------------------------------------------------------------ variables that do not match

    def _fail(
        self,
        code: str,
        name: str,
        message: str,
        path: TreePath = (),
        *,
        hint: str | None = None,
        severity: Severity = "error",
        lacking: bool = False,
    ) -> None:
        place = {"variable": name, "layer": "variable"}
        self._report.add(code, message, path, place=place, hint=hint, severity=severity, lacking=lacking)

    def _newcomers(self, tree: dict[str, Any]) -> None:
        """Warn of new stores whose names are similar to existing ones."""
        stores = tree.get("stores")
        if not isinstance(stores, dict):
            return
        for path, setting in self._settings.items():
            new = str(path[1]) if len(path) > 1 and path[0] == "stores" else None
            near = None if new is None or new in stores else almost(new, stores)
            if near is not None:
                message = f"{setting.name} creates a new store {new!r}, but {near!r} exists"
                hint = f"did you mean {_spelt(('stores', near, *path[2:]), setting.name)}?"
                self._fail("SC806", setting.name, message, path[:2], hint=hint, severity="warning", lacking=True)

    def _misfit(self, name: str, segments: list[str], names: Names, misfit: Fault) -> None:
        if misfit.code == "SC302":
            both = "rename one of them, or set the value in a file"
            self._fail("SC302", name, f"{name} is ambiguous: {misfit.reason}", misfit.path, hint=both, lacking=True)
            return
        meant = names.meant(segments)
        hint = misfit.hint
        if meant is not None:
            hint = f"did you mean {_spelt(meant, name)}, which sets {dotted(meant)}?"
        elif misfit.path == ("stores",):
            hint = "; ".join(filter(None, ("a variable creates a new store only by its TYPE, PARENT or USE", hint)))
        message = f"{name} does not match any setting: {misfit.reason}"
        self._fail(misfit.code, name, message, meant or misfit.path, hint=hint, lacking=True)

    def _other_case(self, name: str, names: Names) -> None:
        """Warn of a variable that would be ours if its name began with capital letters."""
        upper = name.upper()
        if not upper.startswith(PREFIX) and upper not in SWITCHES:
            return
        path: TreePath = ()
        right = upper
        if upper.startswith(PREFIX):
            segments = name[len(PREFIX) :].split("__")
            if segments == ["stores"] and not self._environ[name].lstrip().startswith("{"):
                return  # it could not set anything
            right = PREFIX + "__".join(segments)
            try:
                path = names.find(segments, create=True).path
            except Fault:
                path = names.meant(segments) or ()
        message = f"{name} is not read: the names of storeconf's variables begin with {OURS}, in capital letters"
        self._fail("SC804", name, message, path, hint=f"did you mean {right.upper()}?", severity="warning")

    def _stranger(self, name: str, names: Names) -> None:
        """Report a variable of ours with one underscore; other programs may set such, so most are only warned of."""
        rest = name[len(OURS) :]
        known = {switch[len(OURS) :]: switch for switch in SWITCHES}
        near = [each for each in known if slips(rest.upper(), each) == 1]
        near = near or list(filter(None, [close(rest.upper(), known)]))
        near = near or [each for each in known if rest.upper().startswith(each) and rest[len(each) :].isalpha()]
        segments = rest.split("__")
        meant = None if near else names.spelt(segments)
        if near:
            self._fail("SC304", name, f"unknown variable {name}", hint=f"did you mean {known[near[0]]}?")
        elif meant is not None:
            hint = f"did you mean {_spelt(meant, name)}, with two underscores?"
            self._fail("SC304", name, f"unknown variable {name}", meant, hint=hint)
        elif len(segments) > 1 and segments[0].lower() in ("stores", "default_factory", *FORBIDDEN):
            hint = f"did you mean {PREFIX}{rest}, with two underscores after STORECONF?"
            self._fail("SC304", name, f"unknown variable {name}", hint=hint)
        else:
            hint = f"storeconf reads {', '.join(SWITCHES)} and those that begin with {PREFIX}"
            self._fail("SC804", name, f"unrecognized variable {name}", hint=hint, severity="warning")


def _is_setting(path: TreePath) -> bool:
    """Whether a path is that of one setting of a kind, not of a store, its chain or a link of that."""
    holder = 2 if path[0] == "stores" else 1
    return len(path) > holder and path[holder:] != ("middleware",) and not is_middleware_path(path)


def _sets_kind(segments: Sequence[str], text: str) -> bool:
    """Whether a variable can set a store's kind: it sets the kind's field, or all of the store as a mapping."""
    top = segments[0].lower()
    depth = {"stores": 2, "default_factory": 1}.get(top, 0)
    if len(segments) == depth + 1:
        return kind_key(segments[-1])
    return len(segments) <= depth and text.lstrip().startswith("{")


def _declared(tree: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Return the tree with the kinds that only the overrides set."""
    stores, more = tree.get("stores"), later.get("stores")
    if not isinstance(more, dict):
        return tree
    out = dict(stores) if isinstance(stores, dict) else {}
    for name, fields in more.items():
        if isinstance(fields, dict) and kind_of(fields) != NO_KIND:
            there = out.get(name)
            if not isinstance(there, dict):
                out[name] = fields
            elif kind_of(there) == NO_KIND:
                out[name] = {**there, **fields}
    return {**tree, "stores": out}


def _indices(segments: Sequence[str]) -> list[str]:
    return [segment.zfill(9) if segment.isdigit() else segment for segment in segments]


def _spelt(path: TreePath, given: str) -> str:
    """The right name for a path, with the suffix ``_FILE`` if the given name has it."""
    name = variable_name(path)
    return name + SUFFIX if given.upper().endswith(SUFFIX) and not name.endswith(SUFFIX) else name


# ---------------------------------------------------------------------- overrides

_PLACE = {"layer": "override"}


def parse_overrides(overrides: Overrides, report: Reporter) -> list[tuple[tuple[str, ...], Any]]:
    """Return paths and values. In pairs of texts, ``null`` removes, as None does in a mapping."""

    def fail(code: str, message: str, path: TreePath) -> None:
        report.add(code, message, path, place=_PLACE)

    parsed: list[tuple[tuple[str, ...], Any]] = []
    mapping = isinstance(overrides, Mapping)
    for key, given in overrides.items() if isinstance(overrides, Mapping) else overrides:
        path = parse_path(key) if isinstance(key, str) else None
        if path is None:
            hint = "write the names from the top, with dots between them: stores.main.url"
            report.add("SC308", f"{key!r} is not a path", place=_PLACE, hint=hint)
        elif path[0] in FORBIDDEN:
            hint = f"write {path[0]!r} in a file"
            report.add("SC303", f"an override can't set {path[0]!r}", path, place=_PLACE, hint=hint)
        else:
            value = None if not mapping and given == "null" else plain_data(given, fail, path)
            parsed.append((path, value))
    return parsed


def declared(parsed: list[tuple[tuple[str, ...], Any]], merge: Merge) -> dict[str, Any]:
    """Return the overrides before their texts have types: the stores that they declare, and their kinds."""
    patch: dict[str, Any] = {}
    for path, value in parsed:
        patch = merge.combine(patch, at(path, value), one_layer=True)
    return merge.completed(patch)


def read_overrides(
    request: Request,
    parsed: list[tuple[tuple[str, ...], Any]],
    tree: dict[str, Any],
    merge: Merge,
    report: Reporter,
) -> Layer | None:
    """Return the layer of overrides over ``tree``."""
    names = Names(merge.apply(tree, declared(parsed, merge)), merge.rules)
    patch: dict[str, Any] = {}
    for path, value in parsed:
        try:
            place = _indexed(path, tree)
            patched = _removal(place) if value is None else at(place, _typed(value, place, names))
        except Fault as fault:
            message = f"{dotted(path)}: {fault.reason}"
            report.add(fault.code, message, path, place=_PLACE, hint=fault.hint, lacking=True)
            if fault.code != "SC305" or not _is_setting(path):
                continue
            patched = at(place, Placeholder("?"))  # so that users of this setting are not reported as well
        patch = merge.combine(patch, patched, one_layer=True)
        tree = merge.apply(tree, patched)
    return Layer("override", patch, request.directory, plain=False) if patch else None


def _indexed(path: tuple[str, ...], tree: dict[str, Any]) -> TreePath:
    """Read the steps into lists as indices."""
    place: TreePath = ()
    for step in path:
        items = lookup(tree, place)
        if isinstance(items, list):
            index = item_index(step)
            if index is None or index > len(items):
                hint = f"write an index, at most {len(items)}, which appends one"
                raise Fault("SC308", f"no item {step!r} at {dotted(place)}", hint)
            place = (*place, index)
        else:
            place = (*place, step)
    return place


def _removal(path: TreePath) -> Any:
    if isinstance(path[-1], int):
        raise Fault("SC308", "an item of a list can't be removed", "set the whole list")
    patch: Any = None
    for step in reversed(path):
        patch = Items({step: patch}) if isinstance(step, int) else Removals({step: patch})
    return patch


def _typed(value: Any, path: TreePath, names: Names) -> Any:
    """Return a value whose texts have the types that their places want."""
    if isinstance(value, dict):
        return {key: _typed(item, (*path, key), names) for key, item in value.items()}
    if isinstance(value, str):
        expect = names.expect(path)
        return value_of(value, expect if expect.listing or expect.mapping else TEXT, path)
    return literal(value)


# ---------------------------------------------------------------------- texts


def value_of(text: str, expect: Expect, path: TreePath) -> Any:
    """Return the value of ``text`` at ``path``: a list or mapping in JSON or YAML flow if the field takes one.

    All other texts stay texts, whose type the field decides. Raises `Fault`.
    """
    if is_middleware_path(path) and text.lower() in ("true", "false"):
        return text.lower() == "true"
    flow = text.strip()
    if (expect.listing or expect.mapping) and flow[:1] in ("[", "{"):
        wanted = expect.listing if flow[0] == "[" else expect.mapping
        try:
            value = _flow(flow)
        except ConfigError as error:
            if not expect.scalar:
                reason = str(error.diagnostics[0].message)
                raise Fault("SC305", f"the text is neither JSON nor YAML flow: {reason}", _how(expect)) from None
        else:
            if wanted and isinstance(value, list | dict):
                return literal(value)
    if expect.scalar:
        return Text(text)
    raise Fault("SC305", f"{expect.what} is expected", _how(expect))


def literal(value: Any) -> Any:
    """Return plain data whose strings are `Text`: never interpolated, and of the type that their field decides."""
    if isinstance(value, dict):
        return {key: literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [literal(item) for item in value]
    return Text(value) if value.__class__ is str else value


def at(path: TreePath, value: Any) -> Any:
    """Return the patch that sets ``value`` at ``path`` and nothing else."""
    for step in reversed(path):
        value = Items({step: value}) if isinstance(step, int) else {step: value}
    return value


def _flow(text: str) -> Any:
    """Parse one list or mapping; a document must be a mapping, so it is made the only value of one."""
    try:
        found = parse(f'{{"value": {text}}}'.encode(), "json", "").value
    except (ConfigError, UnicodeEncodeError):
        found = parse(f"{{value: {text}\n}}".encode(errors="replace"), "yaml", "").value
    return found["value"] if len(found) == 1 else None


def _how(expect: Expect) -> str:
    """How to write the wanted value."""
    ways = ["[first, second]"] if expect.listing else []
    ways += ["{name: value}"] if expect.mapping else []
    return f"write {' or '.join(ways)}"
