"""YAML: core scalars, merge keys, limits, and the words and places of its problems."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from storeconf.config.document import Document, parse
from storeconf.config.readers import yaml_reader
from storeconf.errors import ConfigError

if TYPE_CHECKING:
    from storeconf.diagnostics import Diagnostic


def read(text: str) -> Document:
    return parse(text.encode(), "yaml", "a.yaml")


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


@pytest.fixture(params=["libyaml", "pure"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything here holds without libyaml as well."""
    if request.param == "pure":
        monkeypatch.setattr(yaml_reader, "_LOADER", yaml.SafeLoader)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("12:30", "12:30"),
        ("12:30:45", "12:30:45"),
        ("017", "017"),
        ("0750", "0750"),
        ("-017", "-017"),
        ("00", "00"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("2020-01-01", "2020-01-01"),
        ("=", "="),
        ("<<", "<<"),
        ("-a", "-a"),
        (".", "."),
        ("+", "+"),
        ("1e", "1e"),
        ("1.2.3", "1.2.3"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("nUll", "nUll"),
        ("${A:-b}", "${A:-b}"),
        ("a # b", "a"),
        ("a#b", "a#b"),
        ("", None),
        ("~", None),
        ("null", None),
        ("NULL", None),
        ("true", True),
        ("False", False),
        ("TRUE", True),
        ("0", 0),
        ("-0", 0),
        ("+12", 12),
        ("-12", -12),
        ("0o17", 15),
        ("0x1F", 31),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("1e3", 1000.0),
        ("0.1E-2", 0.001),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("'1'", "1"),
        ('"true"', "true"),
        ('"\\u00e9\\x41"', "éA"),
        ("|\n  a\n  b\n", "a\nb\n"),
        (">-\n  a\n  b\n", "a b"),
        ("a\n  b", "a b"),
        ("[1, [], {}]", [1, [], {}]),
        ("{a, b: }", {"a": None, "b": None}),
    ],
)
def test_scalars_follow_the_core_rules(text: str, value: Any) -> None:
    found = read(f"v: {text}").value["v"]
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(read("v: .NaN").value["v"])


def test_keys_stay_the_text_that_they_are() -> None:
    text = "1: a\ntrue: b\n~: c\n0x1F: d\n'': e\n? k\n: f\n1.0: g\n"
    assert read(text).value == {"1": "a", "true": "b", "~": "c", "0x1F": "d", "": "e", "k": "f", "1.0": "g"}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "---\n...\n", "~", "null\n", "\ufeff"])
def test_a_document_without_anything_is_an_empty_mapping(text: str) -> None:
    document = read(text)
    assert document.value == {}
    assert document.location(()) is not None


def test_places_count_characters_not_bytes() -> None:
    text = "\ufeffé: 😀😀\nb: {'ü': \"ß\", c: [x, y]}\n"
    assert at(text, "é") == (1, 4)
    assert at(text, "b", "ü") == (2, 10)
    assert at(text, "b", "ü", key=True) == (2, 5)
    assert at(text, "b", "c", 1) == (2, 22)


def test_line_separators_that_only_yaml_1_1_knows_begin_no_line() -> None:
    assert at('a: "x\u2028y"\nb: 1', "b") == (2, 4)


def test_spans_end_where_the_token_ends() -> None:
    document = read("a: 'x y'   # c\nb: &n [1, 2]\nc: |\n  d\n  e\n\nf: *n\n")
    spans = {key: document.location((key,)) for key in document.value}
    assert {k: (p.line, p.column, p.end_line, p.end_column) for k, p in spans.items() if p} == {
        "a": (1, 4, 1, 9),
        "b": (2, 4, 2, 13),
        "c": (3, 4, 5, 4),
        "f": (7, 4, 7, 6),
    }


def test_what_is_not_there_is_placed_at_the_nearest_key() -> None:
    text = "stores:\n  main: {type: redis}\n"
    assert at(text, "stores", "main", "url") == (2, 3)
    assert at(text, "stores", "other", "url", 0) == (1, 1)
    assert at(text, "nothing") == (1, 1)


def test_aliases_give_the_value_and_places_at_the_anchor() -> None:
    text = "a: &x {n: 1}\nb: *x\nc: &s hello\nd: *s\n*s : key\n"
    document = read(text)
    assert document.value == {"a": {"n": 1}, "b": {"n": 1}, "c": "hello", "d": "hello", "hello": "key"}
    assert at(text, "b") == (2, 4)
    assert at(text, "b", "n") == (1, 11)
    assert at(text, "hello", key=True) == (5, 1)


