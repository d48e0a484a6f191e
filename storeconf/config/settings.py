"""Creates one model of settings from plain values, or reports everything that is wrong with them.

Paths become absolute and placeholders get values first; then the model validates, and its errors are put in words.

Longer than other modules, because the words for Pydantic's errors need all that the validation knows.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, cast, get_args

from pydantic import ValidationError
from pydantic_core.core_schema import ErrorType

from storeconf._text import MASK, nearest
from storeconf.catalog import BUILT_IN
from storeconf.config.addresses import variable_name
from storeconf.config.fields import ANY, PLAIN, fields_of
from storeconf.config.reporter import SHELL, SHELL_HINT, last_names, listed, shown
from storeconf.config.secrets import secrets_in
from storeconf.config.tree import Placeholder, Tainted, TreePath, dotted, lookup
from storeconf.errors import PluginError
from storeconf.plugin import EXCLUSIVE_FIELDS, Backend, Middleware, Settings, maker

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

    from storeconf.catalog import Part
    from storeconf.config import Request
    from storeconf.config.fields import Expect, Fields
    from storeconf.config.reporter import Reporter

__all__ = ["SettingsReader"]

S = TypeVar("S", bound=Settings)

_Marks: TypeAlias = dict[TreePath, bool]
"""Places whose errors are known: True where a value is wrong, False where it is a placeholder."""

_BAD: Final[Any] = object()

_HOME: Final = re.compile(r"~(?:[\w.-]*/|\Z)")
NO_SPACE: Final = re.compile(r"[A-Za-z_][\w-]*:(?!//)(?=\S)")
SPACE_HINT: Final = "add a space after the ':'"
"""For a key and its value that YAML reads as one text."""


@dataclass(eq=False, repr=False)
class SettingsReader:
    """Reads the settings of backends and middleware.

    ``vague``: it met a placeholder. ``models`` has the classes that it met, by part and name, ``unknown`` the
    placeholders for kinds and stores, by their texts, with the first path of each.
    """

    _request: Request
    _report: Reporter
    vague: bool = False
    unknown: dict[str, TreePath] = field(default_factory=dict)
    models: dict[tuple[Part, str], type[Settings]] = field(default_factory=dict)
    _places: dict[tuple[Part, str], TreePath] = field(default_factory=dict)

    def backend(self, name: str, path: TreePath) -> type[Backend] | None:
        """The backend of that name, or None with a problem at ``path``."""
        return cast("type[Backend] | None", self.models.get(("backend", name)) or self._find("backend", name, path))

    def middleware(self, kind: str, path: TreePath) -> type[Middleware] | None:
        """The middleware of that kind, or None with a problem at the key of ``path``."""
        found = self.models.get(("middleware", kind)) or self._find("middleware", kind, path)
        return cast("type[Middleware] | None", found)

    def check_shadows(self) -> None:
        """Warn of plugins that claim names of built-in kinds, if the layout uses any plugin."""
        if all(name in BUILT_IN[part] for part, name in self._places):
            return
        own = {key: self._request.catalog.is_built_in(*key) for key in self._places}
        for (part, name), path in self._places.items():
            shadow = self._request.catalog.shadowed(part, name) if own[part, name] else None
            if shadow is not None:
                key = part == "middleware"
                self._report.add("SC705", shadow, path, key=key, severity="warning", hint="the built-in one is used")

    def build(self, model: type[S], values: dict[str, Any], path: TreePath, also: Collection[str] = ()) -> S | None:
        """Create the settings at ``path``, or report everything that is wrong with them.

        ``also`` has further fields that the same mapping may have.
        """
        fields = fields_of(model)
        marks: _Marks = {}
        values = self._looked(fields, values, path, marks)
        try:
            built = model.model_validate(values)
        except ValidationError as error:
            if not self._explain(error, fields, values, path, marks, also) and marks and not any(marks.values()):
                return _likely(
                    model, {key: value for key, value in values.items() if (*path, key) not in marks}, values
                )
        except Exception as error:  # noqa: BLE001  # a plugin's own code may fail in any way; reading must not
            text = f"{maker(model)} could not read its settings: {type(error).__name__}: {error}"
            self._report.add("SC708", text, path, key=True, hint="report this to the plugin's author")
        else:
            return None if any(marks.values()) else built
        return None

    def unknown_fields(self, path: TreePath, names: Iterable[str], known: Collection[str], owner: str) -> list[str]:
        """Report fields of the mapping at ``path`` that ``owner``, which knows ``known``, does not have.

        Return the similar fields that exist.
        """
        meant = []
        store = path[:1] == ("default_factory",) or len(path) == 2
        for name in names:
            where = (*path, name)
            near = _nearest(name, frozenset(known))
            types = self._types_with(name) if store else []
            if (colon := NO_SPACE.match(name)) is not None:
                self._report.add("SC501", f"{owner} has no field {colon[0]!r}…", where, key=True, hint=SPACE_HINT)
            elif name == "<<":
                hint = "write << without quotes if other mappings are to be merged"
                self._report.add("SC501", f"{owner} has no field '<<'", where, key=True, hint=hint)
            elif types:
                text = f"{name!r} belongs to stores of type {listed(types)}; {owner} has no such field"
                self._report.add("SC508", text, where, key=True)
            elif store and name in {"parent", "namespace", "middleware", "description", "max_stores"}:
                self._report.add("SC508", f"{owner} takes no {name!r}", where, key=True, hint=_known(known))
            elif store and near is None and name in self._request.catalog.middleware_names() and "middleware" in known:
                hint = f"write it under middleware: middleware: {{{name}: …}}"
                self._report.add("SC501", f"{owner} has no field {name!r}", where, key=True, hint=hint)
            else:
                hint = _known(known) if near is None else f"did you mean {near!r}?"
                self._report.add("SC501", f"{owner} has no field {name!r}", where, key=True, hint=hint)
                meant += [near] if near is not None else []
        return meant

    # ------------------------------------------------------------------ before the model

    def _find(self, part: Literal["backend", "middleware"], name: str, path: TreePath) -> type[Settings] | None:
        model: type[Settings]
        try:
            model = self._request.catalog.backend(name) if part == "backend" else self._request.catalog.middleware(name)
        except PluginError as error:
            self._report.add(error.code, str(error.args[0]), path, key=part == "middleware", hint=error.hint)
            return None
        self.models[part, name] = model
        self._places[part, name] = path
        return model

    def _looked(self, fields: Fields, values: dict[str, Any], path: TreePath, marks: _Marks) -> dict[str, Any]:
        """The values with absolute paths, without placeholders and wrong values; a copy only if that changes any."""
        looked = values
        for key, value in values.items():
            direct = fields.direct.get(key)
            if direct is None or value.__class__ in direct:
                continue
            result = self._look(fields.expects[key], value, (*path, key), marks, fields.example(key))
            if result is not value:
                looked = values.copy() if looked is values else looked
                looked[key] = result
        return {key: value for key, value in looked.items() if value is not _BAD} if marks else looked

    def _look(self, expect: Expect, value: Any, path: TreePath, marks: _Marks, example: object = None) -> Any:
        if value.__class__ is Placeholder:
            self.vague = True
            marks[path] = False
            if expect.store:
                self.unknown.setdefault(str(value), path)
                return str(value)
            return expect.stand_in if example is None or "${" in str(example) else example
        kind = str if value.__class__ is Tainted and not value.whole else value.__class__
        if expect.hides and value == MASK:
            text = f"{self._report.named(path)} is '{MASK}', which is only shown in place of a secret"
            self._report.add("SC504", text, path, hint="write the secret, or a substitution such as ${file:…}")
        elif expect.classes is not None and kind in PLAIN and kind not in expect.classes:
            self._report.wrong_type(path, expect.what, value, expect=expect, hint=self._several(path, value, expect))
        elif isinstance(value, dict) and expect.model is not None:
            fields = fields_of(expect.model)
            strangers = value.keys() - fields.expects.keys() if fields.drops and not expect.union else ()
            if strangers:
                known = fields.expects.keys()
                self.unknown_fields(path, filter(strangers.__contains__, value), known, last_names(path))
            return self._looked(fields, value, path, marks)
        elif isinstance(value, dict) and expect.value is not None:
            items = {key: self._look(expect.value, item, (*path, key), marks) for key, item in value.items()}
            return {key: item for key, item in items.items() if item is not _BAD}
        elif isinstance(value, list) and expect.item is not None:
            inside = expect.inside
            return [self._look(inside(index) or ANY, item, (*path, index), marks) for index, item in enumerate(value)]
        elif not (expect.path and isinstance(value, str)):
            return value
        elif not value or "\0" in value:
            what = "a text that holds a NUL character" if value else "an empty text"
            self._report.add("SC504", f"{self._report.named(path)} must be a path, not {what}", path)
        elif os.path.isabs(absolute := os.path.join(self._directory(path), value)):
            if _HOME.match(value):
                text = (
                    f"{self._report.named(path)} begins with '~', which is not expanded: it is a directory's name here"
                )
                hint = "write the home directory's path, or ${HOME}"
                self._report.add("SC801", text, path, severity="warning", hint=hint)
            return absolute
        else:
            text = f"{self._report.named(path)} is relative to the working directory, which does not exist any more"
            self._report.add("SC504", text, path, hint="write an absolute path, or start in another directory")
        marks[path] = True
        return _BAD

    def _several(self, path: TreePath, value: Any, expect: Expect) -> str | None:
        """A hint for one substitution in the place of a list or mapping, which a variable's own name can set."""
        layer = self._report.history.layer(path)
        written = None if layer is None or layer.plain is False else layer.value_at(path, self._report.history.rules)
        if not (isinstance(written, str) and "${" in written and isinstance(value, str)):
            return None
        if not expect.classes or expect.classes.isdisjoint((list, dict)):
            return None
        what = "a list" if list in expect.classes else "a mapping"
        return f"a substitution is one text; to set {what} by a variable, use {variable_name(path)}"

    # ------------------------------------------------------------------ after it

    def _explain(
        self,
        error: ValidationError,
        fields: Fields,
        values: dict[str, Any],
        path: TreePath,
        marks: _Marks,
        also: Collection[str],
    ) -> bool:
        """Report Pydantic's errors, except those that follow from wrong or unknown values in ``marks``.

        Return whether there were any.
        """
        faults: dict[TreePath, list[tuple[_Complaint, _Spot]]] = {}
        strangers: dict[TreePath, tuple[_Spot, frozenset[str]]] = {}
        errors = error.errors(include_url=False, include_input=False)
        spots = [_spot_of(fields, values, each["loc"]) for each in errors]
        if not any(spots):  # the members of a union have tags of their own: then it is about the whole field
            errors, spots = [_untagged(errors[0])], [_spot_of(fields, values, errors[0]["loc"][:1])]
        for each, spot in zip(errors, spots, strict=True):
            if spot is None:
                continue
            where = (*path, *spot.trail)
            if any(where == mark[: len(where)] or mark == where[: len(mark)] for mark in marks):
                continue
            if each["type"] == "extra_forbidden":
                strangers[where] = (
                    spot,
                    frozenset(spot.holder.expects).union(also if len(spot.trail) == 1 else ()),
                )
            else:
                faults.setdefault(where, []).append((_complaint_of(each, spot.expect), spot))
        for where, (spot, known) in strangers.items():
            near = self.unknown_fields(where[:-1], [str(where[-1])], known, _owner(where[:-1], spot.holder.model))
            for meant in near:  # the field is there, if misspelt
                if any(fault.code == "SC502" for fault, _ in faults.get((*where[:-1], meant), ())):
                    del faults[(*where[:-1], meant)]
        for where, found in faults.items():
            # Of a union's members, the one with code of its own knows the fault best.
            fault, spot = min(found, key=lambda pair: (not pair[0].whole, pair[0].code == "SC503"))
            self._fault(fault, spot, where, lookup(values, spot.trail))
        return bool(strangers or faults)

    def _fault(self, fault: _Complaint, spot: _Spot, where: TreePath, value: Any) -> None:
        if fault.code == "SC502":
            example = spot.holder.example(str(where[-1]))
            hint = None if example is None else f"for example {where[-1]}: {_sample(example)}"
            if isinstance(where[-1], int):
                text = f"{self._report.named(where[:-1])} must be {spot.outer.what}"
                self._report.add("SC503", text, where[:-1])
                return
            known = str(where[-1]) in spot.holder.expects
            owner = _owner(where[:-1], spot.holder.model) if known else last_names(where[:-1])
            text = f"{owner} needs {str(where[-1])!r}"
            self._report.add(fault.code, text, where[:-1], key=True, hint=hint, lacking=True)
            return
        if isinstance(value, dict) or not spot.trail:
            self._whole(fault, spot, where, value if isinstance(value, dict) else {})
            return
        name, text, hint = self._report.named(where), fault.text, fault.hint
        if ((isinstance(value, Tainted) and value.hidden) or spot.expect.hides) and _tells(f"{text} {hint}", value):
            text, hint = "has a value that does not fit; it is a secret, so it is not shown", None
        elif fault.code == "SC503":
            hint = self._several(where, value, spot.expect)
            what = fault.text.removeprefix("must be ")
            self._report.wrong_type(where, what, value, expect=spot.expect, hint=hint)
            return
        elif fault.whole and text.startswith(f"{name} "):
            name, _, text = text.partition(" ")
        elif fault.whole and not text.startswith("must "):
            name = f"{name}:"
        elif spot.expect.choices and isinstance(value, str):
            near = nearest(value, [choice for choice in spot.expect.choices if isinstance(choice, str)])
            text += f", not {shown(value)}"
            hint = None if near is None else f"did you mean {near!r}?"
        if isinstance(value, str) and SHELL.search(value):
            hint = SHELL_HINT
        elif hint is None and isinstance(value, str) and "," in value and isinstance(where[-1], int):
            hint = f"this is one item; to set the whole list by a variable, use {variable_name(where[:-1])}"
        self._report.add(fault.code, f"{name} {text}", where, hint=hint)

    def _whole(self, fault: _Complaint, spot: _Spot, where: TreePath, values: dict[str, Any]) -> None:
        """Report an error of a whole model, at the field that it names first, if that is set."""
        text = fault.text if fault.whole else f"{self._report.named(where)} {fault.text}"
        models = spot.expect.models if spot.trail else (spot.holder.model,)
        if _tells_any(f"{text} {fault.hint}", models, values):
            text = f"{self._report.named(where)} has values that do not fit; one is a secret, so they are not shown"
            self._report.add(fault.code, text, where, key=True, lacking=True)
            return
        first = fault.text.partition(" ")[0].strip("'`:,")
        if first in values:
            self._report.add(fault.code, text, (*where, first), key=True, hint=fault.hint, lacking=True)
        else:
            self._report.add(fault.code, text, where, key=True, hint=fault.hint, lacking=True)

    def _directory(self, path: TreePath) -> Path:
        """The directory for a relative path at ``path``."""
        layer = self._report.history.layer(path)
        return self._request.directory if layer is None else layer.directory

    def _types_with(self, field: str) -> list[str]:
        """The backends that have such a field: the built-in ones, and plugins that this layout uses anyway."""
        found = []
        for name in dict.fromkeys([*BUILT_IN["backend"], *(each for part, each in self.models if part == "backend")]):
            try:
                model = self._request.catalog.backend(name)
            except PluginError:
                continue  # it is not this one that the layout names
            if field in fields_of(model).expects and field not in fields_of(Backend).expects:
                found.append(name)
        return found


