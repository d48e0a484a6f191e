"""The two highest layers: the environment variables, and the overrides of a call or of ``--set PATH=VALUE``.

``STORECONF__STORES__SESSIONS__URL`` sets ``stores.sessions.url``. Texts become what the fields that they set take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from storeconf.config.addresses import PREFIX, SUFFIX, Misfit, Names, kind_key, listed_known, variable_name
from storeconf.config.document import parse
from storeconf.config.fields import TEXT
from storeconf.config.language import FORBIDDEN, SWITCHES
from storeconf.config.layers import Layer, problem, working_directory
from storeconf.config.merge import NO_KIND, Merge, Rules, kind_of
from storeconf.config.secretfile import SecretFile, SecretFileError, SecretText, read_secret
from storeconf.config.sources import plain_data
from storeconf.config.suggest import almost, slips
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
from storeconf.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storeconf._location import Diagnostic, Severity
    from storeconf.catalog import Catalog
    from storeconf.config.addresses import Found
    from storeconf.config.fields import Expect

__all__ = [
    "Overrides",
    "Variable",
    "at",
    "declared",
    "iter_variables",
    "parse_overrides",
    "read_overrides",
    "read_variables",
]

_SINGLE: Final = "STORECONF_"


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that could override something: its name and path, and whether a secret stands there."""

    name: str
    path: TreePath
    secret: bool


@dataclass(frozen=True, repr=False, slots=True)
class _Setting:
    name: str
    value: Any
    secret: bool


def iter_variables(tree: dict[str, Any], catalog: Catalog) -> Iterator[Variable]:
    """Every variable that could override something in ``tree``, by path."""
    names = Names(tree, Rules(catalog))
    for path in names.paths():
        yield Variable(variable_name(path), path, names.expect(path).secret)


def read_variables(
    environ: Mapping[str, str],
    tree: dict[str, Any],
    later: dict[str, Any],
    rules: Rules,
    problems: list[Diagnostic],
    *,
    without_secrets: bool = False,
) -> tuple[Layer | None, frozenset[str]]:
    """Return the layer of ``environ`` over ``tree``, and the texts in it that came from files.

    ``later`` is what the overrides say: a store that only they declare can be set by variables too.
    """
    given = sorted(name for name, value in environ.items() if value and name.startswith(_SINGLE))
    if not given:
        return None, frozenset()
    return _Reader(environ, later, rules, problems, without_secrets).read(given, tree)