def test_an_anchored_key_is_a_value_like_any_other() -> None:
    assert read("&a 1: x\nb: *a\n&c '1.5': y\nd: *c\n").value == {"1": "x", "b": 1, "1.5": "y", "d": "1.5"}


def test_an_anchor_may_be_said_again() -> None:
    assert read("a: &x 1\nb: *x\nc: &x 2\nd: *x\n").value == {"a": 1, "b": 1, "c": 2, "d": 2}


def test_a_merge_key_adds_what_is_not_said() -> None:
    text = "base: &b {x: 1, y: 2}\nmore: &m {y: 3, z: 4}\none:\n  y: 9\n  <<: *b\ntwo:\n  <<: [*m, *b, {w: 5}]\n"
    document = read(text)
    assert document.value["one"] == {"y": 9, "x": 1}
    assert document.value["two"] == {"y": 3, "z": 4, "x": 1, "w": 5}
    assert at(text, "one", "x") == (1, 14)
    assert at(text, "one", "x", key=True) == (1, 11)
    assert at(text, "one", "y") == (4, 6)
    assert at(text, "two", "w") == (7, 20)


def test_a_merged_mapping_may_have_merged_itself() -> None:
    text = "a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b, z: 3}\n"
    assert read(text).value["c"] == {"z": 3, "y": 2, "x": 1}
    assert at(text, "c", "x") == (1, 11)


def test_a_quoted_merge_key_is_an_ordinary_one() -> None:
    assert read("a: &a {x: 1}\nb: {'<<': *a}\n").value["b"] == {"<<": {"x": 1}}


@pytest.mark.parametrize(("value", "column"), [("1", 7), ("[1]", 7), ("[{a: 1}, b]", 16), ("~", 7), ("text", 7)])
def test_a_merge_key_of_something_else(value: str, column: int) -> None:
    found = problem(f"a:\n  <<: {value}\n")
    assert (found.code, found.line, found.column, found.path) == ("SC115", 2, column, "a.<<")


def test_two_merge_keys_are_one_too_many() -> None:
    found = problem("a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a\n")
    assert (found.code, found.line, found.column) == ("SC108", 4, 3)
    assert found.hint == "put several mappings in one list: <<: [*a, *b]"


def test_every_repeated_key_is_reported_with_the_first() -> None:
    found = problems("a: 1\nb:\n  - {c: 1, 'c': 2, c: 3}\na: 2\nd: &d {x: 1}\nd: *d\n")
    assert [(each.code, each.path, each.line, each.column) for each in found] == [
        ("SC108", "b.0.c", 3, 12),
        ("SC108", "b.0.c", 3, 20),
        ("SC108", "a", 4, 1),
        ("SC108", "d", 6, 1),
    ]
    assert [(note.line, note.column) for each in found for note in each.notes] == [(3, 6), (3, 6), (1, 1), (5, 1)]
    assert found[0].message == "duplicate key 'c'"
    assert (found[0].end_line, found[0].end_column) == (3, 15)


def test_different_problems_are_found_in_one_run() -> None:
    found = problems("a: !t 1\nb: *nope\na: 2\nc: {[x]: 1}\nd: " + "1" * 600 + "\n---\nsecond\n")
    assert [each.code for each in found] == ["SC112", "SC110", "SC108", "SC114", "SC116", "SC113"]
    assert [each.line for each in found] == [1, 2, 3, 4, 5, 6]
    assert [each.path for each in found] == ["a", "b", "a", "c", "d", None]


def test_no_more_problems_than_anyone_reads() -> None:
    found = problems("a: 1\n" * 500)
    assert len(found) == 101
    assert found[-1].code == "SC119"


def test_an_alias_that_was_meant() -> None:
    found = problem("x: &defaults 1\na: *default\n")
    assert (found.code, found.hint) == ("SC110", "did you mean *defaults?")


def test_an_alias_in_its_own_anchor() -> None:
    found = problem("a: &a\n  b: [*a]\n")
    assert (found.code, found.line, found.column) == ("SC110", 2, 7)
    assert "inside its own anchor" in found.message


@pytest.mark.parametrize("tag", ["!!str", "!odd", "!!python/object:os.system", "!<tag:yaml.org,2002:int>", "!"])
def test_tags_are_refused(tag: str) -> None:
    found = problem(f"a:\n  - b\n  - {tag} x\n")
    assert (found.code, found.line, found.column, found.path) == ("SC112", 3, 5, "a.1")


