"""Puts values in the place of ``${…}`` in what survived the merge, and takes out removals that removed nothing.

Only exact `str` values are looked at: `Text`, which variables and overrides give, is literal. A result is never looked
at again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from storeconf.config.layers import MASK, Layer, Place, problem, working_directory
from storeconf.config.references import BadReference, Reference, parse_references
from storeconf.config.secretfile import SecretFile, SecretFileError, SecretText, read_secret
from storeconf.config.suggest import nearest
from storeconf.config.tree import Placeholder, Text, TreePath
from storeconf.errors import PluginError
from storeconf.plugin import ResolveContext

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storeconf._location import Diagnostic
    from storeconf.catalog import Catalog
    from storeconf.config.layers import Origins
    from storeconf.plugin import ValueSource

__all__ = ["Interpolation"]

_URL_CHARACTERS: Final = frozenset("@/:?#%[] ")
_NEAR_ENOUGH: Final = 200  # variables to look through for one that was meant


class _Absent(Exception):  # noqa: N818 - not an error where there is a default
    """There is no such value; ``reason`` says so in a sentence about what was asked for."""

    def __init__(self, code: str, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.hint = hint


class _Failed(_Absent):
    """The value can't be had, which no default makes good."""


_Result: TypeAlias = str
"""A value; a `Placeholder` where it is not known."""


class _Secret(str):
    """A value that came from a file or a resolver."""

    __slots__ = ()