def _sample(example: object) -> str:
    return json.dumps(example, ensure_ascii=False) if isinstance(example, dict | list) else shown(example)


def _likely(model: type[S], known: dict[str, Any], all_of_them: dict[str, Any]) -> S:
    """Settings in which only placeholders are wrong."""
    try:
        return model.model_validate(known)
    except ValidationError:
        return model.model_construct(**all_of_them)


@lru_cache(maxsize=256)  # one mistake is often made in many stores
def _nearest(name: str, known: frozenset[str]) -> str | None:
    return nearest(name, sorted(known))


def _owner(path: TreePath, model: type[Any]) -> str:
    """The mapping at ``path``, in a message about its fields."""
    if issubclass(model, Backend):
        return f"type {model.model_fields['type'].default!r}"
    if issubclass(model, Middleware):
        return f"middleware {model.kind!r}"
    return last_names(path)


def _known(known: Collection[str]) -> str:
    return f"known fields: {', '.join(sorted(known))}"


def _tells(text: str, value: object) -> bool:
    """Whether a message gives part of a secret away."""
    secret = str(value)
    return any(secret[start : start + 4] in text for start in range(max(1, len(secret) - 3)))


def _tells_any(text: str, models: Sequence[type[BaseModel]], values: dict[str, Any]) -> bool:
    """Whether a model's message gives part of one of its secrets away; the names of fields are not secret."""
    for model in models:
        for name in fields_of(model).expects:
            text = text.replace(name, "")
    return any(_tells(text, secret) for secret in secrets_in(models, values))