def test_a_key_that_is_a_template() -> None:
    found = problem("a: {{ name }}\n")
    assert (found.code, found.line, found.column) == ("SC114", 1, 5)
    assert found.hint == "put braces that belong to a string or a template in quotes"


def test_exactly_the_allowed_depth() -> None:
    def nested(depth: int) -> str:
        return "a: " + "[" * (depth - 1) + "]" * (depth - 1)

    assert read(nested(100)).value
    found = problem(nested(101))
    assert (found.code, found.line, found.column) == ("SC109", 1, 103)


def test_aliases_cannot_nest_deeper_either() -> None:
    lines = ["a0: &a0 []"] + [f"a{n}: &a{n} [[[[[[[[[[*a{n - 1}]]]]]]]]]]" for n in range(1, 12)]
    found = problem("\n".join(lines))
    assert (found.code, found.line) == ("SC109", 11)


def test_aliases_for_too_many_values() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    found = problem("\n".join(lines))
    assert (found.code, found.path) == ("SC111", "d.7")


def test_a_thousand_stores_may_merge_the_same_defaults() -> None:
    stores = "".join(f"  s{n}: {{<<: *d, path: p{n}}}\n" for n in range(1_000))
    document = read("x-d: &d {type: file, mode: '0700', durability: fsync}\nstores:\n" + stores)
    assert document.value["stores"]["s999"] == {
        "path": "p999", "type": "file", "mode": "0700", "durability": "fsync",
    }  # fmt: skip


def test_control_characters() -> None:
    found = problem("a: 1\nb: é\x07\n")
    assert (found.code, found.line, found.column) == ("SC106", 2, 5)
    assert "U+0007" in found.message


def test_escapes_that_make_no_character() -> None:
    assert problem('a: "\\ud800"').line == 1
    assert problem('a: "\\UFFFFFFFF"').line == 1


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a:\n\tb: 1\n", 2, 1, "YAML can't be indented with tabs (use spaces)"),
        ("a: 1\n \tb: 2\n", 2, 2, "YAML can't be indented with tabs"),
        ("a:\n  b: c\n\td: {e: f}\n", 3, 1, "YAML can't be indented with tabs (use spaces)"),
        ("a: b: c\n", 1, 5, "a second ': ' in one line (put the value in quotes"),
        ("a: 1\n  b: 2\n", 2, 4, "unexpected key: the line above already has a value"),
        ("a:1\nb: 2\n", 1, 2, "missing space after this colon"),
        ("a:\n  b:x\n  c: 1\n", 2, 4, "missing space after this colon"),
        ("stores\nother: 1\n", 1, 1, "missing ':' in this line (write 'key: value')"),
        ("a: 1\nb\n", 2, 1, "this line is neither 'key: value' nor '- item'"),
        ("a: 'b\nc: d\n", 1, 4, "this string is never closed (close it with ')"),
        ('a:\n  b: "c\n', 2, 6, "this string is never closed"),
        ("a: 'it's'\n", 1, 8, "unexpected text after the value (put the whole value in one pair of quotes"),
        ('a: "b" c\n', 1, 8, "unexpected text after the value"),
        ('a: "C:\\Users"\n', 1, 7, "missing character number after \\U"),
        ('a: "C:\\q"\n', 1, 7, "unknown escape sequence \\q (double the backslash or use single quotes)"),
        ("a: [1, 2\n", 1, 4, "this '[' is never closed"),
        ("a: {b: 1\n", 1, 4, "this '{' is never closed"),
        ("a: {b: 1\nc: 2\n", 2, 2, "expected ',' or '}' (is the '}' of the lines above missing?)"),
        ("a: [x, ${A}]\n", 1, 9, "expected ',' or ']' (put ${...} in quotes between brackets"),
        ("a: ]\n", 1, 4, "missing value before ']' (put the string in quotes)"),
        ("a: @b\n", 1, 4, "a string without quotes can't begin with '@' (put the string in quotes)"),
        ("a: `b`\n", 1, 4, "a string without quotes can't begin with '`'"),
        ("a: %b\n", 1, 4, "a string without quotes can't begin with '%'"),
        ("a: *\n", 1, 4, "missing name after '*' (put the string in quotes)"),
        ("a: - b\n", 1, 4, "unexpected list item in this line"),
        ("a: 1\n- b\n", 2, 1, "unexpected list item among the keys of a mapping"),
        ("- a\nb: 1\n", 2, 1, "expected '- ' in the column of the list"),
        ("a:\n    b: 1\n  c: 2\n", 3, 3, "the indentation of this line matches no line above"),
        (" a: 1\nb: 2\n", 2, 1, "this line is indented less than the first"),
        ("{a: 1}}\n", 1, 7, "unexpected text after the outermost value"),
        ("a: >b\n", 1, 5, "unexpected text after '|' or '>' in its line"),
        ("%YAML 2.0\n---\na: 1\n", 1, 1, "unsupported YAML version (remove the %YAML line)"),
    ],
)
def test_syntax(text: str, line: int, column: int, words: str) -> None:
    found = problem(text)
    assert found.code == "SC107"
    shown = found.message + (f" ({found.hint})" if found.hint else "")
    assert words in shown
    assert (found.line, found.column) == (line, column)


