"""What the fields of a settings model take, worked out once per class, and Pydantic's errors in plain words.

Pydantic is lenient where a file should not be (``"5"`` for 5, ``true`` for 1), so the classes of plain values are
compared first: a file's values have types of their own. Values of variables are `str` subclasses and left to Pydantic.
"""

from __future__ import annotations

import collections.abc
import types
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, PlainValidator, SecretBytes, SecretStr, WrapValidator
from pydantic_core.core_schema import ErrorType

from storeconf._units import parse_duration, parse_size
from storeconf.plugin import EXCLUSIVE_FIELDS, NamesStore, PathFromFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

__all__ = ["ANY", "PLAIN", "Expect", "Fault", "Fields", "Spot", "fault_of", "fields_of", "kind_of", "spot_of"]

PLAIN: Final[frozenset[type]] = frozenset({str, int, float, bool, list, dict})
"""The classes of what files hold; anything else (a variable's text, an object in a mapping) is left to the model."""

_WORDS: Final[Mapping[type, str]] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}


@dataclass(frozen=True, slots=True)
class Expect:
    """What one field, list item or mapping value takes.

    ``classes`` are those of the plain values that can be right, None where only the model's own code knows.
    ``model`` is the settings model of a mapping, ``item`` what the items of a list or mapping are.
    """

    what: str
    classes: frozenset[type] | None = None
    choices: tuple[object, ...] = ()
    model: type[BaseModel] | None = None
    item: Expect | None = None
    path: bool = False
    secret: bool = False
    store: bool = False
    union: bool = False

    @property
    def stand_in(self) -> object:
        """A value of the right type, for one that is not known."""
        if self.choices:
            return self.choices[0]
        makers: tuple[tuple[type, object], ...] = ((str, "placeholder"), (int, 1), (float, 1.0), (bool, False))
        return next((value for each, value in makers if self.classes is None or each in self.classes), None)

    @property
    def hides(self) -> bool:
        """Whether a value that stands here alone is a secret."""
        return self.secret or (self.item is not None and self.item.hides)

    @property
    def deep(self) -> bool:
        """Whether there is something to look at inside a value of the right class."""
        return self.path or self.model is not None or (self.item is not None and self.item is not ANY)

    @property
    def direct(self) -> frozenset[type]:
        """The plain classes of values that are right as they are, and have nothing inside to look at."""
        classes = PLAIN if self.classes is None else self.classes
        if self.path:
            classes -= {str}
        return classes if self.model is None and self.item is None else classes - {dict, list}


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one model by the names that ops write.

    ``direct`` holds the plain classes of values that go to the model as they are, ``deep`` the fields some of whose
    values need a look inside, ``attributes`` what the fields are called in Python. ``model`` is the class itself.
    ``drops`` tells that it drops what it does not know, without a word and without having asked for that.
    """

    model: type[BaseModel]
    expects: Mapping[str, Expect]
    info: Mapping[str, FieldInfo]
    direct: Mapping[str, frozenset[type]]
    deep: frozenset[str]
    attributes: Mapping[str, str]
    drops: bool

    def takes(self, name: str, kind: type) -> bool:
        """Whether a value of that plain class can be right for a field."""
        classes = self.expects[name].classes
        return classes is not None and kind in classes

    def example(self, name: str) -> object | None:
        """The first example of a field, or None."""
        info = self.info.get(name)
        return info.examples[0] if info is not None and info.examples else None


ANY: Final = Expect("a value")


@cache
def fields_of(model: type[BaseModel]) -> Fields:
    """Return what the fields of ``model`` take."""
    expects, infos, attributes = {}, {}, {}
    before = _validated_before(model)
    for name, info in model.model_fields.items():
        shown = info.validation_alias if isinstance(info.validation_alias, str) else name
        expects[shown] = _expect(info.annotation, tuple(info.metadata), custom=name in before)
        infos[shown] = info
        attributes[shown] = name
    return Fields(
        model,
        expects,
        infos,
        {name: expect.direct for name, expect in expects.items()},
        frozenset(name for name, expect in expects.items() if expect.deep),
        attributes,
        _drops(model),
    )


def _drops(model: type[BaseModel]) -> bool:
    """Whether a model ignores unknown fields only because Pydantic does by default, and has no other names for any."""
    deciders = model.__pydantic_decorators__.model_validators.values()
    return (
        "extra" not in model.model_config
        and all(decider.info.mode == "after" for decider in deciders)
        and all(info.alias is None and info.validation_alias is None for info in model.model_fields.values())
    )


def _validated_before(model: type[BaseModel]) -> frozenset[str]:
    """The fields whose values the model's own code sees before their type does."""
    decorators = model.__pydantic_decorators__.field_validators.values()
    return frozenset(
        name for decorator in decorators if decorator.info.mode != "after" for name in decorator.info.fields
    )


def _expect(annotation: Any, metadata: tuple[Any, ...], *, custom: bool = False) -> Expect:
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        return _expect(annotation, (*metadata, *more), custom=custom)
    path = any(mark is PathFromFile or isinstance(mark, PathFromFile) for mark in metadata)
    store = any(mark is NamesStore or isinstance(mark, NamesStore) for mark in metadata)
    for mark in metadata:
        if isinstance(mark, BeforeValidator | PlainValidator | WrapValidator):
            custom = True
            if mark.func is parse_duration:
                return Expect("a duration", frozenset({int, float, str}))
            if mark.func is parse_size:
                return Expect("a size", frozenset({int, float, str}))
    typed = _typed(annotation, path=path, store=store)
    if custom:  # the model's own code may take other classes than those of its type
        return replace(typed, classes=None, what=typed.what if typed.deep else ANY.what)
    return typed