class _Reader:
    def __init__(
        self,
        environ: Mapping[str, str],
        later: dict[str, Any],
        rules: Rules,
        problems: list[Diagnostic],
        without_secrets: bool,
    ) -> None:
        self._environ = environ
        self._later = later
        self._problems = problems
        self._without_secrets = without_secrets
        self._rules = rules
        self._merge = Merge(rules)
        self._settings: dict[TreePath, _Setting] = {}
        self._secrets: set[str] = set()

    def read(self, given: Sequence[str], tree: dict[str, Any]) -> tuple[Layer | None, frozenset[str]]:
        kinds: list[tuple[str, list[str]]] = []
        others: list[tuple[str, list[str]]] = []
        for name in given:
            if name.startswith(PREFIX):
                segments = name[len(PREFIX) :].split("__")
                if segments[0].lower() in FORBIDDEN:
                    hint = f"write {segments[0].lower()!r} in a file"
                    self._fail("SC303", name, f"a variable can't set {segments[0].lower()!r}", hint=hint)
                else:
                    (kinds if _says_kind(segments, self._environ[name]) else others).append((name, segments))
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
            if not name.startswith(PREFIX) and name not in SWITCHES:
                self._stranger(name, names)
        secrets = frozenset(self._secrets)
        if not self._settings:
            return None, secrets
        variables = {path: setting.name for path, setting in self._settings.items()}
        hidden = frozenset(path for path, setting in self._settings.items() if setting.secret)
        files = {
            path: SecretFile(working_directory() / self._environ[setting.name])
            for path, setting in self._settings.items()
            if setting.secret and isinstance(setting.value, str) and not isinstance(setting.value, Placeholder)
        }
        sources = {path: SecretText((file,)) for path, file in files.items() if file.is_lasting}
        layer = Layer(
            "variable",
            self._patch(),
            working_directory(),
            variables=variables,
            secrets=hidden,
            sources=sources,
            plain=False,
        )
        return layer, secrets

    # ------------------------------------------------------------------ one variable

    def _set(self, name: str, segments: list[str], names: Names, *, create: bool = False) -> None:
        try:
            found = names.find(segments, create=create)
        except Misfit as misfit:
            self._misfit(name, segments, names, misfit)
            return
        before = self._settings.get(found.path)
        if before is not None:
            hint = "unset one of them"
            self._fail("SC306", name, f"{before.name} and {name} both set {dotted(found.path)}", found.path, hint=hint)
            return
        value: Any = self._secret(name, found) if found.from_file else self._environ[name]
        if value is None:
            return
        if value.__class__ is not Placeholder:
            try:
                value = value_of(value, found.expect, found.path)
            except BadText as error:
                self._fail(error.code, name, f"{dotted(found.path)}: {error.reason}", found.path, hint=error.hint)
                return
        if found.from_file:
            self._secrets.update(_texts(value))
        names.say(found.path, value)
        self._settings[found.path] = _Setting(name, value, found.from_file)

    def _secret(self, name: str, found: Found) -> str | None:
        """Return the text of the file that a variable names, None where there is none."""
        path = self._environ[name]
        try:
            text = read_secret(working_directory() / path)
        except SecretFileError as error:
            if error.missing and self._without_secrets:
                return Placeholder(f"${{file:{path}}}")
            self._fail("SC307", name, f"the file {path!r}, which {name} names, {error}", found.path)
            return None
        if not text:
            message = f"the file {path!r}, which {name} names, is empty, so the variable counts as unset"
            self._fail("SC805", name, message, found.path, severity="warning")
            return None
        return text

    def _patch(self) -> dict[str, Any]:
        patch: dict[str, Any] = {}
        for path in sorted(self._settings, key=lambda path: (len(path), [str(step).zfill(9) for step in path])):
            patch = self._merge.combine(patch, at(path, self._settings[path].value), one_layer=True)
        return patch

    # ------------------------------------------------------------------ what does not fit

    def _fail(
        self,
        code: str,
        name: str,
        message: str,
        path: TreePath = (),
        *,
        hint: str | None = None,
        severity: Severity = "error",
    ) -> None:
        place = {"variable": name, "layer": "variable"}
        self._problems.append(problem(code, message, path, place, hint=hint, severity=severity))

    def _newcomers(self, tree: dict[str, Any]) -> None:
        """Warn of new stores that may have been meant to be those that are there."""
        stores = tree.get("stores")
        if not isinstance(stores, dict):
            return
        for path, setting in self._settings.items():
            new = str(path[1]) if len(path) > 1 and path[0] == "stores" else None
            near = None if new is None or new in stores else almost(new, stores)
            if near is not None:
                message = f"{setting.name} makes a new store {new!r}, beside {near!r}"
                hint = f"was {_spelt(('stores', near, *path[2:]), setting.name)} meant?"
                self._fail("SC806", setting.name, message, path[:2], hint=hint, severity="warning")

    def _misfit(self, name: str, segments: list[str], names: Names, misfit: Misfit) -> None:
        if misfit.several:
            both = "rename one of them, or set the value in a file"
            self._fail("SC302", name, f"{name} is ambiguous: {misfit.reason}", misfit.path, hint=both)
            return
        meant = names.meant(segments)
        hint = listed_known(misfit.known) or None
        if meant is not None:
            hint = f"did you mean {_spelt(meant, name)}, which sets {dotted(meant)}?"
        elif misfit.path == ("stores",):
            hint = "; ".join(filter(None, ("a variable makes a new store only by its TYPE, PARENT or USE", hint)))
        self._fail("SC301", name, f"{name} fits nothing: {misfit.reason}", meant or misfit.path, hint=hint)

    def _stranger(self, name: str, names: Names) -> None:
        """Report a variable of ours with one underscore; other programs may set such, so most are only warned of."""
        rest = name[len(_SINGLE) :]
        known = {switch[len(_SINGLE) :]: switch for switch in SWITCHES}
        near = [each for each in known if slips(rest.upper(), each) == 1]
        near = near or get_close_matches(rest.upper(), known, n=1, cutoff=0.75)
        near = near or [each for each in known if rest.upper().startswith(each) and rest[len(each) :].isalpha()]
        segments = rest.split("__")
        meant = None if near else names.spelt(segments)
        if near:
            self._fail("SC304", name, f"there is no variable {name}", hint=f"did you mean {known[near[0]]}?")
        elif meant is not None:
            hint = f"did you mean {_spelt(meant, name)}, with two underscores?"
            self._fail("SC304", name, f"there is no variable {name}", meant, hint=hint)
        elif len(segments) > 1 and segments[0].lower() in ("stores", "default_factory", *FORBIDDEN):
            hint = f"did you mean {PREFIX}{rest}, with two underscores after STORECONF?"
            self._fail("SC304", name, f"there is no variable {name}", hint=hint)
        else:
            hint = f"storeconf reads {', '.join(SWITCHES)} and those that begin with {PREFIX}"
            self._fail("SC804", name, f"storeconf does not know {name}", hint=hint, severity="warning")


