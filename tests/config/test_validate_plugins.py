"""What is wrong with the fields of plugins, and where it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

from storeconf.catalog import Catalog
from storeconf.plugin import Backend, ConfigPath, Duration, Middleware, Secret, Settings, StoreName
from tests.config.problems import Case, _working_directory, case, check, marked, span, the_error

__all__ = ["_working_directory"]


class Nested(Settings):
    deeper: dict[str, list[int]] = Field(default_factory=dict)
    file: ConfigPath | None = None


class Plain(BaseModel):
    """A model of Pydantic's own, as authors have them lying about."""

    host: str = ""


class Lenient(BaseModel):
    """One whose author wants it to take anything."""

    model_config = ConfigDict(extra="ignore")
    host: str = ""


class Odd(Backend):
    """A plugin with everything that fields can be."""

    type: Literal["odd"] = "odd"
    renamed: int = Field(default=1, alias="from")
    several: int = Field(default=1, validation_alias=AliasChoices("one", "other"))
    nested: list[Nested] = Field(default_factory=list)
    plain: Plain | None = None
    plains: dict[str, Plain] = Field(default_factory=dict)
    lenient: Lenient | None = None
    either: int | str = 0
    lapse: Duration | bool = False
    token: Secret | None = None
    even: int = 0
    crash: str = ""
    custom: str = ""

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        assert value % 2 == 0, "even must be even"
        return value

    @field_validator("custom", mode="before")
    @classmethod
    def _any(cls, value: object) -> object:
        return str(value)

    @model_validator(mode="after")
    def _crash(self) -> Odd:
        if self.crash == "validating":
            raise KeyError("oops")
        return self

    def location(self) -> tuple[str, ...] | None:
        return () if self.crash != "locating" else (str(1 // 0),)


class Calls(Middleware):
    kind: ClassVar[str] = "calls"
    other: StoreName


PLUGINS = Catalog.builtin().with_backend("odd", Odd).with_middleware("calls", Calls)


@pytest.mark.parametrize(
    "example",
    [
        case("alias", "stores: {a: {type: odd, from: ⟦x⟧}}", "SC503", "from must be a whole number"),
        case("attribute's name", "stores: {a: {type: odd, ⟦renamed⟧: 1}}", "SC501", "has no field 'renamed'"),
        case(
            "list of models", "stores: {a: {type: odd, nested: [{}, {⟦deper⟧: {}}]}}", "SC501", "nested[1] has no field"
        ),
        case(
            "plain model",
            "stores: {a: {type: odd, plain: {⟦hots⟧: x}}}",
            "SC501",
            "plain has no field 'hots'",
            "'host'?",
        ),
        case("plain models", "stores: {a: {type: odd, plains: {x: {⟦hots⟧: y}}}}", "SC501", "x has no field 'hots'"),
        case(
            "deep",
            "stores: {a: {type: odd, nested: [{deeper: {x: [1, ⟦y⟧]}}]}}",
            "SC503",
            "x[1] must be a whole number",
        ),
        case("union", "stores: {a: {type: odd, either: ⟦[]⟧}}", "SC503", "a whole number or a text, not a list"),
        case("union with code", "stores: {a: {type: odd, lapse: ⟦soon⟧}}", "SC504", "'soon' is not a duration"),
        case("assertion", "stores: {a: {type: odd, even: ⟦1⟧}}", "SC504", "even must be even"),
        case(
            "crash", "stores: {⟦a⟧: {type: odd, crash: validating}}", "SC708", "could not read its settings: KeyError"
        ),
        case("crash later", "stores: {⟦a⟧: {type: odd, crash: locating}}", "SC708", "failed to give the location"),
        case("reference", "stores: {a: {type: odd, middleware: {calls: {other: ⟦b⟧}}}}", "SC601", "unknown store 'b'"),
    ],
)
def test_plugins_problems_are_located_as_well(example: Case) -> None:
    found = the_error(example.text, catalog=PLUGINS)
    assert (found.code, marked(found)) == (example.code, span(example.text)), str(found)
    assert example.message in found.message


def test_what_plugins_take_is_taken() -> None:
    text = (
        "stores: {a: {type: odd, from: 2, other: 3, nested: [{file: x}], lapse: true, custom: 5, either: x, "
        "plain: {host: h}, lenient: {host: h, more: x}}}"
    )
    layout = check(text, catalog=PLUGINS).layout
    assert layout is not None
    backend: Any = layout.stores["a"].backend  # type: ignore[union-attr]  # it is a root
    assert (backend.renamed, backend.several, backend.custom, backend.lapse) == (2, 3, "5", True)
    assert backend.nested[0].file == Path.cwd() / "x"
