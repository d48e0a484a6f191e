"""What the fields of a model can hold, read from its annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import Enum
from typing import Annotated, Any, Literal, Optional, get_args

import pytest
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_core.core_schema import ErrorType
from typing_extensions import TypeAliasType

from storeconf.backends.server import RedisBackend
from storeconf.config.fields import ANY, MAPPING, Expect, expect_of, fields_of
from storeconf.config.settings import _BOUNDS
from storeconf.plugin import ConfigPath, Duration, Middleware, Secret, Size

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


def forms(expect: Expect | None) -> str:
    """What can stand there: a text, a list, a mapping, and the same of what is inside."""
    if expect is None:
        return "nothing"
    if expect == ANY:
        return "anything"
    found = ["text"] if expect.scalar else []
    found += [f"list of {forms(expect.item)}"] if expect.listing else []
    found += [f"mapping of {forms(expect.value)}"] if expect.mapping and not expect.models else []
    found += [model.__name__ for model in expect.models]
    return " or ".join(found)


@pytest.mark.parametrize(
    ("annotation", "wanted"),
    [
        (str, "text"),
        (int, "text"),
        (bool, "text"),
        (timedelta, "text"),
        (Duration, "text"),
        (Size, "text"),
        (Optional[int], "text"),  # noqa: UP045 - the old way must work too
        (int | None, "text"),
        (Duration | bool, "text"),
        (bytes, "text"),
        (Secret, "text"),
        (ConfigPath, "text"),
        (Literal["a", 1] | None, "text"),
        (Colour, "text"),
        (list[str], "list of text"),
        (tuple[str, ...], "list of text"),
        (Sequence[str], "list of text"),
        (frozenset[str], "list of text"),
        (list, "list of anything"),
        (ALIAS, "list of text"),
        (str | list[str], "text or list of text"),
        (Annotated[list[str], BeforeValidator(lambda value: value)], "text or list of text"),
        (Annotated[int, BeforeValidator(lambda value: value)], "text"),
        (Annotated[list[str], Field(min_length=1)], "list of text"),
        (dict[str, int], "mapping of text"),
        (Mapping[str, list[str]], "mapping of list of text"),
        (dict, "mapping of anything"),
        (list[int] | dict[str, bool | list[int]], "list of text or mapping of text or list of text"),
        (Inner, "Inner"),
        (bool | Inner | None, "text or Inner"),
        (list[Inner], "list of Inner"),
        (Any, "anything"),
        (object, "anything"),
    ],
)
def test_what_can_stand_somewhere(annotation: Any, wanted: str) -> None:
    assert forms(expect_of(annotation)) == wanted


@pytest.mark.parametrize(
    ("annotation", "classes"),
    [
        (str, {str}),
        (float, {int, float}),
        (int | None, {int}),
        (Literal["a", 1], {str, int}),
        (Colour, {str}),
        (ConfigPath, {str}),
        (Duration, {int, float, str}),
        (list[int] | dict[str, int], {list, dict}),
        (Inner | bool, {dict, bool}),
        (timedelta, None),
        (Any, None),
        (int | Any, None),
        (Annotated[int, BeforeValidator(lambda value: value)], None),
    ],
)
def test_what_plain_values_can_be_right(annotation: Any, classes: set[type] | None) -> None:
    assert expect_of(annotation).classes == classes


def test_fields_of_a_model() -> None:
    expects = fields_of(Model).expects
    assert {name: forms(expect) for name, expect in expects.items()} == {
        "plain": "text",
        "path": "text",
        "inner": "text or Inner",
        "items": "text or list of text",  # its validator may take whatever it likes
    }
    assert [name for name, expect in expects.items() if expect.path] == ["path"]
    assert fields_of(Model) is fields_of(Model)


def test_a_validator_of_all_fields_may_take_whatever_it_likes() -> None:
    class Free(BaseModel):
        items: list[str] = Field(default_factory=list)

        @field_validator("*", mode="before")
        @classmethod
        def _any(cls, value: Any) -> Any:
            return value

    assert forms(fields_of(Free).expects["items"]) == "text or list of text"
    assert fields_of(Free).expects["items"].classes is None


def test_fields_of_several_models() -> None:
    class Other(BaseModel):
        x: list[int] = Field(default_factory=list)
        y: int = 0

    assert {name: forms(expect) for name, expect in expect_of(Inner | Other).fields().items()} == {
        "x": "text",
        "y": "text",
    }
    assert expect_of(str).fields() == {}


def test_what_is_wanted() -> None:
    assert expect_of(str | list[str]).what == "a text or a list"
    assert expect_of(dict[str, int]).what == MAPPING.what == "a mapping"


def test_a_real_backend() -> None:
    expects = fields_of(RedisBackend).expects
    assert forms(expects["url"]) == "text"
    assert expects["password"].secret
    assert forms(expects["cluster"]) == "list of text"
    assert expects["tls"].scalar
    assert expects["tls"].mapping
    assert "nodes" in expects["sentinel"].fields()
    assert not expects["sentinel"].scalar


class TestWhatIsUsedOfPydantic:
    """What storeconf uses of Pydantic beyond its documentation; a release that changes it fails here first."""

    def test_the_decorators_of_a_model(self) -> None:
        class Decorated(BaseModel):
            a: int = 0

            @field_validator("a", mode="before")
            @classmethod
            def _before(cls, value: Any) -> Any:
                return value

            @model_validator(mode="after")
            def _after(self) -> Decorated:
                return self

        decorators = Decorated.__pydantic_decorators__
        (field,) = decorators.field_validators.values()
        assert (field.info.mode, field.info.fields) == ("before", ("a",))
        (model,) = decorators.model_validators.values()
        assert model.info.mode == "after"

    def test_the_names_and_contexts_of_errors(self) -> None:
        names = set(get_args(ErrorType))
        assert {"missing", "extra_forbidden", "int_parsing_size", "string_unicode", "value_error"} <= names
        assert set(_BOUNDS) <= names

        class Bounded(BaseModel):
            a: Annotated[int, Field(gt=1)]
            b: Annotated[str, Field(min_length=2)]
            c: Annotated[list[int], Field(max_length=1)]

        with pytest.raises(ValidationError) as caught:
            Bounded.model_validate({"a": 0, "b": "", "c": [1, 2]})
        found = {each["type"]: each["ctx"][str(_BOUNDS[each["type"]][1])] for each in caught.value.errors()}
        assert found == {"greater_than": 1, "string_too_short": 2, "too_long": 1}

    def test_the_tags_in_locations_of_unions(self) -> None:
        class United(BaseModel):
            a: int | Inner

        with pytest.raises(ValidationError) as caught:
            United.model_validate({"a": {"x": []}})
        assert [each["loc"] for each in caught.value.errors()] == [("a", "int"), ("a", "Inner", "x")]

    def test_a_field_of_the_base_that_is_a_class_variable_there(self) -> None:
        class Audit(Middleware):
            kind: Literal["audit"] = "audit"  # type: ignore[misc]  # as authors of plugins may write it

        assert Audit.kind == "audit"
        assert "kind" not in Audit.model_fields
        assert Audit.model_validate({}).model_dump() == {}