def _says_kind(segments: Sequence[str], text: str) -> bool:
    """Whether a variable can say a store's kind: it sets the kind's field, or all of the store as a mapping."""
    top = segments[0].lower()
    depth = {"stores": 2, "default_factory": 1}.get(top, 0)
    if len(segments) == depth + 1:
        return kind_key(segments[-1])
    return len(segments) <= depth and text.lstrip().startswith("{")


def _declared(tree: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Return the tree with the kinds that only the overrides say."""
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
    """The right name for a path; with the suffix of what was given, where the place does not end so itself."""
    name = variable_name(path)
    return name + SUFFIX if given.upper().endswith(SUFFIX) and not name.endswith(SUFFIX) else name


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str) and value and value is not MISSING:
        yield str(value)


# ---------------------------------------------------------------------- overrides

Overrides: TypeAlias = Mapping[str, Any] | Sequence[tuple[str, str]]
"""A mapping of dotted paths or nested, or pairs of dotted path and text as a command line gives them."""

_PLACE = {"layer": "override"}


def parse_overrides(overrides: Overrides | None, problems: list[Diagnostic]) -> list[tuple[tuple[str, ...], Any]]:
    """Return paths and values. In pairs of texts, ``null`` removes, as None does in a mapping."""

    def fail(code: str, message: str, path: TreePath) -> None:
        problems.append(problem(code, message, path, _PLACE))

    parsed: list[tuple[tuple[str, ...], Any]] = []
    if overrides is None:
        return parsed
    mapping = isinstance(overrides, Mapping)
    for key, given in overrides.items() if isinstance(overrides, Mapping) else overrides:
        path = parse_path(key) if isinstance(key, str) else None
        if path is None:
            hint = "write the names from the top, with dots between them: stores.main.url"
            problems.append(problem("SC308", f"{key!r} is not a path", (), _PLACE, hint=hint))
        elif path[0] in FORBIDDEN:
            hint = f"write {path[0]!r} in a file"
            problems.append(problem("SC303", f"an override can't set {path[0]!r}", path, _PLACE, hint=hint))
        else:
            value = None if not mapping and given == "null" else plain_data(given, fail, path)
            parsed.append((path, value))
    return parsed


def declared(parsed: list[tuple[tuple[str, ...], Any]], rules: Rules) -> dict[str, Any]:
    """Return what overrides say before their texts have types: which stores they declare, and of what kind."""
    merge = Merge(rules)
    patch: dict[str, Any] = {}
    for path, value in parsed:
        patch = merge.combine(patch, at(path, value), one_layer=True)
    return merge.completed(patch)


def read_overrides(
    parsed: list[tuple[tuple[str, ...], Any]], tree: dict[str, Any], rules: Rules, problems: list[Diagnostic]
) -> Layer | None:
    """Return the layer of overrides over ``tree``."""
    if not parsed:
        return None
    merge = Merge(rules)
    names = Names(merge.apply(tree, declared(parsed, rules)), rules)
    patch: dict[str, Any] = {}
    for path, value in parsed:
        try:
            place = _indexed(path, tree)
            said = _removal(place) if value is None else at(place, _typed(value, place, names))
        except BadText as error:
            problems.append(problem(error.code, f"{dotted(path)}: {error.reason}", path, _PLACE, hint=error.hint))
        else:
            patch = merge.combine(patch, said, one_layer=True)
            tree = merge.apply(tree, said)
    return Layer("override", patch, working_directory(), plain=False) if patch else None


def _indexed(path: tuple[str, ...], tree: dict[str, Any]) -> TreePath:
    """Take the steps that lead into lists as indices."""
    place: TreePath = ()
    for step in path:
        items = lookup(tree, place)
        if isinstance(items, list):
            index = item_index(step)
            if index is None or index > len(items):
                hint = f"write an index, at most {len(items)}, which appends one"
                raise BadText(f"there is no item {step!r} at {dotted(place)}", hint, code="SC308")
            place = (*place, index)
        else:
            place = (*place, step)
    return place


def _removal(path: TreePath) -> Any:
    if isinstance(path[-1], int):
        raise BadText("an item of a list can't be removed", "set the whole list", code="SC308")
    patch: Any = None
    for step in reversed(path):
        patch = Items({step: patch}) if isinstance(step, int) else Removals({step: patch})
    return patch


def _typed(value: Any, path: TreePath, names: Names) -> Any:
    """Return a value whose texts are what their places want."""
    if isinstance(value, dict):
        return {key: _typed(item, (*path, key), names) for key, item in value.items()}
    if isinstance(value, str):
        expect = names.expect(path)
        return value_of(value, expect if expect.listing or expect.mapping else TEXT, path)
    return literal(value)


# ---------------------------------------------------------------------- texts


class BadText(Exception):  # noqa: N818 - an answer of this module, made a diagnostic by who asked
    """The text is not what is wanted; ``hint`` says how to write it, ``code`` is that of the diagnostic."""

    def __init__(self, reason: str, hint: str | None = None, *, code: str = "SC305") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.code = code


def value_of(text: str, expect: Expect, path: TreePath) -> Any:
    """Return what ``text`` means at ``path``: a list or mapping in JSON or YAML flow where one can stand there.

    Everything else stays text, whose type the field decides. Raises `BadText`.
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
                raise BadText(f"the text is neither JSON nor YAML flow: {reason}", _how(expect)) from None
        else:
            if wanted and isinstance(value, list | dict):
                return literal(value)
    if expect.scalar:
        return Text(text)
    raise BadText(f"{expect.what} is wanted", _how(expect))


def literal(value: Any) -> Any:
    """Return plain data whose strings are `Text`: never interpolated, and of the type that their field decides."""
    if isinstance(value, dict):
        return {key: literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [literal(item) for item in value]
    return Text(value) if value.__class__ is str else value


def at(path: TreePath, value: Any) -> Any:
    """Return the patch that says ``value`` at ``path`` and nothing else."""
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
    """How to write what is wanted."""
    ways = ["[first, second]"] if expect.listing else []
    ways += ["{name: value}"] if expect.mapping else []
    return f"write {' or '.join(ways)}"
