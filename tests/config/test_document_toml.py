"""TOML: places of every form of key, limits before tomllib, and the words and places of its problems."""

from __future__ import annotations

import time
import tomllib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storeconf.config.document import Document, parse
from storeconf.errors import ConfigError

if TYPE_CHECKING:
    from storeconf.diagnostics import Diagnostic


def read(text: str) -> Document:
    return parse(text.encode(), "toml", "a.toml")


def problems(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return caught.value.diagnostics


def problem(text: str) -> Diagnostic:
    (only,) = problems(text)
    return only


def at(text: str, *path: str | int, key: bool = False) -> tuple[int, int]:
    place = read(text).location(path, key=key)
    assert place is not None
    return place.line, place.column


EVERYTHING = '''\ufeff# é
title = "é 😀" # after
dotted . "a b" .c.'d' = 1
[table]
inline = { x = 1, y.z = [1, 2, {w = "]"}] }
[table.sub."a.b"]
long = """
one \\
  two # no comment
"""
raw = \'\'\'
x = 1
\'\'\'
[[rows]]
n = 1
[rows.deep]
m = 2
[[rows]]
list = [ # [
  1,
  [ 2, 3 ], # ]
]
[[rows.inner]]
k = true
'''


@pytest.mark.parametrize(
    ("path", "key", "place"),
    [
        (("title",), False, (2, 9)),
        (("title",), True, (2, 1)),
        (("dotted",), True, (3, 1)),
        (("dotted", "a b"), True, (3, 10)),
        (("dotted", "a b", "c"), True, (3, 17)),
        (("dotted", "a b", "c", "d"), True, (3, 19)),
        (("dotted", "a b", "c", "d"), False, (3, 25)),
        (("table",), True, (4, 2)),
        (("table", "inline"), False, (5, 10)),
        (("table", "inline", "x"), True, (5, 12)),
        (("table", "inline", "y"), True, (5, 19)),
        (("table", "inline", "y", "z"), False, (5, 25)),
        (("table", "inline", "y", "z", 2, "w"), False, (5, 37)),
        (("table", "sub"), True, (6, 8)),
        (("table", "sub", "a.b"), True, (6, 12)),
        (("table", "sub", "a.b", "long"), False, (7, 8)),
        (("table", "sub", "a.b", "raw"), False, (11, 7)),
        (("rows",), True, (14, 3)),
        (("rows", 0), False, (14, 3)),
        (("rows", 0, "n"), False, (15, 5)),
        (("rows", 0, "deep"), True, (16, 7)),
        (("rows", 0, "deep", "m"), True, (17, 1)),
        (("rows", 1), False, (18, 3)),
        (("rows", 1, "list", 0), False, (20, 3)),
        (("rows", 1, "list", 1, 1), False, (21, 8)),
        (("rows", 1, "inner", 0, "k"), False, (24, 5)),
        (("rows", 1, "missing"), False, (18, 3)),
        (("table", "missing", "x"), False, (4, 2)),
        (("missing",), False, (1, 1)),
    ],
)
def test_places(path: tuple[str | int, ...], key: bool, place: tuple[int, int]) -> None:
    for text in (EVERYTHING, EVERYTHING.replace("\n", "\r\n")):
        assert at(text, *path, key=key) == place


def test_spans_end_where_the_token_ends() -> None:
    document = read('a = "x y" # c\nb = [1,\n 2]\n"k e y" = {c = 1.5}\nd = 07\n'.replace("07", '"""\nx"""'))
    spans = {key: document.location((key,)) for key in document.value}
    assert {k: (p.line, p.column, p.end_line, p.end_column) for k, p in spans.items() if p} == {
        "a": (1, 5, 1, 10),
        "b": (2, 5, 3, 4),
        "k e y": (4, 11, 4, 20),
        "d": (5, 5, 6, 5),
    }
    name = document.location(("k e y",), key=True)
    assert name is not None
    assert (name.column, name.end_column) == (1, 8)


@pytest.mark.parametrize("text", ["", "\n", "# nothing", "\ufeff"])
def test_a_document_without_anything_is_an_empty_mapping(text: str) -> None:
    document = read(text)
    assert document.value == {}
    assert document.location(("a",)) is not None


@pytest.mark.parametrize(
    ("text", "place", "path", "first"),
    [
        ("a = 1\nb = 2\na = 3\n", (3, 1), "a", (1, 1)),
        ("[t]\na = 1\n[t]\nb = 1\n", (3, 2), "t", (1, 2)),
        ("a = 1\n[a]\n", (2, 2), "a", (1, 1)),
        ("a.b.c = 1\na.b = 2\n", (2, 3), "a.b", (1, 3)),
        ("a = 1\na.b = 2\n", (2, 1), "a", (1, 1)),
        ("[a]\nb = 1\n[[a]]\n", (3, 3), "a", (1, 2)),
        ("t = {x = 1, y = 2, x = 3}\n", (1, 20), "t.x", (1, 6)),
        ("[[r]]\na = 1\n[[r]]\na = 1\n'a' = 2\n", (5, 1), "r.1.a", (4, 1)),
    ],
)
def test_a_repeated_key_is_shown_with_the_first(
    text: str, place: tuple[int, int], path: str, first: tuple[int, int]
) -> None:
    found = problem(text)
    assert (found.code, found.path, (found.line, found.column)) == ("SC108", path, place)
    (note,) = found.notes
    assert (note.line, note.column) == first


def test_every_repeated_key_is_reported() -> None:
    found = problems("a = 1\na = 2\n[t]\nx = {y = 1, y = 2}\n[t]\nx = 3\n")
    assert [(each.code, each.path, each.line) for each in found] == [
        ("SC108", "a", 2),
        ("SC108", "t.x.y", 4),
        ("SC108", "t", 5),
        ("SC108", "t.x", 6),
    ]


@pytest.mark.parametrize(
    "text", ["a = {b = 1}\na.c = 2\n", "a = {b = 1}\n[a.c]\n", "a.b = 1\n[a]\n", "a = [1]\n[[a]]\n"]
)
def test_a_table_that_is_closed_takes_no_more(text: str) -> None:
    found = problem(text)
    assert (found.code, found.line) == ("SC108", 2)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("1979-05-27", "dates are"),
        ("1979-05-27T07:32:00Z", "dates are"),
        ("1979-05-27 07:32:00", "dates are"),
        ("07:32:00", "times are"),
        ("9" * 600, "more than 500 digits"),
        ("9" * 5000, "more than 500 digits"),
        ("0x" + "f" * 5000, "more than 500 digits"),
    ],
)
def test_values_that_no_layout_has(value: str, words: str) -> None:
    found = problem(f"[a]\nb = [1, {value}]\n")
    assert (found.code, found.line, found.column) == ("SC116", 2, 9)
    assert words in found.message
    assert found.path in ("a.b.1", None)