# ---------------------------------------------------------------------- Pydantic's errors in plain words


@dataclass(frozen=True, slots=True)
class _Complaint:
    """A Pydantic error in plain words: ``text`` goes behind the field's name unless ``whole``."""

    code: str
    text: str
    hint: str | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class _Spot:
    """The position of an error: the keys and indices to it, the expected values, and the field's model."""

    trail: tuple[int | str, ...]
    expect: Expect
    holder: Fields
    outer: Expect = ANY


def _spot_of(fields: Fields, values: object, location: Sequence[int | str]) -> _Spot | None:
    """Take the tags of unions' members out of a location of Pydantic's; None when ``values`` can't mean that member."""
    trail: list[int | str] = []
    holder = fields
    here: Fields | None = fields
    expect = outer = ANY
    steps = iter(location)
    for step in steps:
        trail.append(step)
        values, outer = _inner(values, step), expect
        if here is None:
            expect = expect.inside(step) or ANY
        else:
            holder, expect = here, here.expects.get(str(step), ANY)
        tag = next(steps, None) if expect.union else None
        meant = expect.model is None or (expect.model.__name__ in str(tag)) == isinstance(values, dict)
        if tag is not None and not meant:
            return None
        here = None if expect.model is None else fields_of(expect.model)
    return _Spot(tuple(trail), expect, holder, outer)


