"""The values that the fields of a settings model take, derived once per class from its annotations.

Pydantic is lenient where a file should not be (``"5"`` for 5, ``true`` for 1), so the classes of plain values are
compared first: a file's values have types of their own. Values of variables are `str` subclasses and left to Pydantic.
For them, this module knows when a text is read as a list or a mapping, and the names that a variable can contain.
"""

from __future__ import annotations

import types
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, is_dataclass, replace
from datetime import date, datetime, time
from enum import Enum
from functools import cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import (
    BaseModel,
    BeforeValidator,
    PlainValidator,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    WrapValidator,
)

from storeconf._arguments import parse_duration, parse_share, parse_size
from storeconf.plugin import NamesStore, PathFromFile

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

__all__ = ["ANY", "MAPPING", "PLAIN", "TEXT", "WORDS", "Expect", "Fields", "expect_of", "fields_of", "store_fields"]

PLAIN: Final[frozenset[type]] = frozenset({str, int, float, bool, list, dict})
"""The classes of values in files; all others (a variable's text, an object in a mapping) are left to the model."""

WORDS: Final[Mapping[type, str]] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}


@dataclass(frozen=True, slots=True)
class Expect:
    """The values that one field, list item or mapping value takes.

    ``kinds`` are the plain classes of its type, None for any. Not ``strict``: the model's own code may take others.
    ``item`` describes the items of a list, ``items`` each of them where their number is fixed, ``value`` the values of
    a mapping with free keys, ``models`` are settings that a mapping can be.
    """

    what: str
    kinds: frozenset[type] | None = None
    choices: tuple[object, ...] = ()
    models: tuple[type[BaseModel], ...] = ()
    item: Expect | None = None
    value: Expect | None = None
    path: bool = False
    secret: bool = False
    store: bool = False
    union: bool = False
    strict: bool = True
    items: tuple[Expect, ...] = ()

    @property
    def classes(self) -> frozenset[type] | None:
        """The classes of the plain values that can be right, None where only the model's own code knows."""
        return self.kinds if self.strict else None

    @property
    def model(self) -> type[BaseModel] | None:
        """The settings that a mapping here is."""
        return self.models[0] if self.models else None

    @property
    def stand_in(self) -> object:
        """A value of the right type, for one that is not known."""
        if self.choices:
            return self.choices[0]
        makers: tuple[tuple[type, object], ...] = ((str, "placeholder"), (int, 1), (float, 1.0), (bool, False))
        return next((value for each, value in makers if self.classes is None or each in self.classes), None)

    @property
    def hides(self) -> bool:
        """Whether a single value here is a secret."""
        return self.secret or any(inner is not None and inner.hides for inner in (self.item, self.value))

    @property
    def deep(self) -> bool:
        """Whether the contents of a value of the right class are examined further."""
        inside = (inner for inner in (self.item, self.value) if inner is not None)
        return self.path or bool(self.models) or any(inner is not ANY for inner in inside)

    @property
    def direct(self) -> frozenset[type]:
        """The plain classes of values that are right as they are, and are not examined further."""
        classes = PLAIN if self.classes is None else self.classes
        if self.path or self.hides:
            classes -= {str}
        return classes - {dict, list} if self.models or self.item or self.value else classes

    # ------------------------------------------------------------------ for texts that may mean lists and mappings

    @property
    def scalar(self) -> bool:
        """Whether a text is possible here as it is."""
        return self.classes is None or not self.classes <= {list, dict}

    @property
    def listing(self) -> bool:
        """Whether a list is possible here."""
        return self.kinds is None or list in self.kinds

    @property
    def mapping(self) -> bool:
        """Whether a mapping is possible here."""
        return self.kinds is None or dict in self.kinds

    def inside(self, step: int | str) -> Expect | None:
        """The values of a list's items here, or of a mapping with free keys; None if neither is possible."""
        if isinstance(step, int):
            return self.items[step] if step < len(self.items) else self.item
        return self.value

    def fields(self) -> dict[str, Expect]:
        """The fields that a mapping of settings here has."""
        return {name: expect for model in reversed(self.models) for name, expect in fields_of(model).expects.items()}


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one model by their names in a layout.

    ``direct`` holds the plain classes of values that go to the model as they are, ``deep`` the fields whose
    values are examined further, ``attributes`` the names of the fields in Python. ``model`` is the class itself.
    ``drops``: it silently drops unknown fields, only because that is the default.
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


