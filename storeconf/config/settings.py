"""Makes one model of settings from plain values, or says everything that is wrong with them.

Paths become absolute and placeholders get values first; then the model validates, and its errors are put in words.
"""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, cast

from pydantic import ValidationError

from storeconf.catalog import BUILT_IN
from storeconf.config.faults import fault_of, kind_of, spot_of
from storeconf.config.fields import PLAIN, fields_of
from storeconf.config.reporter import Problems, listed, shown
from storeconf.config.suggest import nearest
from storeconf.config.tree import Placeholder, TreePath, lookup
from storeconf.errors import PluginError
from storeconf.plugin import Backend, Middleware, Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from storeconf.catalog import Catalog, Part
    from storeconf.config.faults import Fault, Spot
    from storeconf.config.fields import Expect, Fields
    from storeconf.config.pipeline import Assembly

__all__ = ["SettingsReader"]

S = TypeVar("S", bound=Settings)

_Marks: TypeAlias = dict[TreePath, bool]
"""Places whose errors are known: True where a value is wrong, False where it is a placeholder."""

_BAD: Final[Any] = object()

_ASSIGNMENT: Final = re.compile(r"\s*[\w.-]+\s*[:=]")
"""How a field with its value begins that YAML took for one text; what it holds may be a secret."""


class SettingsReader:
    """Reads the settings of backends and middleware.

    ``vague`` tells whether it met a placeholder; ``models`` has the classes that it met, by part and name; ``unknown``
    has the placeholders that stand for kinds and stores, by their texts, with the first place of each.
    """

    def __init__(self, assembly: Assembly, catalog: Catalog, problems: Problems) -> None:
        self.vague = False
        self.unknown: dict[str, TreePath] = {}
        self._assembly = assembly
        self._catalog = catalog
        self._problems = problems
        self.models: dict[tuple[Part, str], type[Settings]] = {}
        self._places: dict[tuple[Part, str], TreePath] = {}

    def backend(self, name: str, path: TreePath) -> type[Backend] | None:
        """The backend of that name, or None with a problem at ``path``."""
        return cast("type[Backend] | None", self.models.get(("backend", name)) or self._find("backend", name, path))

    def middleware(self, kind: str, path: TreePath) -> type[Middleware] | None:
        """The middleware of that kind, or None with a problem at the key of ``path``."""
        found = self.models.get(("middleware", kind)) or self._find("middleware", kind, path)
        return cast("type[Middleware] | None", found)

    def check_shadows(self) -> None:
        """Warn of plugins that claim names of built-in kinds; a layout that uses no plugins hears nothing of them."""
        own = {key: self._catalog.is_built_in(*key) for key in self._places}
        if all(own.values()):
            return
        for (part, name), path in self._places.items():
            shadow = self._catalog.shadowed(part, name) if own[part, name] else None
            if shadow is not None:
                key = part == "middleware"
                self._problems.add("SC705", shadow, path, key=key, severity="warning", hint="the built-in one is used")

    def build(self, model: type[S], values: dict[str, Any], path: TreePath, also: Collection[str] = ()) -> S | None:
        """Make the settings at ``path``, or report everything that is wrong with them.

        ``also`` names what may stand in the same mapping besides the model's own fields.
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
            text = f"{model.__name__} could not read its settings: {type(error).__name__}: {error}"
            self._problems.add("SC708", text, path, key=True, hint="tell the plugin's author")
        else:
            return None if any(marks.values()) else built
        return None

    def wrong_type(
        self, path: TreePath, what: str, value: object, *, expect: Expect | None = None, hint: str | None = None
    ) -> None:
        """Report a value that is not ``what`` it should be."""
        secret = self._hidden(path, expect)
        name = self._named(path)
        got = kind_of(value)
        secret = secret or (isinstance(value, str) and _ASSIGNMENT.match(value) is not None)
        if not secret and isinstance(value, str | int | float) and not isinstance(value, bool):
            got = f"the {got.partition(' ')[2]} {shown(value)}"
        if expect is not None and hint is None and not secret:
            hint = _retyped(name, value, expect)
        self._problems.add("SC503", f"{name} must be {what}, not {got}", path, hint=hint)

    def unknown_fields(self, path: TreePath, names: Iterable[str], known: Collection[str], owner: str) -> list[str]:
        """Report fields of the mapping at ``path`` that ``owner``, which knows ``known``, does not have.

        Return the fields that were meant, as far as that can be told.
        """
        meant = []
        store = path[:1] == ("default_factory",) or len(path) == 2
        for name in names:
            where = (*path, name)
            near = _nearest(name, frozenset(known))
            types = self._types_with(name) if store else []
            if types:
                text = f"{name!r} belongs to stores of type {listed(types)}; {owner} has no such field"
                self._problems.add("SC508", text, where, key=True)
            elif store and name in {"parent", "namespace", "middleware", "description", "max_stores"}:
                self._problems.add("SC508", f"{owner} takes no {name!r}", where, key=True, hint=_known(known))
            elif store and near is None and name in self._catalog.middleware_names() and "middleware" in known:
                hint = f"write it under middleware: middleware: {{{name}: …}}"
                self._problems.add("SC501", f"{owner} has no field {name!r}", where, key=True, hint=hint)
            else:
                hint = _known(known) if near is None else f"did you mean {near!r}?"
                self._problems.add("SC501", f"{owner} has no field {name!r}", where, key=True, hint=hint)
                meant += [near] if near is not None else []
        return meant

    # ------------------------------------------------------------------ before the model

    def _find(self, part: Literal["backend", "middleware"], name: str, path: TreePath) -> type[Settings] | None:
        model: type[Settings]
        try:
            model = self._catalog.backend(name) if part == "backend" else self._catalog.middleware(name)
        except PluginError as error:
            self._problems.add(error.code, str(error.args[0]), path, key=part == "middleware", hint=error.hint)
            return None
        self.models[part, name] = model
        self._places[part, name] = path
        return model

    def _looked(self, fields: Fields, values: dict[str, Any], path: TreePath, marks: _Marks) -> dict[str, Any]:
        """The values with absolute paths, without placeholders and what is wrong; a copy only if that changes any."""
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
        if expect.classes is not None and value.__class__ in PLAIN and value.__class__ not in expect.classes:
            self.wrong_type(path, expect.what, value, expect=expect)
        elif isinstance(value, dict) and expect.model is not None:
            fields = fields_of(expect.model)
            strangers = value.keys() - fields.expects.keys() if fields.drops and not expect.union else ()
            if strangers:
                known = fields.expects.keys()
                self.unknown_fields(path, filter(strangers.__contains__, value), known, _named(path))
            return self._looked(fields, value, path, marks)
        elif isinstance(value, dict) and expect.value is not None:
            items = {key: self._look(expect.value, item, (*path, key), marks) for key, item in value.items()}
            return {key: item for key, item in items.items() if item is not _BAD}
        elif isinstance(value, list) and expect.item is not None:
            return [self._look(expect.item, item, (*path, index), marks) for index, item in enumerate(value)]
        elif not (expect.path and isinstance(value, str)):
            return value
        elif not value or "\0" in value:
            what = "a text that holds a NUL character" if value else "an empty text"
            self._problems.add("SC504", f"{self._named(path)} must be a path, not {what}", path)
        elif os.path.isabs(absolute := os.path.join(self._assembly.directory(path), value)):
            return absolute
        else:
            text = f"{self._named(path)} is relative to the working directory, which does not exist any more"
            self._problems.add("SC504", text, path, hint="write an absolute path, or start in another directory")
        marks[path] = True
        return _BAD

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
        """Report Pydantic's errors, but for those that follow from what ``marks`` says is wrong or unknown.

        Return whether there were others.
        """
        faults: dict[TreePath, list[tuple[Fault, Spot]]] = {}
        strangers: dict[TreePath, tuple[Spot, frozenset[str]]] = {}
        for each in error.errors(include_url=False, include_input=False):
            spot = spot_of(fields, values, each["loc"])
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
                faults.setdefault(where, []).append((fault_of(each, spot.expect), spot))
        for where, (spot, known) in strangers.items():
            near = self.unknown_fields(where[:-1], [str(where[-1])], known, _owner(where[:-1], spot.holder.model))
            for meant in near:  # the field is there, if misspelt
                if any(fault.code == "SC502" for fault, _ in faults.get((*where[:-1], meant), ())):
                    del faults[(*where[:-1], meant)]
        for where, found in faults.items():
            # Of a union's members, the one with code of its own knows best what is wrong.
            fault, spot = min(found, key=lambda pair: (not pair[0].whole, pair[0].code == "SC503"))
            self._fault(fault, spot, where, lookup(values, spot.trail))
        return bool(strangers or faults)

    def _fault(self, fault: Fault, spot: Spot, where: TreePath, value: Any) -> None:
        if fault.code == "SC502":
            example = spot.holder.example(str(where[-1]))
            hint = None if example is None else f"for example {where[-1]}: {_sample(example)}"
            owner = _owner(where[:-1], spot.holder.model)
            text = f"{owner} needs {str(where[-1])!r}"
            self._problems.add(fault.code, text, where[:-1], key=True, hint=hint, lacking=True)
            return
        if isinstance(value, dict) or not spot.trail:
            self._whole(fault, where, value if isinstance(value, dict) else {})
            return
        name, text, hint = self._named(where), fault.text, fault.hint
        if self._hidden(where, spot.expect) and _tells(f"{text} {hint}", value):
            text, hint = "has a value that does not fit; it is a secret, so it is not shown", None
        elif fault.code == "SC503":
            self.wrong_type(where, spot.expect.what, value, expect=spot.expect)
            return
        elif fault.whole and text.startswith(f"{name} "):
            name, _, text = text.partition(" ")
        elif fault.whole and not text.startswith("must "):
            name = f"{name}:"
        elif spot.expect.choices and isinstance(value, str):
            near = nearest(value, [choice for choice in spot.expect.choices if isinstance(choice, str)])
            text += f", not {shown(value)}"
            hint = None if near is None else f"did you mean {near!r}?"
        self._problems.add(fault.code, f"{name} {text}", where, hint=hint)

    def _whole(self, fault: Fault, where: TreePath, values: dict[str, Any]) -> None:
        """Report what a model says of all its fields, at the field that it names first, if it is there."""
        text = fault.text if fault.whole else f"{self._named(where)} {fault.text}"
        first = fault.text.partition(" ")[0].strip("'`:,")
        if first in values:
            self._problems.add(fault.code, text, (*where, first), key=True, hint=fault.hint, lacking=True)
        else:
            self._problems.add(fault.code, text, where, key=True, hint=fault.hint, lacking=True)

    def _named(self, path: TreePath) -> str:
        """What the value at a path is called where it is written: a setting that stands alone has its kind's name."""
        return _named(self._assembly.written(path))

    def _hidden(self, path: TreePath, expect: Expect | None) -> bool:
        return (expect is not None and expect.hides) or self._assembly.is_secret(path)

    def _types_with(self, field: str) -> list[str]:
        """The backends that have such a field: the built-in ones, and plugins that this layout uses anyway."""
        found = []
        for name in dict.fromkeys([*BUILT_IN["backend"], *(each for part, each in self.models if part == "backend")]):
            try:
                model = self._catalog.backend(name)
            except PluginError:
                continue  # it is not this one that the layout names
            if field in fields_of(model).expects and field not in fields_of(Backend).expects:
                found.append(name)
        return found


