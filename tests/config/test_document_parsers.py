"""What storeconf says of a broken file does not hang on its parsers' own limits and wording, which change with them."""

from __future__ import annotations

import json as standard_json
import tomllib
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from yaml.scanner import ScannerError

from storeconf.config.document import parse
from storeconf.config.readers import json_reader, toml_reader, yaml_reader
from storeconf.config.readers.toml_places import scan
from storeconf.errors import ConfigError


def codes(data: bytes, form: Any) -> list[tuple[str, int | None]]:
    with pytest.raises(ConfigError) as caught:
        parse(data, form, "a")
    return [(each.code, each.line) for each in caught.value.diagnostics]


class Shallow(yaml.SafeLoader):
    """A parser that refuses to look further ahead than 120 brackets, as PyYAML 6.0.4 does from 1,000 on."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803  # its name there
        if self.flow_level >= 120:
            raise ScannerError("in a part of the text", self.get_mark(), "that is enough", self.get_mark())
        super().fetch_flow_collection_start(TokenClass)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stores: " + "[" * 5_000 + "]" * 5_000, [("SC109", 1)]),
        ("a: 1\nb: " + "[" * 130, [("SC109", 2)]),
        ("a: 1\na: " + "{b: " * 130, [("SC108", 2), ("SC109", 2)]),
        ("{" * 130, [("SC114", 1), ("SC109", 1)]),
        ("a: [" + "[], " * 200 + "}", [("SC107", 1)]),
    ],
    ids=["closed", "open", "after-another", "keys", "not-deep"],
)
def test_our_limit_is_found_where_the_parser_reaches_one_of_its_own(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: list[tuple[str, int]]
) -> None:
    monkeypatch.setattr(yaml_reader, "_LOADER", Shallow)
    assert codes(text.encode(), "yaml") == expected


class Mumbling(yaml.SafeLoader):
    """A parser that finds the same errors as ever, and words them in a new way."""

    def get_event(self) -> Any:
        try:
            return super().get_event()  # type: ignore[no-untyped-call]
        except yaml.MarkedYAMLError as error:
            error.context, error.problem = "ahem", "that 's3cret' won't do"
            raise


def mumbling_toml(text: str, **_: Any) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = str(error)[str(error).rfind(" (at ") :]
        raise tomllib.TOMLDecodeError(f"that 's3cret' won't do{place}") from None


def mumbling_json(text: str, **options: Any) -> Any:
    try:
        return standard_json.loads(text, **options)
    except standard_json.JSONDecodeError as error:
        raise standard_json.JSONDecodeError("that 's3cret' won't do", text, error.pos) from None


BROKEN = [
    ("yaml", "a: [1, 2\nb: 3", "SC107", 2),
    ("yaml", "a: 1\n  b: 2", "SC107", 2),
    ("yaml", "a: 'x", "SC107", 1),
    ("yaml", "a: 1\nb: @x", "SC107", 2),
    ("yaml", "a: 1\nb: \x07", "SC106", 2),
    ("yaml", "a: 1\na: [", "SC108", 2),
    ("toml", "a = 1\nb = x", "SC107", 2),
    ("toml", "a = 1\nb = '''x", "SC107", 2),
    ("toml", "a = 1\na = 2", "SC108", 2),
    ("toml", "[a]\nb = 1\n[a]", "SC108", 3),
    ("toml", "a.b = 1\n[a]", "SC108", 2),
    ("toml", "a = {b = 1}\na.c = 2", "SC108", 2),
    ("toml", "a = {b = {}, b.c = 2}", "SC108", 1),
    ("toml", "a = [{}]\n[[a]]", "SC108", 2),
    ("toml", "a = [{}]\n[a.b]", "SC108", 2),
    ("toml", "[a.b]\n[a]\nb.c = 1", "SC108", 3),
    ("toml", "[x]\na.b = 1\n[x.a]", "SC108", 3),
    ("toml", "[x]\na.b = 1\na.c = 2\n[x]\n", "SC108", 4),
    ("toml", "[[x.a]]\n[x]\na.b = 1", "SC108", 3),
    ("toml", "a = 1\nb = '\x07'", "SC106", 2),
    ("json", '{"a": 1,}', "SC107", 1),
    ("json", '{"a": 1,\n"b": x}', "SC107", 2),
    ("json", '{"a": 1,\n"b": "\x07"}', "SC106", 2),
    ("json", '{"a": 1,\n"a": "\t"}', "SC106", 2),
]


@pytest.mark.parametrize("mumbles", [False, True], ids=["as-ever", "new-words"])
@pytest.mark.parametrize(("form", "text", "code", "line"), BROKEN)
def test_the_code_and_the_line_of_a_problem_hang_on_no_wording(
    monkeypatch: pytest.MonkeyPatch, form: Any, text: str, code: str, line: int, mumbles: bool
) -> None:
    if mumbles:
        monkeypatch.setattr(yaml_reader, "_LOADER", Mumbling)
        toml = SimpleNamespace(loads=mumbling_toml, TOMLDecodeError=tomllib.TOMLDecodeError)
        monkeypatch.setattr(toml_reader, "tomllib", toml)
        json = SimpleNamespace(loads=mumbling_json, JSONDecodeError=standard_json.JSONDecodeError)
        monkeypatch.setattr(json_reader, "json", json)
    with pytest.raises(ConfigError) as caught:
        parse(text.encode(), form, "a")
    first = caught.value.diagnostics[0]
    assert (first.code, first.line) == (code, line)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "[a]\nb.c = 1\nb.d = 2\n[a.e]\n[f.g]\n[f]\nh = 1",
        "[[a]]\nb.c = 1\n[a.d]\n[[a]]\nb.c = 1\n[a.d]\n[[a.e]]\n[[a.e]]",
        "a = {b = {c = 1}, d.e = 1, d.f = 2}\n[g]\na = [{b = 1}, {b = 2}]",
        "[[x.a]]\nb = 1\n[x.c]\n[x]\nd.e = 1",
    ],
)
def test_what_toml_allows_is_not_taken_for_a_second_definition(text: str) -> None:
    """The readers' own table of what is defined, which decides when tomllib has found something wrong."""
    assert tomllib.loads(text)
    assert scan(text).duplicates == []