_MOMENTS: Final[Mapping[type, str]] = {
    datetime: "a date and time such as 2026-01-31T12:00:00Z",
    date: "a date such as 2026-01-31",
    time: "a time such as 12:30",
}
"""The forms of dates and times; a datetime is a date, so it comes first."""

ANY: Final = Expect("a value")
TEXT: Final = Expect("a text", frozenset({str}))
MAPPING: Final = Expect("a mapping", frozenset({dict}), value=ANY)


@cache
def fields_of(model: type[BaseModel]) -> Fields:
    """Return the fields of ``model`` with the values that they take."""
    expects, infos, attributes = {}, {}, {}
    before = _validated_before(model)
    for name, info in model.model_fields.items():
        shown = info.validation_alias if isinstance(info.validation_alias, str) else name
        expects[shown] = expect_of(info.annotation, tuple(info.metadata), custom=name in before)
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


@cache
def store_fields(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the fields of ``model`` that name stores."""
    return tuple(name for name, expect in fields_of(model).expects.items() if expect.store)


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
    seen = {name for decorator in decorators if decorator.info.mode != "after" for name in decorator.info.fields}
    return frozenset(model.model_fields) if "*" in seen else frozenset(seen)


def expect_of(annotation: Any, metadata: tuple[Any, ...] = (), *, custom: bool = False) -> Expect:
    """Return the values that an annotation admits; ``custom``: after the model's own code has seen it."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            metadata = (*metadata, *more)
        elif not isinstance(annotation, type) and hasattr(annotation, "__value__"):  # a type alias
            annotation = annotation.__value__
        elif hasattr(annotation, "__supertype__"):  # a NewType
            annotation = annotation.__supertype__
        else:
            break
    path = any(mark is PathFromFile or isinstance(mark, PathFromFile) for mark in metadata)
    store = any(mark is NamesStore or isinstance(mark, NamesStore) for mark in metadata)
    for mark in metadata:
        if isinstance(mark, BeforeValidator | PlainValidator | WrapValidator):
            custom = True
            if mark.func is parse_duration:
                return Expect("a duration", frozenset({int, float, str}))
            if mark.func is parse_share:
                return Expect("a share", frozenset({int, float, str}))
            if mark.func is parse_size:
                return Expect("a size", frozenset({int, float, str}))
    typed = _typed(annotation, path=path, store=store)
    if custom:
        return replace(typed, strict=False, what=typed.what if typed.deep else ANY.what)
    return typed


def _typed(annotation: Any, *, path: bool, store: bool) -> Expect:
    origin = get_origin(annotation) or annotation
    arguments = get_args(annotation)
    if origin is Union or origin is types.UnionType:
        return _union([expect_of(each) for each in arguments if each is not type(None)])
    if origin is Literal:
        return Expect(_one_of(arguments), frozenset(map(type, arguments)), arguments)
    if not isinstance(origin, type) or origin in (object, Any):
        return ANY
    if origin in (str, int, bool):
        return Expect(WORDS[origin], frozenset({origin}), store=store)
    if origin is float:
        return Expect(WORDS[float], frozenset({int, float}))
    if issubclass(origin, PurePath):
        return Expect("a path", frozenset({str}), path=path)
    if issubclass(origin, SecretStr | SecretBytes):
        return Expect("a text", frozenset({str}), secret=True)
    if issubclass(origin, Secret):
        return replace(expect_of(arguments[0]) if arguments else ANY, secret=True)
    if issubclass(origin, RootModel):
        return expect_of(origin.model_fields["root"].annotation, custom=True)
    if issubclass(origin, BaseModel):
        return Expect("a mapping", frozenset({dict}), models=(origin,))
    if issubclass(origin, Enum):
        choices = tuple(member.value for member in origin)
        return Expect(_one_of(choices), frozenset(map(type, choices)), choices)
    if issubclass(origin, Mapping):
        return replace(MAPPING, value=expect_of(arguments[1])) if arguments else _whole(MAPPING, origin)
    if is_dataclass(origin):
        return _whole(MAPPING, origin)
    for kind, what in _MOMENTS.items():
        if issubclass(origin, kind):
            return Expect(what, frozenset({str}))
    if issubclass(origin, tuple) and arguments:
        members = tuple(expect_of(each) for each in arguments if each is not Ellipsis)
        item = _together(members) if members else ANY
        if Ellipsis in arguments:
            return Expect("a list", frozenset({list}), item=item)
        what = " and ".join(filter(None, (", ".join(each.what for each in members[:-1]), members[-1].what)))
        return Expect(f"a list of {what}", frozenset({list}), item=item, items=members)
    if issubclass(origin, Sequence | set | frozenset) and not issubclass(origin, str | bytes | bytearray):
        if arguments:
            return Expect("a list", frozenset({list}), item=expect_of(arguments[0]))
        return _whole(Expect("a list", frozenset({list}), item=ANY), origin)
    return _whole(Expect(ANY.what, PLAIN - {list, dict}, strict=False), annotation)


def _whole(expect: Expect, annotation: Any) -> Expect:
    """The values of a class with unknown contents: either all of it is a secret, or nothing is."""
    return replace(expect, secret=True) if _holds_secret(annotation) else expect


def _holds_secret(annotation: Any, seen: frozenset[Any] = frozenset()) -> bool:
    """Whether a secret is anywhere in a value of this type: a dataclass, a TypedDict, a NamedTuple, a generic."""
    if annotation in seen:
        return False
    seen |= {annotation}
    if isinstance(annotation, type) and issubclass(annotation, SecretStr | SecretBytes | Secret):
        return True
    inside = list(get_args(annotation))
    origin = get_origin(annotation) or annotation
    if isinstance(origin, type) and issubclass(origin, BaseModel):
        inside += (field.annotation for field in origin.model_fields.values())
    elif isinstance(origin, type):
        with suppress(NameError, TypeError):  # annotations that can't be resolved name nothing that is known here
            inside += get_type_hints(origin, include_extras=True).values()
    return any(_holds_secret(each, seen) for each in inside if isinstance(each, Hashable))


def _union(members: list[Expect]) -> Expect:
    if len(members) == 1:
        return members[0]
    known = [member.kinds for member in members if member.kinds is not None]
    return Expect(
        " or ".join(dict.fromkeys(member.what for member in members)),
        frozenset().union(*known) if len(known) == len(members) else None,
        tuple(choice for member in members for choice in member.choices),
        tuple(model for member in members for model in member.models),
        _inside([member.item or ANY for member in members if member.listing]),
        _inside([member.value or ANY for member in members if member.mapping and not member.models]),
        path=any(member.path for member in members),
        secret=any(member.secret for member in members),
        store=any(member.store for member in members),
        union=True,
        strict=all(member.strict for member in members),
    )


def _inside(members: Sequence[Expect]) -> Expect | None:
    """The values expected as items of several lists, or as values of several mappings."""
    return ANY if ANY in members else _together(members) if members else None


def _together(members: Sequence[Expect]) -> Expect:
    """The values that any of these expects; unlike in a union of fields, Pydantic names no member in its errors."""
    return replace(_union(list(dict.fromkeys(members))), union=False) if len(set(members)) > 1 else members[0]


def _one_of(choices: tuple[object, ...]) -> str:
    shown = [repr(choice) if isinstance(choice, str) else str(choice).lower() for choice in choices]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