def _inner(values: object, step: int | str) -> object:
    if isinstance(values, dict):
        return values.get(step)
    if isinstance(values, list) and isinstance(step, int) and step < len(values):
        return values[step]
    return None


_OWN_ERRORS: Final = frozenset(get_args(ErrorType))
"""Pydantic's own kinds of errors; any other is a model's, in its own words."""

_BOUNDS: Final = {
    "greater_than": ("must be greater than {}", "gt"),
    "greater_than_equal": ("must be at least {}", "ge"),
    "less_than": ("must be less than {}", "lt"),
    "less_than_equal": ("must be at most {}", "le"),
    "multiple_of": ("must be a multiple of {}", "multiple_of"),
    "string_too_short": ("must have at least {} characters", "min_length"),
    "string_too_long": ("must have at most {} characters", "max_length"),
    "string_pattern_mismatch": ("must match the pattern {}", "pattern"),
    "too_short": ("must have at least {} items", "min_length"),
    "too_long": ("must have at most {} items", "max_length"),
    "finite_number": ("must be finite{}", None),
}


_FORMS: Final = {
    "string": "a text",
    "bytes": "a text",
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
    "dataclass": "a mapping",
    "date": "a date such as 2026-01-31",
    "datetime": "a date and time such as 2026-01-31T12:00:00Z",
    "time": "a time such as 12:30",
    "timedelta": "a duration such as 90s",
    "uuid": "a UUID",
    "url": "a URL",
}
"""The value that Pydantic expected, by the first word of an error's type, where the field's class does not tell."""