def test_several_values_that_no_layout_has() -> None:
    found = problems("a = 1979-05-27\nb = {c = 07:32:00}\n")
    assert [(each.path, each.line, each.column) for each in found] == [("a", 1, 5), ("b.c", 2, 10)]


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a = b\n", 1, 5, "not a valid TOML value (put the string in quotes)"),
        ("a = redis://h\n", 1, 5, "(put the string in quotes)"),
        ("a = True\n", 1, 5, "(write true)"),
        ("a = null\n", 1, 5, "TOML has no null; name the path in a list under 'unset'"),
        ("a =\nb = 1\n", 1, 4, "missing value"),
        ("a = [1,,2]\n", 1, 8, "missing value before ','"),
        ("a = 14d # x\n", 1, 5, "not a valid TOML value (put the string in quotes)"),
        ("a = 0750\n", 1, 5, "a number can't begin with 0"),
        ("a = [14d]\n", 1, 8, "expected ',' or ']' (put the string in quotes)"),
        ("a = 'x' 'y'\n", 1, 9, "unexpected text after the value"),
        ("a: 1\n", 1, 2, "missing '=' after the key (in TOML, write key = value)"),
        ("a\n", 1, 2, "missing '=' after the key"),
        ("- a\n", 1, 3, "in TOML, write lists as key = [1, 2]"),
        ("{a = 1}\n", 1, 1, "this line is neither 'key = value' nor '[table]'"),
        ("é = 1\n", 1, 1, "this line is neither"),
        ("a.b. = 1\n", 1, 6, "missing key"),
        ("a.é = 1\n", 1, 3, "put keys with characters other than A-Z, a-z, 0-9, _ and - in quotes"),
        ("[a\nb = 1\n", 1, 1, "missing ']' for this '['"),
        (" [[a]\n", 1, 2, "missing ']]' for this '['"),
        ("a = [1\n", 1, 5, "this '[' is never closed"),
        ("a = [\n1,\n\n[b]\nc = 1\n", 1, 5, "this '[' is never closed"),
        ("a = [\n1\n\n[b]\nc = 1\n", 4, 1, "expected ',' or ']'"),
        ("a = {b = 1\n", 1, 5, "this '{' is never closed"),
        ("a = {b = 1,\n c = 2}\n", 1, 12, "an inline table must end in the line in which it begins"),
        ('a = "x\nb = 1\n', 1, 5, 'this string is never closed (close it with " in the same line)'),
        ("a = 'x\nb = 1\n", 1, 5, "this string is never closed (close it with ' in the same line)"),
        ("a = 'x\nb = 'y'\n", 1, 5, "this string is never closed (close it with ' in the same line)"),
        ('b = 1\na = """x\ny = 1\n', 2, 5, 'this string is never closed (close it with """)'),
        ("a = '''x\n", 1, 5, "this string is never closed"),
        ('a = "C:\\Users"\n', 1, 8, "unknown escape sequence \\U (double the backslash or use single quotes)"),
        ('a = "x\\q"\n', 1, 7, "unknown escape sequence \\q"),
        ('a = "\\ud800"\n', 1, 6, "unknown escape sequence \\u"),
        ("a = 1\rb = 2\n", 1, 6, "a carriage return without a line feed"),
    ],
)
def test_syntax(text: str, line: int, column: int, words: str) -> None:
    found = problem(text)
    assert found.code == "SC107"
    shown = found.message + (f" ({found.hint})" if found.hint else "")
    assert words in shown
    assert (found.line, found.column) == (line, column)


