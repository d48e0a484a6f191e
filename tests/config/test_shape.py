"""What the fields of a model can hold, read from its annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import Enum
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import BaseModel, BeforeValidator, Field, field_validator
from typing_extensions import TypeAliasType

from storeconf.backends.redis import RedisBackend
from storeconf.config.shape import ANYTHING, SCALAR, Shape, field_shapes, shape_of
from storeconf.plugin import ConfigPath, Duration, Secret, Size

LISTED = Shape(scalar=False, item=SCALAR)
ALIAS = TypeAliasType("ALIAS", list[str])


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    x: int = 0


class Model(BaseModel):
    plain: int = 0
    path: ConfigPath | None = None
    inner: Inner | bool = True
    items: list[str] = Field(default_factory=list)

    @field_validator("items", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("annotation", "shape"),
    [
        (str, SCALAR),
        (int, SCALAR),
        (bool, SCALAR),
        (timedelta, SCALAR),
        (Duration, SCALAR),
        (Size, SCALAR),
        (Optional[int], SCALAR),  # noqa: UP045 - the old way must work too
        (int | None, SCALAR),
        (Duration | bool, SCALAR),
        (bytes, SCALAR),
        (Secret, Shape(secret=True)),
        (Secret | None, Shape(secret=True)),
        (ConfigPath, Shape(path=True)),
        (Literal["a", "b"], Shape(choices=("a", "b"))),
        (Literal["a", 1] | None, Shape(choices=("a",))),
        (Colour, Shape(choices=("red", "blue"))),
        (list[str], LISTED),
        (tuple[str, ...], LISTED),
        (Sequence[str], LISTED),
        (frozenset[str], LISTED),
        (list, Shape(scalar=False, item=ANYTHING)),
        (ALIAS, LISTED),
        (str | list[str], Shape(item=SCALAR)),
        (Annotated[list[str], BeforeValidator(lambda value: value)], Shape(item=SCALAR)),
        (Annotated[list[str], Field(min_length=1)], LISTED),
        (dict[str, int], Shape(scalar=False, value=SCALAR)),
        (Mapping[str, list[str]], Shape(scalar=False, value=LISTED)),
        (dict, Shape(scalar=False, value=ANYTHING)),
        (Inner, Shape(scalar=False, models=(Inner,))),
        (bool | Inner | None, Shape(models=(Inner,))),
        (list[Inner], Shape(scalar=False, item=Shape(scalar=False, models=(Inner,)))),
        (Any, ANYTHING),
        (object, ANYTHING),
    ],
)
def test_shapes(annotation: Any, shape: Shape) -> None:
    assert shape_of(annotation) == shape


def test_fields_of_a_model() -> None:
    assert field_shapes(Model) == {
        "plain": SCALAR,
        "path": Shape(path=True),
        "inner": Shape(models=(Inner,)),
        "items": Shape(item=SCALAR),  # its validator may take whatever it likes
    }
    assert field_shapes(Model) is field_shapes(Model)


def test_fields_of_several_models() -> None:
    class Other(BaseModel):
        x: list[int] = Field(default_factory=list)
        y: int = 0

    assert Shape(models=(Inner, Other)).fields() == {"x": SCALAR, "y": SCALAR}
    assert SCALAR.fields() == {}


def test_what_is_wanted() -> None:
    assert shape_of(str | list[str]).what == "a text or a list"
    assert shape_of(dict[str, int]).what == "a mapping"
    assert [SCALAR.container, LISTED.container, ANYTHING.container] == [False, True, True]


def test_a_real_backend() -> None:
    shapes = field_shapes(RedisBackend)
    assert shapes["url"].scalar
    assert not shapes["url"].container
    assert shapes["password"].secret
    assert shapes["cluster"] == LISTED
    assert shapes["tls"].scalar
    assert shapes["tls"].mapping
    assert "nodes" in shapes["sentinel"].fields()
    assert not shapes["sentinel"].scalar