def _untagged(error: ErrorDetails) -> ErrorDetails:
    """An error inside a union as one of the whole union."""
    inner = dotted(error["loc"][2:])
    reason = "unknown field" if error["type"] == "extra_forbidden" else error["msg"].lower()
    return {**error, "type": "union_tag_invalid", "msg": f"does not fit: {inner}: {reason}"}


def _complaint_of(error: ErrorDetails, expect: Expect) -> _Complaint:
    """Put one of Pydantic's errors into plain words. Neither the value nor Pydantic's own terms appear in them."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return _Complaint("SC502", "is missing")
    if kind in _BOUNDS:
        text, name = _BOUNDS[kind]
        bound = context[name] if name else ""
        if name == "min_length" and bound == 1:
            return _Complaint("SC504", "must not be empty")
        return _Complaint("SC504", text.format(bound))
    if kind == "int_parsing_size":
        return _Complaint("SC504", "is too large a number")
    if kind == "string_unicode":
        return _Complaint("SC504", "must be encodable as UTF-8")
    if kind in ("value_error", "assertion_error"):
        text, _, hint = str(context["error"]).partition("; ")
        return _Complaint("SC504", text, hint or None, whole=True)
    if kind == "unexpected_keyword_argument":
        return _Complaint("SC501", "is not one of the fields there")
    if expect.choices and (kind in ("literal_error", "enum") or expect.union):
        return _Complaint("SC504", f"must be {expect.what}")
    if kind.endswith(("_type", "_parsing", "_instance_of", "_inexact")) or kind in ("int_from_float", "path_type"):
        what = _FORMS.get(kind.partition("_")[0], expect.what) if expect.what == ANY.what else expect.what
        return _Complaint("SC503", f"must be {what}")
    if kind not in _OWN_ERRORS:
        text, _, hint = error["msg"].partition("; ")
        return _Complaint("SC510" if kind == EXCLUSIVE_FIELDS else "SC504", text, hint or None, whole=True)
    return _Complaint("SC504", error["msg"].removeprefix("Input ").replace("should be", "must be"))