@pytest.mark.parametrize("text", ["a = \x07", 'a = "é\x07"', "# \x07é", "a = '\x7f'"])
def test_control_characters(text: str) -> None:
    found = problem(text)
    assert (found.code, found.line) == ("SC106", 1)
    assert text[(found.column or 0) - 1] in "\x07\x7f"


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100 + "]" * 100,
        "a = " + "{b = " * 100 + "1" + "}" * 100,
        ".".join("a" * 101) + " = 1",
        "[" + ".".join("a" * 101) + "]",
        "x = {" + ".".join(["'a'"] * 101) + " = 1}",
    ],
)
def test_too_deep(text: str) -> None:
    found = problem(text)
    assert (found.code, found.line) == ("SC109", 1)


def test_exactly_the_allowed_depth() -> None:
    assert read("a = " + "[" * 99 + "]" * 99).value
    assert read(".".join("a" * 100) + " = 1").value
    assert problem("[" + ".".join("a" * 60) + "]\n" + ".".join("b" * 60) + " = 1").code == "SC109"


def test_dots_in_texts_are_no_parts_of_keys() -> None:
    dots = "a." * 300
    assert read(f'a = "{dots}"\nb = """\n{dots} = 1\n"""\n# {dots}= 1\n').value == {"a": dots, "b": f"{dots} = 1\n"}


@pytest.mark.parametrize(
    "text",
    [
        "[" + ".".join("h" * 90) + "]\n" + "".join(f"k{n}.{'.'.join('a' * 9)} = 1\n" for n in range(80_000)),
        "a = [" + "1," * 1_000_000 + "]",
        "".join(f"k{n} = 1\n" for n in range(300_000)),
    ],
    ids=["work", "items", "keys"],
)
def test_what_would_take_tomllib_long_is_refused_before(text: str) -> None:
    began = time.process_time()
    assert problem(text).code == "SC105"
    assert time.process_time() - began < 3


LINES = (
    "[a]", "[a.b]", "[a.b.c]", "[b]", "[[a]]", "[ a ]", '["a"]', "[]", "[a..b]", "[a] # c", "[a] b", "[a]]",
    "a = 1", "  a = 1", "\ta\t=\t1\t", "b = 1", "c = 1", "a.b = 1", "b.c = {d = 1}", "a = {b = 1}", '"a" = 1',
    "c = [1, 2]", "c = [", "1,", "]", "1.2 = 3",
    'd = """', 'x"""', "d = '''y'''", 'd = """x"""', "d = 'x'", "d = ''", "d = 'x' y", 'd = ""', 'd = "',
    'e = "é # x" # y', 'e = "\\n"', 'e = "\t"', 'e = "\x7f"', 'e = "\u2028"', 'e = "x" y',
    "f = +0", "f = -0", "f = -7", "f = 01", "f = 1_0", "f = 99999999999999999999", "f = 0x1F",
    "f = 1.50", "f = -0.0", "f = 1.", "f = .5", "f = 1e5", "f = inf", "f = nan",
    "g = true", "g = false", "g = True", "g = truer", "g =", "= 1", "g", "", " ", "# c", "# \x01",
    "\x0b", "\xa0", "\ufeff",
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from(("\n", "\n", "\n", "\r\n", "\r", ""))), max_size=6))
def test_the_values_are_those_of_tomllib(lines: list[tuple[str, str]]) -> None:
    text = "".join(line + end for line, end in lines)
    try:
        wanted = tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError:
        assert problems(text)
    else:
        assert repr(read(text).value) == repr(wanted)


def test_many_lines_in_one_table_take_time_in_proportion() -> None:
    text = "".join(f"k{n} = [1]\n" for n in range(40_000))
    began = time.process_time()
    assert len(read(text).value) == 40_000
    assert time.process_time() - began < 5
