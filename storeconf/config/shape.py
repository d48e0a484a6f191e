"""What can stand in the fields of a settings model: a scalar, a list, a mapping, or the settings of another model.

Worked out once per class from its annotations. Says what a variable's segments may name and when its text is read as
a list or mapping; whether a value is right is not decided here.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import PurePath
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, PlainValidator, SecretBytes, SecretStr, WrapValidator

__all__ = ["ANYTHING", "SCALAR", "Shape", "field_shapes", "shape_of"]

_FREE: Final = (BeforeValidator, PlainValidator, WrapValidator)


@dataclass(frozen=True, slots=True)
class Shape:
    """What can stand at one place.

    ``item`` is what a list there holds, ``value`` what a mapping with free keys holds, ``models`` whose settings a
    mapping there can be. ``choices`` are the texts of which one is wanted.
    """

    scalar: bool = True
    item: Shape | None = None
    value: Shape | None = None
    models: tuple[type[BaseModel], ...] = ()
    choices: tuple[str, ...] = ()
    secret: bool = False
    path: bool = False

    @property
    def mapping(self) -> bool:
        """Whether a mapping can stand here."""
        return self.value is not None or bool(self.models)

    @property
    def container(self) -> bool:
        """Whether a list or a mapping can stand here."""
        return self.item is not None or self.mapping

    @property
    def what(self) -> str:
        """What is wanted, for messages."""
        wanted = ["a text"] if self.scalar else []
        wanted += ["a list"] if self.item is not None else []
        wanted += ["a mapping"] if self.mapping else []
        return " or ".join(wanted)

    def fields(self) -> dict[str, Shape]:
        """Return the fields that a mapping of settings here has."""
        fields: dict[str, Shape] = {}
        for model in reversed(self.models):
            fields |= field_shapes(model)
        return fields


SCALAR: Final = Shape()
ANYTHING: Final = Shape(item=SCALAR, value=SCALAR)


@cache
def field_shapes(model: type[BaseModel]) -> Mapping[str, Shape]:
    """Return the shapes of a model's fields by the names that ops write."""
    decorators = model.__pydantic_decorators__.field_validators.values()
    free = {name for each in decorators if each.info.mode != "after" for name in each.info.fields}
    shapes = {}
    for name, info in model.model_fields.items():
        shape = shape_of(info.annotation, tuple(info.metadata))
        if "*" in free or name in free:
            shape = _either([shape, SCALAR])
        shapes[info.validation_alias if isinstance(info.validation_alias, str) else name] = shape
    return shapes


def shape_of(annotation: Any, metadata: tuple[Any, ...] = ()) -> Shape:
    """Return what values an annotation admits."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            metadata = (*metadata, *more)
        elif not isinstance(annotation, type) and hasattr(annotation, "__value__"):
            annotation = annotation.__value__
        else:
            break
    shape = _plain(annotation)
    if shape.container and any(isinstance(mark, _FREE) for mark in metadata):
        return _either([shape, SCALAR])
    return shape


def _plain(annotation: Any) -> Shape:
    origin = get_origin(annotation) or annotation
    arguments = get_args(annotation)
    if origin is Union or origin is types.UnionType:
        return _either([shape_of(each) for each in arguments if each is not type(None)])
    if origin is Literal:
        return Shape(choices=tuple(each for each in arguments if isinstance(each, str)))
    if not isinstance(origin, type) or origin in (object, Any):
        return ANYTHING
    if issubclass(origin, BaseModel):
        return Shape(scalar=False, models=(origin,))
    if issubclass(origin, Enum):
        return Shape(choices=tuple(each.value for each in origin if isinstance(each.value, str)))
    if issubclass(origin, Mapping):
        return Shape(scalar=False, value=shape_of(arguments[1]) if len(arguments) > 1 else ANYTHING)
    if issubclass(origin, Sequence | set | frozenset) and not issubclass(origin, str | bytes):
        return Shape(scalar=False, item=shape_of(arguments[0]) if arguments else ANYTHING)
    return Shape(secret=issubclass(origin, SecretStr | SecretBytes), path=issubclass(origin, PurePath))


def _either(shapes: list[Shape]) -> Shape:
    return Shape(
        scalar=any(shape.scalar for shape in shapes),
        item=next((shape.item for shape in shapes if shape.item is not None), None),
        value=next((shape.value for shape in shapes if shape.value is not None), None),
        models=tuple(model for shape in shapes for model in shape.models),
        choices=tuple(choice for shape in shapes for choice in shape.choices),
        secret=any(shape.secret for shape in shapes),
        path=any(shape.path for shape in shapes),
    )
