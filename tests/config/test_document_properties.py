"""Laws of reading: every place is right, the formats agree, and what is broken is shown where it is."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from storeconf._text import printable
from storeconf.config.document import Document, parse
from storeconf.config.language import Format
from storeconf.config.tree import dotted
from storeconf.errors import ConfigError
from tests.config.documents import render_json, render_toml, render_yaml, values
from tests.fuzz_readers import walk

if TYPE_CHECKING:
    from storeconf.diagnostics import Location

FORMATS: tuple[Format, ...] = get_args(Format)
SOURCES = st.integers(0, 2**32).map(random.Random)
RENDERERS = {"yaml": render_yaml, "toml": render_toml, "json": render_json}


def read(text: str, form: Format) -> Document:
    return parse(text.encode(), form, f"a.{form}")


def cut(document: Document, place: Location | None) -> str:
    """The text of a span."""
    assert place is not None
    assert place.end_line is not None
    assert place.end_column is not None
    lines = [line for _, line in document.lines(place.line, place.end_line)]
    lines[-1] = lines[-1][: place.end_column - 1]
    lines[0] = lines[0][place.column - 1 :]
    return "\n".join(lines)


def value_of(text: str, form: Format) -> Any:
    if form == "json":
        return json.loads(text)
    return read(f"v = {text}" if form == "toml" else f"v: {text}", form).value["v"]


def key_of(text: str, form: Format) -> str:
    if form == "json":
        return str(json.loads(text))
    (key,) = read(f"{text} = 0" if form == "toml" else f"{text}: 0", form).value
    return str(key)


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types: 1 is neither True nor 1.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@settings(max_examples=40)
@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data(), source=SOURCES)
def test_every_place_holds_its_value(form: Format, data: st.DataObject, source: random.Random) -> None:
    value = data.draw(values(nulls=form != "toml"))
    text = RENDERERS[form](value, source)
    document = read(text, form)
    assert same(document.value, value), text
    for path, each in walk(value):
        if path and isinstance(path[-1], str):
            assert key_of(cut(document, document.location(path, key=True)), form) == path[-1]
        place = document.location(path)
        shown = cut(document, place)
        collection = isinstance(each, (dict, list))
        bracket = shown[:1] in ("[", "{") and shown[-1:] in ("]", "}")
        if not collection or (bracket and path):
            assert same(value_of(shown, form), each), (path, shown)
        elif form == "yaml" and path:
            assert each
            first = document.location((*path, next(iter(each)) if isinstance(each, dict) else 0), key=True)
            assert first is not None
            assert place is not None
            assert first.line == place.line or isinstance(each, list)
        elif path:
            assert form == "toml"
            names = [step for step in path if isinstance(step, str)]
            assert key_of(shown, form) == names[-1]


@settings(max_examples=40)
@given(data=st.data(), source=SOURCES)
def test_twins_in_all_formats_have_one_value(data: st.DataObject, source: random.Random) -> None:
    value = data.draw(values(nulls=False))
    for form in FORMATS:
        assert same(read(RENDERERS[form](value, source), form).value, value)


@settings(max_examples=40)
@given(values(), SOURCES, st.sampled_from(["\n", "\r\n", "\r"]))
def test_line_ends_change_no_place(value: dict[str, Any], source: random.Random, end: str) -> None:
    text = render_yaml(value, source)
    plain, other = read(text, "yaml"), read(text.replace("\n", end), "yaml")
    assert same(other.value, value)
    for path, _ in walk(value):
        assert other.location(path) == plain.location(path)
        assert other.location(path, key=True) == plain.location(path, key=True)


LONG = "9" * 600
BREAKS: dict[Format, dict[str, str]] = {
    "yaml": {
        "!odd 1": "SC112",
        "*nowhere": "SC110",
        LONG: "SC116",
        '"\\q"': "SC107",
        "{[a]: 1}": "SC114",
        "@x": "SC107",
    },
    "toml": {
        "1979-05-27": "SC116",
        "07:32:00": "SC116",
        LONG: "SC116",
        "bare": "SC107",
        "14d": "SC107",
        "'\x07'": "SC106",
    },
    "json": {
        "NaN": "SC116",
        "-Infinity": "SC116",
        LONG: "SC116",
        "bare": "SC107",
        '"\\ud800"': "SC106",
        "'x'": "SC107",
    },
}
INSIDE = {"{[a]: 1}": 1, '"\\q"': 1, "'\x07'": 1}
"""How far behind the value's beginning the fault is."""


@settings(max_examples=15)
@pytest.mark.parametrize(("form", "broken"), [(form, broken) for form in FORMATS for broken in BREAKS[form]])
@given(data=st.data(), source=SOURCES)
def test_a_broken_value_is_shown_where_it_is(
    form: Format, broken: str, data: st.DataObject, source: random.Random
) -> None:
    value = data.draw(values(nulls=form != "toml"))
    path = data.draw(st.sampled_from([path for path, _ in walk(value) if path]))
    text = RENDERERS[form](value, source, {path: broken})
    assume(text.count(broken) == 1)
    with pytest.raises(ConfigError) as caught:
        read(text, form)
    (problem,) = caught.value.diagnostics
    before = text[: text.index(broken) + INSIDE.get(broken, 0)]
    assert problem.code == BREAKS[form][broken]
    assert problem.line == before.count("\n") + 1
    if broken != "14d":  # in a list, where only what follows the number is wrong
        assert problem.column == len(before) - before.rfind("\n")
    assert problem.path in (None, printable(dotted(path)))


@settings(max_examples=40)
@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data(), source=SOURCES)
def test_a_repeated_key_is_shown_with_the_first(form: Format, data: st.DataObject, source: random.Random) -> None:
    value = data.draw(values(nulls=form != "toml"))
    path = data.draw(st.sampled_from([path for path, each in walk(value) if isinstance(each, dict)]))
    inside: Any = value
    for step in path:
        inside = inside[step]
    inside_first = {"twice-said": 1, **inside}
    inside.clear()
    inside.update(inside_first)
    text = RENDERERS[form](value, source, twice=path)
    with pytest.raises(ConfigError) as caught:
        read(text, form)
    (problem,) = caught.value.diagnostics
    (note,) = problem.notes
    first, second = text.index("twice-said"), text.rindex("twice-said")
    for place, at in ((note, first), (problem, second)):
        at -= text[at - 1] in "\"'"
        before = text[:at]
        assert (place.line, place.column) == (before.count("\n") + 1, len(before) - before.rfind("\n"))
    assert problem.code == "SC108"
    assert problem.path is not None
    assert problem.path.endswith("twice-said")
