"""JSON: places, repeated keys, endless numbers, and the words and places of its problems."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from storeconf.config.document import Document, parse
from storeconf.errors import ConfigError

if TYPE_CHECKING:
    from storeconf.diagnostics import Diagnostic


def read(text: str) -> Document:
    return parse(text.encode(), "json", "a.json")


def problems(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return caught.value.diagnostics


def problem(text: str) -> Diagnostic:
    (only,) = problems(text)
    return only


@pytest.mark.parametrize("text", ["", " \n", "null", "\ufeff{}"])
def test_a_document_without_anything_is_an_empty_mapping(text: str) -> None:
    document = read(text)
    assert document.value == {}
    assert document.location(("a",)) is not None


def test_places() -> None:
    document = read('{"é 😀": [1,\n  {"a\\"]": "x\\n"}, []],\n "b": -1.5e3}')
    places = {
        path: document.location(path, key=key)
        for path, key in (
            ((), False),
            (("é 😀",), True),
            (("é 😀", 1), False),
            (("é 😀", 1, 'a"]'), True),
            (("é 😀", 1, 'a"]', "nothing"), False),
            (("é 😀", 2), False),
            (("b",), False),
        )
    }
    assert {k: (p.line, p.column, p.end_line, p.end_column) for k, p in places.items() if p} == {
        (): (1, 1, 3, 14),
        ("é 😀",): (1, 2, 1, 7),
        ("é 😀", 1): (2, 3, 2, 18),
        ("é 😀", 1, 'a"]'): (2, 4, 2, 10),
        ("é 😀", 1, 'a"]', "nothing"): (2, 4, 2, 10),
        ("é 😀", 2): (2, 20, 2, 22),
        ("b",): (3, 7, 3, 13),
    }


def test_surrogate_pairs_are_characters_and_halves_are_not() -> None:
    assert read('{"a": "\\ud83d\\ude00"}').value == {"a": "😀"}
    found = problems('{"a": ["\\ud83d"], "\\ude00": 1}')
    assert [(each.code, each.line, each.column) for each in found] == [("SC106", 1, 19), ("SC106", 1, 8)]


def test_every_repeated_key_and_endless_number_is_reported() -> None:
    found = problems('{"a": 1, "b": {"c": NaN, "\\u0063": 2},\n "a": [-Infinity, Infinity], "a": 3}')
    assert [(each.code, each.path, each.line, each.column) for each in found] == [
        ("SC116", "b.c", 1, 21),
        ("SC108", "b.c", 1, 26),
        ("SC108", "a", 2, 2),
        ("SC116", "a.0", 2, 8),
        ("SC116", "a.1", 2, 19),
        ("SC108", "a", 2, 30),
    ]
    assert [(note.line, note.column) for each in found for note in each.notes] == [(1, 16), (1, 2), (1, 2)]


@pytest.mark.parametrize("digits", [501, 600, 5000])
def test_numbers_that_are_too_long(digits: int) -> None:
    found = problem('{"a": ' + "9" * digits + "}")
    assert (found.code, found.line, found.column) == ("SC116", 1, 7)


def test_exactly_the_allowed_depth() -> None:
    assert read('{"a": ' + "[" * 99 + "]" * 99 + "}").value
    for depth in (100, 5_000, 20_000):
        found = problem('{"a": ' + "[" * depth + "]" * depth + "}")
        assert (found.code, found.line, found.column) == ("SC109", 1, 106)


@pytest.mark.parametrize("text", ["[]", '"a"', "1", "true"])
def test_the_outermost_value_must_be_a_mapping(text: str) -> None:
    found = problem("\n " + text)
    assert (found.code, found.line, found.column) == ("SC117", 2, 2)


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ('{"a": 1,}', 1, 8, "a comma before '}' (remove it)"),
        ('{"a": [1, 2,\n]}', 1, 12, "a comma before ']' (remove it)"),
        ('{"a": 1\n "b": 2}', 1, 7, "missing ',' after this"),
        ('{"a" 1}', 1, 6, "missing ':' after the key"),
        ('{"a": }', 1, 7, "missing value before '}'"),
        ('{"a": 1,,}', 1, 9, "missing key in double quotes"),
        ("{a: 1}", 1, 2, "missing key in double quotes"),
        ("{'a': 1}", 1, 2, "JSON requires double quotes around strings"),
        ("{\"a\": 'b'}", 1, 7, "JSON requires double quotes around strings"),
        ('{"a": b}', 1, 7, "not a valid JSON value (put the string in double quotes)"),
        ('{"a": 14d}', 1, 7, "not a valid JSON value (put the string in double quotes)"),
        ('{"a": 0750}', 1, 7, "not a valid JSON value"),
        ('{"a": True}', 1, 7, "(write true)"),
        ('{"a": None}', 1, 7, "(write null)"),
        ('{"a": 1 // c\n}', 1, 9, "JSON has no comments"),
        ("# c\n{}", 1, 1, "JSON has no comments"),
        ('{"a": 1', 1, 1, "this '{' is never closed"),
        ('{"a": [1', 1, 7, "this '[' is never closed"),
        ('{"a": 1}}', 1, 9, "unexpected text after the outermost value"),
        ('{"a": "b}', 1, 7, "this string is never closed"),
        ('{"a": "b\n"}', 1, 9, "a string must end in the line in which it begins"),
        ('{"a": "b\\q"}', 1, 9, "unknown escape sequence \\q (double the backslash)"),
    ],
)
def test_syntax(text: str, line: int, column: int, words: str) -> None:
    found = problem(text)
    assert found.code == "SC107"
    shown = found.message + (f" ({found.hint})" if found.hint else "")
    assert words in shown
    assert (found.line, found.column) == (line, column)


def test_control_characters() -> None:
    found = problem('{"a": "é\x07"}')
    assert (found.code, found.line, found.column) == ("SC106", 1, 9)