def _typed(annotation: Any, *, path: bool, store: bool) -> Expect:
    origin = get_origin(annotation) or annotation
    if origin is Union or origin is types.UnionType:
        return _union([_expect(each, ()) for each in get_args(annotation) if each is not type(None)])
    if origin is Literal:
        choices = get_args(annotation)
        return Expect(_one_of(choices), frozenset(map(type, choices)), choices)
    if not isinstance(origin, type):
        return ANY
    if origin in (str, int, bool):
        return Expect(_WORDS[origin], frozenset({origin}), store=store)
    if origin is float:
        return Expect(_WORDS[float], frozenset({int, float}))
    if issubclass(origin, PurePath):
        return Expect("a path", frozenset({str}), path=path)
    if issubclass(origin, SecretStr | SecretBytes):
        return Expect("a text", frozenset({str}), secret=True)
    if issubclass(origin, BaseModel):
        return Expect("a mapping", frozenset({dict}), model=origin)
    if issubclass(origin, Enum):
        choices = tuple(member.value for member in origin)
        return Expect(_one_of(choices), frozenset(map(type, choices)), choices)
    arguments = get_args(annotation)
    if issubclass(origin, collections.abc.Mapping):
        return Expect("a mapping", frozenset({dict}), item=_expect(arguments[1], ()) if arguments else None)
    if issubclass(origin, list | tuple | set | frozenset) or origin is collections.abc.Sequence:
        return Expect("a list", frozenset({list}), item=_expect(arguments[0], ()) if arguments else None)
    return ANY


def _union(members: list[Expect]) -> Expect:
    if len(members) == 1:
        return members[0]
    known = [member.classes for member in members if member.classes is not None]
    return Expect(
        " or ".join(dict.fromkeys(member.what for member in members)),
        frozenset().union(*known) if len(known) == len(members) else None,
        tuple(choice for member in members for choice in member.choices),
        next((member.model for member in members if member.model is not None), None),
        next((member.item for member in members if member.item is not None), None),
        path=any(member.path for member in members),
        secret=any(member.secret for member in members),
        store=any(member.store for member in members),
        union=True,
    )


def _one_of(choices: tuple[object, ...]) -> str:
    shown = [repr(choice) if isinstance(choice, str) else str(choice).lower() for choice in choices]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"


def kind_of(value: object) -> str:
    """What a value is, in the words of this module's messages."""
    for each, words in _WORDS.items():
        if type(value) is each:
            return words if each is not bool else str(value).lower()
    return _WORDS[str] if isinstance(value, str) else "null" if value is None else f"a {type(value).__name__}"


@dataclass(frozen=True, slots=True)
class Fault:
    """A Pydantic error in plain words: ``text`` goes behind the field's name unless ``whole``."""

    code: str
    text: str
    hint: str | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Spot:
    """Where an error is: the keys and indices from the model to it, what is expected there, whose field it is."""

    trail: tuple[int | str, ...]
    expect: Expect
    holder: Fields


def spot_of(fields: Fields, values: object, location: Sequence[int | str]) -> Spot | None:
    """Take the tags of unions' members out of a location of Pydantic's; None when ``values`` can't mean that member."""
    trail: list[int | str] = []
    holder = fields
    here: Fields | None = fields
    expect = ANY
    steps = iter(location)
    for step in steps:
        trail.append(step)
        values = _inner(values, step)
        if here is None:
            expect = expect.item or ANY
        else:
            holder, expect = here, here.expects.get(str(step), ANY)
        tag = next(steps, None) if expect.union else None
        meant = expect.model is None or (expect.model.__name__ in str(tag)) == isinstance(values, dict)
        if tag is not None and not meant:
            return None
        here = None if expect.model is None else fields_of(expect.model)
    return Spot(tuple(trail), expect, holder)


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


def fault_of(error: ErrorDetails, expect: Expect) -> Fault:
    """Put one of Pydantic's errors into plain words. Neither the value nor Pydantic's own terms appear in them."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return Fault("SC502", "is missing")
    if kind in _BOUNDS:
        text, name = _BOUNDS[kind]
        bound = context[name] if name else ""
        if name == "min_length" and bound == 1:
            return Fault("SC504", "must not be empty")
        return Fault("SC504", text.format(bound))
    if kind == "int_parsing_size":
        return Fault("SC504", "is too large a number")
    if kind == "string_unicode":
        return Fault("SC504", "must be encodable as UTF-8")
    if kind in ("value_error", "assertion_error"):
        text, _, hint = str(context["error"]).partition("; ")
        return Fault("SC504", text, hint or None, whole=True)
    if expect.choices and (kind in ("literal_error", "enum") or expect.union):
        return Fault("SC504", f"must be {expect.what}")
    if kind.endswith(("_type", "_parsing", "_instance_of")) or kind in ("int_from_float", "path_type"):
        return Fault("SC503", f"must be {expect.what}")
    if kind not in _OWN_ERRORS:
        text, _, hint = error["msg"].partition("; ")
        return Fault("SC510" if kind == EXCLUSIVE_FIELDS else "SC504", text, hint or None, whole=True)
    return Fault("SC504", error["msg"].removeprefix("Input ").replace("should be", "must be"))
