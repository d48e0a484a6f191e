"""The types that fields of a plugin's settings may have, from files and from variables alike."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import Field, SecretStr

import storeconf

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Point:
    x: int
    y: int = 0
    day: datetime.date | None = None


class Small(storeconf.Settings):
    kind: Literal["small"] = "small"


class Large(storeconf.Settings):
    kind: Literal["large"] = "large"
    size: int


class Fielded(storeconf.Backend):
    type: Literal["fielded"] = "fielded"
    pair: tuple[int, str] = (0, "")
    pairs: dict[str, tuple[int, int]] = {}  # noqa: RUF012  # Pydantic copies it
    texts: tuple[str, ...] = ()
    secrets: dict[str, int] | dict[str, SecretStr] = {}  # noqa: RUF012  # Pydantic copies it
    hosts: list[int] | list[str] = []  # noqa: RUF012  # Pydantic copies it
    deep: dict[str, list[int]] | dict[str, dict[str, int]] = {}  # noqa: RUF012  # Pydantic copies it
    tagged: Annotated[Small | Large, Field(discriminator="kind")] | None = None
    point: Point | None = None
    points: list[Point] = []  # noqa: RUF012  # Pydantic copies it
    day: datetime.date | None = None
    moment: datetime.datetime | None = None
    clock: datetime.time | None = None

    def build(self, context: storeconf.BuildContext) -> storeconf.Store:
        return storeconf.MemoryStore()


def read(place: Path, how: str, field: str, text: str) -> Any:
    line = f"    {field}: {text}\n" if how == "file" else ""
    (place / "storeconf.yaml").write_text(f"stores:\n  a:\n    type: fielded\n{line}")
    environ = {} if how == "file" else {f"STORECONF__STORES__A__{field.upper()}": text}
    catalog = storeconf.Catalog.builtin().with_backend("fielded", Fielded)
    layout = storeconf.read_layout(place / "storeconf.yaml", environ=environ, catalog=catalog)
    return getattr(layout.stores["a"].backend, field)  # type: ignore[union-attr]  # it is a root


class Collected(storeconf.Backend):
    type: Literal["collected"] = "collected"
    counts: dict[str, int] = {}  # noqa: RUF012  # Pydantic copies it
    ports: list[int] = []  # noqa: RUF012  # Pydantic copies it
    paths: list[storeconf.ConfigPath] = []  # noqa: RUF012  # Pydantic copies it
    places: dict[str, storeconf.ConfigPath] = {}  # noqa: RUF012  # Pydantic copies it

    def build(self, context: storeconf.BuildContext) -> storeconf.Store:
        return storeconf.MemoryStore()


def test_items_of_collections_are_shown_as_what_they_were_read_as(tmp_path: Path) -> None:
    catalog = storeconf.Catalog.builtin().with_backend("collected", Collected)
    store = {"type": "collected", "counts": {"a": "${N}"}, "ports": [1, "${N}"], "paths": ["p"], "places": {"b": "q"}}
    (tmp_path / "storeconf.json").write_text(json.dumps({"stores": {"a": store}}))
    environ = {"N": "5", "STORECONF__STORES__A__COUNTS__C": "6", "STORECONF__STORES__A__PORTS__2": "7"}
    layout = storeconf.read_layout(tmp_path / "storeconf.json", environ=environ, catalog=catalog)
    shown = layout.dump()
    assert shown["stores"]["a"] == {
        "type": "collected",
        "counts": {"a": 5, "c": 6},
        "ports": [1, 5, 7],
        "paths": [str(tmp_path / "p")],
        "places": {"b": str(tmp_path / "q")},
    }
    again = storeconf.read_layout(shown, environ={}, catalog=catalog)
    assert again.plan() == layout.plan()


@pytest.mark.parametrize("how", ["file", "variable"])
@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("pair", "[2, b]", (2, "b")),
        ("pairs", "{a: [1, 2]}", {"a": (1, 2)}),
        ("texts", "[a, b, c]", ("a", "b", "c")),
        ("secrets", "{k: hunter2}", {"k": SecretStr("hunter2")}),
        ("secrets", "{k: 3}", {"k": 3}),
        ("hosts", "[a]", ["a"]),
        ("hosts", "[1, 2]", [1, 2]),
        ("deep", "{a: [1]}", {"a": [1]}),
        ("deep", "{a: {b: 1}}", {"a": {"b": 1}}),
        ("point", "{x: 1, y: 2}", Point(1, 2)),
        ("point", "{x: 1, day: 2026-01-02}", Point(1, 0, datetime.date(2026, 1, 2))),
        ("points", "[{x: 1}]", [Point(1)]),
        ("day", "2026-01-02", datetime.date(2026, 1, 2)),
        ("moment", "2026-01-02T03:04:05+00:00", datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)),
        ("clock", "'03:04'", datetime.time(3, 4)),
    ],
)
def test_right_values(tmp_path: Path, how: str, field: str, text: str, value: object) -> None:
    assert read(tmp_path, how, field, text if how == "file" else text.strip("'")) == value


def test_dates_in_toml_are_texts(tmp_path: Path) -> None:
    file = tmp_path / "storeconf.toml"
    file.write_text('[stores.a]\ntype = "fielded"\nday = "2026-01-02"\nclock = "03:04"\n')
    catalog = storeconf.Catalog.builtin().with_backend("fielded", Fielded)
    backend: Any = storeconf.read_layout(file, environ={}, catalog=catalog).stores["a"]
    backend = backend.backend
    assert (backend.day, backend.clock) == (datetime.date(2026, 1, 2), datetime.time(3, 4))


@pytest.mark.parametrize("how", ["file", "variable"])
@pytest.mark.parametrize(
    ("field", "text", "messages"),
    [
        ("pair", "[b, 2]", ["pair[0] must be a whole number, not the text", "pair[1] must be a text, not the whole"]),
        ("pair", "[1]", ["pair must be a list of a whole number and a text"]),
        ("pairs", "{a: [1, b]}", ["a[1] must be a whole number, not the text"]),
        ("secrets", "{k: [hunter2]}", ["k must be a whole number or a text, not a list"]),
        ("hosts", "[{a: 1}]", ["hosts[0] must be a whole number or a text, not a mapping"]),
        ("deep", "{a: x}", ["a must be a list or a mapping, not the text"]),
        ("point", "{x: a}", ["x must be a whole number, not the text"]),
        ("point", "{x: 1, z: 2}", ["z is not one of the fields there"]),
        ("point", "{y: 1}", ["point needs 'x'"]),
        ("point", "{x: 1, day: soon}", ["day must be a date such as 2026-01-31, not the text"]),
        ("points", "[{x: a}]", ["x must be a whole number, not the text"]),
        ("day", "soon", ["day must be a date such as 2026-01-31, not the text"]),
        ("day", "3", ["day must be a date such as 2026-01-31, not"]),
        ("moment", "soon", ["moment must be a date and time such as 2026-01-31T12:00:00Z, not the text"]),
        ("clock", "soon", ["clock must be a time such as 12:30, not the text"]),
    ],
)
def test_wrong_values_are_told_what_is_expected(
    tmp_path: Path, how: str, field: str, text: str, messages: list[str]
) -> None:
    with pytest.raises(storeconf.ConfigError) as caught:
        read(tmp_path, how, field, text)
    found = [each.message for each in caught.value.diagnostics]
    assert len(found) == len(messages)
    assert all(message.startswith(start) for message, start in zip(found, messages, strict=True)), found
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "value", ["{kind: small, size: 1}", "{kind: large}", "{kind: large, size: x}", "{kind: other}"]
)
def test_no_error_in_a_union_with_tags_is_lost(tmp_path: Path, value: str) -> None:
    with pytest.raises(storeconf.ConfigError) as caught:
        read(tmp_path, "file", "tagged", value)
    assert [each.path for each in caught.value.diagnostics] == ["stores.a.tagged"]
