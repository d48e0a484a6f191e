"""How diagnostics look: as text, JSON, GitHub annotations and SARIF."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from textwrap import dedent

import pytest

from storeconf.diagnostics import Diagnostic, Note
from storeconf.diagnostics.codes import CODES
from storeconf.diagnostics.render import FORMATS, render, summary
from storeconf.errors import ConfigError
from tests import sarif

UNKNOWN = Diagnostic(
    "SC501",
    "type 'redis' has no field 'urll'",
    path="stores.main.urll",
    file="conf/storeconf.yaml",
    line=12,
    column=5,
    end_line=12,
    end_column=9,
    layer="overlay",
    hint="did you mean 'url'?",
    environments=("production", "staging"),
    excerpt=((12, "    urll: redis://x"),),
)
VARIABLE = Diagnostic(
    "SC503",
    'db must be a whole number, not the text "x"',
    "warning",
    path="stores.main.db",
    variable="STORECONF__STORES__MAIN__DB",
    layer="variable",
)
CIRCLE = Diagnostic(
    "SC602",
    "stores lead in a circle: a -> b -> a",
    path="stores.a.parent",
    file="storeconf.yaml",
    line=3,
    column=15,
    end_line=3,
    end_column=16,
    layer="file",
    notes=(Note("'a' has parent 'b'", "storeconf.yaml", 3, 15), Note("'b' has parent 'a'", "storeconf.yaml", 4, 15)),
    excerpt=((3, "  a: {parent: b}"), (4, "  b: {parent: a}")),
)
NOWHERE = Diagnostic("SC101", "there is no file", file="missing.yaml")


def text(*diagnostics: Diagnostic, color: bool = False) -> str:
    return render(diagnostics, color=color)


def test_text_shows_the_line_and_points_at_the_token() -> None:
    assert text(UNKNOWN) == dedent("""\
        production, staging: error[SC501]: type 'redis' has no field 'urll'
          --> conf/storeconf.yaml:12:5
           |
        12 |     urll: redis://x
           |     ^^^^
           = path: stores.main.urll, set by the overlay
           = hint: did you mean 'url'?""")


def test_text_of_a_variable() -> None:
    assert text(VARIABLE) == dedent("""\
        warning[SC503]: db must be a whole number, not the text "x"
         --> variable STORECONF__STORES__MAIN__DB
          = path: stores.main.db, set by the variable""")


def test_text_shows_every_further_place() -> None:
    assert text(CIRCLE) == dedent("""\
        error[SC602]: stores lead in a circle: a -> b -> a
         --> storeconf.yaml:3:15
          |
        3 |   a: {parent: b}
          |               ^
          = path: stores.a.parent, set by the file
          = note: 'a' has parent 'b'
         --> storeconf.yaml:3:15
          = note: 'b' has parent 'a'
         --> storeconf.yaml:4:15
        4 |   b: {parent: a}""")


def test_text_without_a_place() -> None:
    assert text(NOWHERE) == "error[SC101]: there is no file\n --> missing.yaml"
    assert text(replace(NOWHERE, file=None)) == "error[SC101]: there is no file"


def test_carets_stand_below_what_they_mean_however_wide_it_is() -> None:
    wide = replace(UNKNOWN, column=7, end_column=9, line=1, end_line=1, excerpt=((1, "a: 名前é: xy"),))
    line, caret = text(wide).splitlines()[3:5]
    shown = line.partition("| ")[2]
    assert shown == "a: 名前é: xy"
    assert caret.partition("| ")[2] == " " * 8 + "^^"


def test_a_value_of_several_lines_is_marked_to_the_end_of_its_first() -> None:
    lines = text(replace(UNKNOWN, end_line=14, end_column=3)).splitlines()
    assert lines[4].endswith("|     " + "^" * len("urll: redis://x"))


def test_colour_only_when_asked_for() -> None:
    plain, colored = text(UNKNOWN, CIRCLE, VARIABLE), text(UNKNOWN, CIRCLE, VARIABLE, color=True)
    assert "\x1b" not in plain
    assert "\x1b[1;31merror[SC501]\x1b[0m" in colored
    assert "\x1b[1;33mwarning[SC503]\x1b[0m" in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == plain


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_that_moves_a_cursor_comes_through(form: str) -> None:
    evil = replace(
        UNKNOWN, message="no field '\x1b[2J\x9b'", path="stores.\x1b[1m", notes=(Note("\x1b[0m"),), hint="\x07"
    )
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", render([evil], form))  # type: ignore[arg-type]  # of FORMATS


def test_the_error_shows_them_all() -> None:
    error = ConfigError([UNKNOWN, VARIABLE])
    assert str(error) == f"1 error, 1 warning\n\n{text(UNKNOWN)}\n\n{text(VARIABLE)}"


def test_summaries() -> None:
    assert summary([]) == "no problems"
    assert summary([UNKNOWN, CIRCLE, VARIABLE, VARIABLE]) == "2 errors, 2 warnings"
    assert summary([VARIABLE]) == "1 warning"


def test_json_has_exactly_the_keys_of_the_contract() -> None:
    shown = json.loads(render([UNKNOWN, VARIABLE], "json"))
    assert shown.keys() == {"format", "diagnostics"}
    assert shown["format"] == 1
    assert shown["diagnostics"][0] == {
        "code": "SC501",
        "severity": "error",
        "message": "type 'redis' has no field 'urll'",
        "path": "stores.main.urll",
        "file": "conf/storeconf.yaml",
        "line": 12,
        "column": 5,
        "end_line": 12,
        "end_column": 9,
        "variable": None,
        "hint": "did you mean 'url'?",
        "environments": ["production", "staging"],
    }
    assert shown["diagnostics"][1]["variable"] == "STORECONF__STORES__MAIN__DB"
    assert json.loads(render([], "json")) == {"format": 1, "diagnostics": []}


def test_github_escapes_what_would_end_a_command() -> None:
    odd = replace(UNKNOWN, file="a,b:c%.yaml", message="100%\nsure", notes=(Note("here", "x.yaml", 1, 2),))
    first, second = render([odd, VARIABLE], "github").splitlines()
    assert first == (
        "::error file=a%2Cb%3Ac%25.yaml,line=12,endLine=12,col=5,endColumn=9,title=SC501 unknown-field::"
        "production, staging: 100%25%0Asure (did you mean 'url'?)%0Ahere (x.yaml:1:2)"
    )
    assert second.startswith("::warning title=SC503 wrong-type::STORECONF__STORES__MAIN__DB: db must be")
    assert render([], "github") == ""


def test_sarif() -> None:
    shown = sarif.check(render([UNKNOWN, CIRCLE, VARIABLE, NOWHERE], "sarif"), located=False)
    assert shown["version"] == "2.1.0"
    (run,) = shown["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["SC101", "SC501", "SC503", "SC602"]
    about = CODES["SC101"]
    assert (rules[0]["shortDescription"], rules[0]["help"]) == ({"text": about.explanation}, {"text": about.remedy})
    assert all(rules[each["ruleIndex"]]["id"] == each["ruleId"] for each in run["results"])
    assert run["columnKind"] == "unicodeCodePoints"
    unknown, circle, variable, nowhere = run["results"]
    place = unknown["locations"][0]
    assert place["physicalLocation"] == {
        "artifactLocation": {"uri": "conf/storeconf.yaml"},
        "region": {"startLine": 12, "startColumn": 5, "endLine": 12, "endColumn": 9},
    }
    assert place["logicalLocations"] == [{"fullyQualifiedName": "stores.main.urll"}]
    assert unknown["properties"] == {"environments": ["production", "staging"]}
    assert [related["physicalLocation"]["region"]["startLine"] for related in circle["relatedLocations"]] == [3, 4]
    assert variable["level"] == "warning"
    assert "physicalLocation" not in variable["locations"][0]
    assert nowhere["locations"] == [{"physicalLocation": {"artifactLocation": {"uri": "missing.yaml"}}}]


def test_sarif_of_nothing() -> None:
    assert sarif.check(render([], "sarif"))["runs"][0]["results"] == []


def test_sarif_places_what_is_in_no_file_at_the_layout() -> None:
    """Without it, GitHub's code scanning refuses the whole file."""
    at_variable = replace(VARIABLE, notes=(Note("set here", variable="STORECONF__STORES__MAIN__URL"),))
    lost = replace(NOWHERE, file=None)
    results = sarif.check(render([UNKNOWN, at_variable, lost], "sarif", layout="conf/storeconf.yaml"))["runs"][0][
        "results"
    ]
    for each in results:
        assert each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "conf/storeconf.yaml"
    assert ["region" in each["locations"][0]["physicalLocation"] for each in results] == [True, False, False]


def test_sarif_names_files_as_uris() -> None:
    shown = sarif.check(render([replace(UNKNOWN, file="my files/é.yaml")], "sarif"))
    location = shown["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert location["artifactLocation"]["uri"] == "my%20files/%C3%A9.yaml"


def test_every_code_is_numbered_and_titled() -> None:
    assert list(CODES) == sorted(CODES)
    titles = [code.title for code in CODES.values()]
    assert len(set(titles)) == len(titles)
    for number, code in CODES.items():
        assert re.fullmatch(r"SC[1-8][0-9]{2}", number)
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code.title)
        assert code.explanation.endswith(".")
        assert code.remedy.endswith(".")