def _sample(example: object) -> str:
    return json.dumps(example, ensure_ascii=False) if isinstance(example, dict | list) else shown(example)


def _likely(model: type[S], known: dict[str, Any], all_of_them: dict[str, Any]) -> S:
    """Settings of which nothing is wrong but what stands for unknown values."""
    try:
        return model.model_validate(known)
    except ValidationError:
        return model.model_construct(**all_of_them)


@lru_cache(maxsize=256)  # one mistake is often made in many stores
def _nearest(name: str, known: frozenset[str]) -> str | None:
    return nearest(name, sorted(known))


def _named(path: TreePath) -> str:
    """The last names of a path: ``url``, ``nodes[1]``."""
    last = path[-1]
    return f"{path[-2]}[{last}]" if isinstance(last, int) and len(path) > 1 else str(last)


def _owner(path: TreePath, model: type[Any]) -> str:
    """What the mapping at ``path`` is, in a message about its fields."""
    if issubclass(model, Backend):
        return f"type {model.model_fields['type'].default!r}"
    if issubclass(model, Middleware):
        return f"middleware {model.kind!r}"
    return _named(path)


def _known(known: Collection[str]) -> str:
    return f"known fields: {', '.join(sorted(known))}"


def _tells(text: str, value: object) -> bool:
    """Whether a message gives part of a secret away."""
    secret = str(value)
    return any(secret[start : start + 4] in text for start in range(max(1, len(secret) - 3)))


def _retyped(name: str, value: object, expect: Expect) -> str | None:
    """How to write a value so that it has the type that the field takes."""
    classes = expect.classes or frozenset()
    if isinstance(value, str):
        if bool in classes and value.lower() in ("true", "false"):
            return f"write it without quotes: {name}: {value.lower()}"
        if bool in classes and value.lower() in ("yes", "no", "on", "off"):
            return f"write true or false: {value} is a text"
        if classes & {int, float} and _is_number(value, whole=float not in classes):
            return f"write it without quotes: {name}: {value}"
        if list in classes:
            return f"write a list: {name}: [{shown(value)}]"
    elif str in classes and isinstance(value, int | float) and not isinstance(value, bool):
        return f'put it in quotes: {name}: "{value}"'
    elif str in classes and isinstance(value, bool):
        return f'put it in quotes: {name}: "{str(value).lower()}"'
    return None


def _is_number(text: str, *, whole: bool) -> bool:
    try:
        int(text) if whole else float(text)
    except ValueError:
        return False
    return not re.search(r"[_\s]", text)  # which Python takes, and no format does
