"""Puts values in the place of ``${…}`` in the merged tree, and takes out removals that removed nothing.

Only exact `str` values are looked at: `Text`, which variables and overrides give, is literal. A result is never looked
at again.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from storeconf._text import SECRET_NAME, nearest
from storeconf.config.document import BYTE_ORDER_MARK, MARKED, SecretFile, SecretResolution, SecretText, read_secret
from storeconf.config.language import Reference, parse_references
from storeconf.config.tree import Placeholder, Tainted, Text, TreePath
from storeconf.diagnostics import Fault
from storeconf.errors import PluginError
from storeconf.plugin import ResolveContext

if TYPE_CHECKING:
    from storeconf.config import Request
    from storeconf.config.layers import Layer, Place
    from storeconf.config.reporter import Reporter

__all__ = ["Interpolation"]

_URL_CHARACTERS: Final = frozenset("@/:?#%[] ")
_REPLACEABLE: Final = frozenset({"SC402", "SC403", "SC404", "SC405"})
_NEAR_ENOUGH: Final = 200  # variables that are searched for a similar name


_Result: TypeAlias = str
"""A value; a `Placeholder` where it is not known, `Tainted` where it is a secret."""


class Interpolation:
    """Interpolates trees; values from files and resolvers are tainted.

    ``futile`` collects the paths of removals that are still in the tree.
    """

    def __init__(self, request: Request, environment: str | None, report: Reporter) -> None:
        self.futile: list[TreePath] = []
        self._request = request
        self._environ = request.variables
        self._environment = environment
        self._report = report
        self._redactor = report.redactor
        self._files: dict[Path, str | Fault] = {}

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
        layer = self._report.history.layer(path)
        try:
            parts = parse_references(text)
        except Fault as fault:
            self._fail(fault, fault.span, text, path, layer)
            return Placeholder(text)
        if len(parts) == 1:
            if isinstance(parts[0], str):
                return parts[0]
            value = self._value(parts[0], text, path, layer)
            if isinstance(value, Placeholder):
                return Placeholder(text)
            source = self._source([(parts[0], value)], layer)
            if source is None and not isinstance(value, Tainted):
                return Text(value)
            return self._redactor.around(value, value.shown if isinstance(value, Tainted) else value, source=source)
        url = path[-1] == "url" or any(isinstance(part, str) and "://" in part for part in parts)
        whole = shown = ""
        known, secret = True, False
        values: list[tuple[str | Reference, str]] = []
        for part in parts:
            if isinstance(part, str):
                whole += part
                shown += part
                values.append((part, part))
                continue
            value = self._value(part, text, path, layer)
            if isinstance(value, Placeholder):
                known = False
            elif url and not _URL_CHARACTERS.isdisjoint(value):
                reason = f"the value of {part} holds a character that has a meaning of its own in a URL"
                hint = "give credentials as the fields username and password, or the whole URL as one substitution"
                self._fail(Fault("SC406", reason, hint), part.span, text, path, layer)
                known = False
            secret |= isinstance(value, Tainted)
            whole += value
            shown += value.shown if isinstance(value, Tainted) else value
            values.append((part, value))
        if not known:
            return Placeholder(text)
        source = self._source(values, layer, _URL_CHARACTERS if url else frozenset())
        if source is None and not secret:
            return whole
        return self._redactor.around(whole, shown, whole=False, source=source)

    def _source(
        self, values: list[tuple[str | Reference, str]], layer: Layer | None, reserved: frozenset[str] = frozenset()
    ) -> SecretText | None:
        """Return how a value is made of files and resolvers, and can be made again; None when nothing can."""
        made = [self._made(part, value, layer) for part, value in values]
        return None if all(isinstance(each, str) for each in made) else SecretText(tuple(made), reserved)

    def _made(self, part: str | Reference, value: str, layer: Layer | None) -> str | SecretFile | SecretResolution:
        if isinstance(part, Reference) and part.resolver != "env":
            default = part.operand if part.operator == "-" else None
            directory = self._directory(layer)
            if part.resolver != "file":
                resolve = partial(self._ask, part, directory)
                return SecretResolution(f"${{{part.resolver}:{part.argument}}}", resolve, default)
            file = SecretFile(directory / part.argument, default)
            if file.is_lasting:
                return file
        return str(value)

    def _directory(self, layer: Layer | None) -> Path:
        """Return the directory that relative paths in a layer are relative to."""
        return self._request.directory if layer is None else layer.directory

    def _fail(self, fault: Fault, span: tuple[int, int], text: str, path: TreePath, layer: Layer | None) -> None:
        place = _inside(layer, path, text, *span)
        replaceable = fault.code in _REPLACEABLE
        self._report.add(fault.code, fault.reason, path, place=place, hint=fault.hint, replaceable=replaceable)

    def _value(self, reference: Reference, text: str, path: TreePath, layer: Layer | None) -> _Result:
        try:
            value = self._found(reference, layer)
        except Fault as fault:
            if reference.operator == "-" and fault.absent:
                return reference.operand
            if self._request.without_secrets and fault.absent:
                return Placeholder()
            if reference.operator == "?":
                fault.code, fault.hint = "SC404", None
                fault.reason += f": {reference.operand}" if reference.operand else ""
            self._fail(fault, reference.span, text, path, layer)
            return Placeholder()
        if reference.resolver == "file" and value.__class__ is not Placeholder:
            self._check_file(reference, value, text, path, layer)
        if reference.resolver != "env" and value.__class__ is not Placeholder:
            return self._redactor.taint(value)
        return value

    def _check_file(self, reference: Reference, value: str, text: str, path: TreePath, layer: Layer | None) -> None:
        """Warn of a secret file that holds nothing, or an invisible mark in front."""
        if value and not value.startswith(BYTE_ORDER_MARK):
            return
        if not value and not any(SECRET_NAME.fullmatch(str(step)) for step in path[-2:]):
            return  # where nothing may be meant
        place = _inside(layer, path, text, *reference.span)
        code, reason = ("SC810", MARKED) if value else ("SC805", "is empty")
        message = f"the file {reference.argument!r} {reason}"
        self._report.add(code, message, path, place=place, severity="warning", replaceable=True)

    # ------------------------------------------------------------------ where values come from

    def _found(self, reference: Reference, layer: Layer | None) -> _Result:
        """Return the value of a reference, without its default, or raise `Fault`."""
        directory = self._directory(layer)
        if reference.resolver == "env":
            value = self._environ.get(reference.argument)
        elif reference.resolver == "file":
            value = self._file(reference, directory)
        else:
            value = self._resolved(reference, directory)
        if value is None:
            raise Fault("SC402", f"the variable {reference} is not set", self._near(reference), absent=True)
        if not value and reference.operator and not isinstance(value, Placeholder):
            what = f"the variable {reference}" if reference.resolver == "env" else str(reference)
            raise Fault("SC404", f"{what} is empty", absent=True)
        return value

    def _near(self, reference: Reference) -> str:
        name = reference.argument
        near = nearest(name, list(self._environ)) if len(self._environ) <= _NEAR_ENOUGH else None
        default = f"give it a default: ${{{name}:-…}}"
        return f"did you mean {near}? Or {default}" if near else f"set it, or {default}"

    def _file(self, reference: Reference, directory: Path) -> str:
        path = directory / reference.argument
        if path not in self._files:
            self._request.looks.at(path)
            try:
                self._files[path] = read_secret(path)
            except Fault as error:
                self._files[path] = error
        found = self._files[path]
        if isinstance(found, str):
            return found
        hint = None if path.is_absolute() and Path(reference.argument).is_absolute() else f"that is {str(path)!r}"
        if reference.argument.startswith("~"):
            hint = "'~' is not expanded; write the whole path"
        raise Fault("SC403", f"the file {reference.argument!r} {found.reason}", hint, absent=found.absent)

    def _resolved(self, reference: Reference, directory: Path) -> str:
        try:
            self._request.catalog.resolver(reference.resolver)
        except PluginError as error:
            raise Fault(error.code, str(error.args[0]), self._resolver_hint(reference, error)) from None
        if self._request.without_secrets:
            return Placeholder()
        try:
            value: object = self._ask(reference, directory)
        except LookupError:
            raise Fault("SC402", f"there is no {reference}", absent=True) from None
        except Exception as error:  # noqa: BLE001 - a plugin may fail in any way
            reason = f"the resolver {reference.resolver!r} failed: {type(error).__name__}: {error}"
            raise Fault("SC405", reason) from None
        if isinstance(value, str):
            return str(value)
        reason = f"the resolver {reference.resolver!r} returned a {type(value).__name__}, not a str"
        raise Fault("SC405", reason, "report this to the plugin's author")

    def _ask(self, reference: Reference, directory: Path) -> str:
        """Return the present value of a resolver, or raise its error."""
        context = ResolveContext(dict(self._environ), directory, self._environment)
        return self._request.catalog.resolver(reference.resolver).resolve(reference.argument, context)

    def _resolver_hint(self, reference: Reference, error: PluginError) -> str | None:
        if reference.argument[:1] in ("+", "="):
            return f"only ':-' and ':?' are known: ${{{reference.resolver}:-…}}"
        if reference.resolver in self._environ or reference.resolver.isupper():
            return f"for a default write ${{{reference.resolver}:-…}}"  # the default may be a secret
        name, dash, _ = reference.resolver.partition("-")
        if dash and (name in self._environ or name.isupper()):
            return f"write ${{{name}:-…}}, with a colon"
        return error.hint


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