class Interpolation:
    """Interpolates trees; ``secrets`` and ``secret_paths`` collect what came from files and resolvers.

    The latter have, by path, what may be shown there: the text without its secrets. ``sources`` has how the values that
    came from files can be read again.
    ``futile`` collects the paths of removals that were still there.
    """

    def __init__(
        self,
        origins: Origins,
        environ: Mapping[str, str],
        catalog: Catalog,
        environment: str | None,
        problems: list[Diagnostic],
        *,
        without_secrets: bool = False,
    ) -> None:
        self.secrets: set[str] = set()
        self.secret_paths: dict[TreePath, str] = {}
        self.sources: dict[TreePath, ValueSource] = {}
        self.futile: list[TreePath] = []
        self._origins = origins
        self._environ = environ
        self._catalog = catalog
        self._environment = environment
        self._problems = problems
        self._without_secrets = without_secrets
        self._files: dict[Path, str | SecretFileError] = {}

    def mapping(self, node: dict[str, Any], path: TreePath = ()) -> dict[str, Any]:
        """Return the mapping at ``path`` with everything in it interpolated; itself where there is nothing to do."""
        out = node if node.__class__ is dict else dict(node)
        for key, value in node.items():
            new: Any
            if value.__class__ is str:
                if "$" not in value:
                    continue
                new = self._text(value, (*path, key))
            elif isinstance(value, dict):
                new = self.mapping(value, (*path, key))
            elif value.__class__ is list:
                new = self._list(value, (*path, key))
            elif value is None:
                self.futile.append((*path, key))
                out = dict(node) if out is node else out
                del out[key]
                continue
            else:
                continue
            if new is not value:
                out = dict(node) if out is node else out
                out[key] = new
        return out

    def _list(self, items: list[Any], path: TreePath) -> list[Any]:
        out = items
        for index, value in enumerate(items):
            new = value
            if value.__class__ is str:
                if "$" in value:
                    new = self._text(value, (*path, index))
            elif value.__class__ is dict:
                new = self.mapping(value, (*path, index))
            elif value.__class__ is list:
                new = self._list(value, (*path, index))
            if new is not value:
                out = list(out) if out is items else out
                out[index] = new
        return out

    # ------------------------------------------------------------------ one text

    def _text(self, text: str, path: TreePath) -> str:
        layer = self._origins.layer(path)
        try:
            parts = parse_references(text)
        except BadReference as error:
            place = _inside(layer, path, text, error.start, error.end)
            self._problems.append(problem("SC401", error.reason, path, place, hint=error.hint))
            return Placeholder(text)
        if len(parts) == 1:
            if isinstance(parts[0], str):
                return parts[0]
            value = self._value(parts[0], text, path, layer)
            if isinstance(value, Placeholder):
                return Placeholder(text)
            self._keep_source(path, [self._source(parts[0], value, layer)])
            return Text(value)
        url = path[-1] == "url" or any(isinstance(part, str) and "://" in part for part in parts)
        whole = shown = ""
        known = True
        sources: list[str | SecretFile] = []
        for part in parts:
            if isinstance(part, str):
                whole += part
                shown += part
                sources.append(part)
                continue
            value = self._value(part, text, path, layer)
            if isinstance(value, Placeholder):
                known = False
            elif url and not _URL_CHARACTERS.isdisjoint(value):
                self._fail(
                    "SC406",
                    f"the value of {part} holds a character that has a meaning of its own in a URL",
                    "give credentials as the fields username and password, or the whole URL as one substitution",
                    part,
                    text,
                    path,
                    layer,
                )
                known = False
            whole += value
            shown += MASK if isinstance(value, _Secret) else value
            sources.append(self._source(part, value, layer))
        if path in self.secret_paths:
            self.secret_paths[path] = shown
        if known:
            self._keep_source(path, sources, _URL_CHARACTERS if url else frozenset())
        return whole if known else Placeholder(text)

    def _source(self, reference: Reference, value: str, layer: Layer | None) -> str | SecretFile:
        """Return how the value of a reference can be read again; what no file holds is the value itself."""
        if reference.resolver != "file":
            return str(value)
        default = reference.operand if reference.operator == "-" else None
        file = SecretFile(_directory(layer) / reference.argument, default)
        return file if file.is_lasting else str(value)

    def _keep_source(
        self, path: TreePath, parts: list[str | SecretFile], reserved: frozenset[str] = frozenset()
    ) -> None:
        if any(isinstance(part, SecretFile) for part in parts):
            self.sources[path] = SecretText(tuple(parts), reserved)

    def _fail(
        self,
        code: str,
        message: str,
        hint: str | None,
        reference: Reference,
        text: str,
        path: TreePath,
        layer: Layer | None,
    ) -> None:
        place = _inside(layer, path, text, reference.start, reference.end)
        self._problems.append(problem(code, message, path, place, hint=hint))

    def _value(self, reference: Reference, text: str, path: TreePath, layer: Layer | None) -> _Result:
        try:
            value = self._found(reference, layer)
        except _Absent as error:
            if reference.operator == "-" and not isinstance(error, _Failed):
                return reference.operand
            if self._without_secrets and not isinstance(error, _Failed):
                return Placeholder()
            code, reason, hint = error.code, error.reason, error.hint
            if reference.operator == "?":
                code, hint = "SC404", None
                reason += f": {reference.operand}" if reference.operand else ""
            self._fail(code, reason, hint, reference, text, path, layer)
            return Placeholder()
        if reference.resolver != "env" and value.__class__ is not Placeholder:
            self.secret_paths[path] = MASK
            if value:
                self.secrets.add(value)
            return _Secret(value)
        return value

    # ------------------------------------------------------------------ where values come from

    def _found(self, reference: Reference, layer: Layer | None) -> _Result:
        """Return the value of a reference, without its default; raises `_Absent`."""
        directory = _directory(layer)
        if reference.resolver == "env":
            value = self._environ.get(reference.argument)
        elif reference.resolver == "file":
            value = self._file(reference, directory)
        else:
            value = self._resolved(reference, directory)
        if value is None:
            raise _Absent("SC402", f"the variable {reference} is not set", self._near(reference))
        if not value and reference.operator and not isinstance(value, Placeholder):
            what = "the variable" if reference.resolver == "env" else "what is read from"
            raise _Absent("SC404", f"{what} {reference} is empty")
        return value

    def _near(self, reference: Reference) -> str:
        name = reference.argument
        near = nearest(name, list(self._environ)) if len(self._environ) <= _NEAR_ENOUGH else None
        default = f"give it a default: ${{{name}:-…}}"
        return f"did you mean {near}? Or {default}" if near else f"set it, or {default}"

    def _file(self, reference: Reference, directory: Path) -> str:
        path = directory / reference.argument
        if path not in self._files:
            try:
                self._files[path] = read_secret(path)
            except SecretFileError as error:
                self._files[path] = error
        found = self._files[path]
        if isinstance(found, str):
            return found
        kind = _Absent if found.missing else _Failed
        hint = None if path.is_absolute() and Path(reference.argument).is_absolute() else f"that is {str(path)!r}"
        raise kind("SC403", f"the file {reference.argument!r} {found}", hint)

    def _resolved(self, reference: Reference, directory: Path) -> str:
        try:
            resolver = self._catalog.resolver(reference.resolver)
        except PluginError as error:
            raise _Failed(error.code, str(error.args[0]), self._resolver_hint(reference, error)) from None
        if self._without_secrets:
            return Placeholder()
        context = ResolveContext(dict(self._environ), directory, self._environment)
        try:
            value: object = resolver.resolve(reference.argument, context)
        except LookupError:
            raise _Absent("SC402", f"there is no {reference}") from None
        except Exception as error:  # noqa: BLE001 - a plugin may fail in any way
            reason = f"the resolver {reference.resolver!r} failed: {type(error).__name__}: {error}"
            raise _Failed("SC405", reason) from None
        if isinstance(value, str):
            return str(value)
        reason = f"the resolver {reference.resolver!r} gave a {type(value).__name__}, not a str"
        raise _Failed("SC405", reason, "tell the plugin's author")

    def _resolver_hint(self, reference: Reference, error: PluginError) -> str | None:
        if reference.argument[:1] in ("+", "="):
            return f"only ':-' and ':?' are known: ${{{reference.resolver}:-…}}"
        if reference.resolver in self._environ or reference.resolver.isupper():
            return f"for a default write ${{{reference.resolver}:-{reference.argument}}}"
        name, dash, default = reference.resolver.partition("-")
        if dash and (name in self._environ or name.isupper()):
            return f"write ${{{name}:-{default}:{reference.argument}}}, with a colon"
        return error.hint


def _directory(layer: Layer | None) -> Path:
    """Return what relative paths in a layer are relative to."""
    return working_directory() if layer is None else layer.directory


def _inside(layer: Layer | None, path: TreePath, text: str, start: int, end: int) -> Place:
    """Return the place of a part of a text; that of all of it, where the source can't be followed that far."""
    if layer is None:
        return {}
    place = layer.place(path)
    if layer.document is None or place.get("line") is None or place.get("end_line") is None:
        return place
    first, last = place["line"], place["end_line"]
    dollars = []
    lines = dict(layer.document.lines(first, last))
    for number, line in lines.items():
        left = place["column"] - 1 if number == first else 0
        right = place["end_column"] - 1 if number == last else len(line)
        dollars += [(number, column) for column in range(left, min(right, len(line))) if line[column] == "$"]
    # Escapes and folded lines move characters about, but never add or take a '$'.
    if len(dollars) != text.count("$"):
        return place
    number, column = dollars[text.count("$", 0, start)]
    written = text[start:end]
    place |= {"line": number, "column": column + 1}
    if lines[number].startswith(written, column):
        place |= {"end_line": number, "end_column": column + 1 + len(written)}
    return place