def test_a_bracket_that_is_not_closed_shows_where_it_was_opened() -> None:
    (note,) = problem("a: [1\nb: 2\n").notes
    assert (note.line, note.column) == (1, 4)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("a: {password: 'x', db: -1}", "a: {password: ***, db: -1}"),
        ('a: {keys: [\'k1\', "k2"], b: {token: "t"}, c: 1}', "a: {keys: ****** *****, b: {token: ***}, c: 1}"),
        ("a: {password: '${file:/x}', db: 1}", "a: {password: '${file:/x}', db: 1}"),
        ("a: {keys: ['${A}', \"${B}\"], db: 1}", "a: {keys: *'${A}'* \"${B}\"*, db: 1}"),
        ("a: {password: '${file:/x:-y}', db: 1}", "a: {password: ***************, db: 1}"),
        ("a: {password: '${env:X:-y}', db: 1}", "a: {password: *************, db: 1}"),
        ("a: {password: '${X:?say:it}', db: 1}", "a: {password: '${X:?say:it}', db: 1}"),
        ("a: {password: 'x${A}', db: 1}", "a: {password: **${A}*, db: 1}"),
        ("a: {password: x, db: 1}", "a: {password: ** *** **"),
        ("a: {password: 'x'y, db: 1}", "a: {password: ***** *** **"),
        ("a: {password: 'x',y', db: 1}", "a: {password: ******* *** **"),
        ("a: {password: 'it''s', db: 1}", "a: {password: ******** *** **"),
        ('a: {password: "x\\"y", db: 1}', "a: {password: ******* *** **"),
        ("a: {keys: ['k1', k2], c: 1}", "a: {keys: ****** **** ** **"),
        ("a: {encrypt: 'x', password: 'y', db: 1}", "a: {encrypt: ***, password: ***, db: 1}"),
        ("a: {encrypt: {keys: 'x'}, db: 1}", "a: {encrypt: {keys: ***}, db: 1}"),
        ("encrypt: x", "encrypt: *"),
        ("encrypt: false-ish name", "encrypt: ********* ****"),
        ("password: 'x', {y: 1}", "password: **** *** **"),
    ],
)
def test_of_a_mapping_in_one_line_only_the_secrets_are_hidden(line: str, shown: str) -> None:
    document = parse(f"x: 1\n# {line}\n".encode(), "yaml", "a.yaml")
    assert document.excerpt(2) == ((2, f"# {shown}"),)


def test_excerpts_show_no_secrets() -> None:
    text = (
        "a:\n  url: redis://user:hunter2@host/0?token=hunter2\n  password: hunter2 x\n  keys:\n    - hunter2\n"
        "  api_key: 'hunter2\n"
    )
    document = read(text + "'")
    shown = document.excerpt(2, 3, 5, 6)
    assert [number for number, _ in shown] == [2, 3, 5, 6]
    assert all("hunter2" not in line for _, line in shown)
    assert [len(line) for _, line in shown] == [len(line) for n, line in document.lines(1, 9) if n in (2, 3, 5, 6)]
    assert "redis://user:" in shown[0][1]
    assert all("hunter2" not in line for _, line in problem(text).excerpt)


@pytest.mark.parametrize(
    "value", ["u:hunter2@h:1", "'u:hunter2@h'", "[u:hunter2@h, 'v:hunter2@i']", "{a: u:hunter2@h}"]
)
def test_excerpts_show_no_credentials_of_urls_without_a_scheme(value: str) -> None:
    ((_, line),) = parse(f"url: {value}\n".encode(), "yaml", "x.yaml").excerpt(1)
    assert "hunter2" not in line
    assert "u:*******@h" in line


def test_excerpts_hold_no_characters_that_steer_a_terminal() -> None:
    (found,) = problems("a: é\x1b[31m\x9f\tb\n")
    assert found.excerpt == ((1, "a: é\ufffd[31m\ufffd b"),)
