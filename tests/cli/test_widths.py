"""What people read fits into their terminal: nothing is broken inside a word, and carets are below what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest

from storeconf.cli.output import commented, fitted
from storeconf.diagnostics import Diagnostic, Note
from storeconf.diagnostics.render import render
from tests.cli.running import on_terminal, run

if TYPE_CHECKING:
    from pathlib import Path

LONG = "The main store of the whole shop, which has a description that is longer than the lines of most terminals are."
LAYOUT = f"""
stores:
  main:
    type: valkey
    url: ${{VALKEY_URL:-valkey://cache-primary.of-the-whole-shop.internal.example.com:6379/0}}
    namespace: shop
    description: {LONG}
    middleware: {{retry: {{attempts: 3}}, breaker: {{failures: 5}}, timeout: 2s}}
  pages_of_the_front_end:
    parent: main
    middleware: {{ttl: {{default: 1h, max: 2d, jitter: 0.1}}, cache: {{max_age: 5s}}}}
environments:
  production:
    stores: {{main: {{url: "valkey://127.0.0.1:1"}}}}
"""
BROKEN = """
stores:
  main: {type: memory, description: "a text that fills most of the line of a terminal", max_entires: 5, max_size: many}
  other: {type: redis, url: "redis://h", description: "another such text, which is as long", namespace: a, comand: 1}
"""


@pytest.fixture(autouse=True)
def _files(directory: Path) -> None:
    (directory / "storeconf.yaml").write_text(LAYOUT)
    (directory / "broken.yaml").write_text(BROKEN)
    (directory / "new.yaml").write_text(LAYOUT.replace("namespace: shop", "namespace: other"))


@pytest.mark.parametrize(
    "words",
    [
        ("validate", "broken.yaml"),
        ("explain", "stores.main.url"),
        ("changes", "storeconf.yaml", "new.yaml", "--env", "production"),
        ("ping", "--env", "production"),
        ("env", "--env", "production"),
    ],
    ids=lambda words: words[0],
)
def test_a_line_ends_where_the_terminal_ends(directory: Path, words: tuple[str, ...]) -> None:
    done = on_terminal(*words, cwd=directory, width=80)
    lines = click.unstyle(done.out).splitlines()
    assert len(lines) > 3
    # A name that is longer than a line can't be broken.
    assert not [line for line in lines if len(line) > 80 and len(line.split()) > 1]
    assert max(map(len, click.unstyle(run(*words).both).splitlines())) > 80  # a pipe has no width


def test_comments_stay_aligned_where_one_line_is_long(directory: Path) -> None:
    shown = click.unstyle(on_terminal("show", "--origins", "--env", "production", cwd=directory, width=80).out)
    comments = {line.index("  # ") for line in shown.splitlines() if "  # " in line and LONG not in line}
    assert len(comments) == 1
    assert comments.pop() < 50
    assert f"{LONG}  # storeconf.yaml:7:18" in shown


# ---------------------------------------------------------------------- rows


ROWS = [["name", "first second third fourth fifth sixth"], ["longer name", "short"], [], ["a heading"]]


def test_rows_are_aligned_where_they_fit() -> None:
    for width in (None, 80):
        assert fitted(ROWS, width) == [
            "name         first second third fourth fifth sixth",
            "longer name  short",
            "",
            "a heading",
        ]


def test_the_last_cell_is_broken_between_words() -> None:
    assert fitted(ROWS, 40, indent=" ") == [
        " name         first second third fourth",
        "              fifth sixth",
        " longer name  short",
        "",
        " a heading",
    ]


def test_cells_move_below_the_first_where_it_is_wide() -> None:
    wide = [["a-name-that-takes-most-of-the-line", "x", "first second third fourth"], ["b", "yy", "c"]]
    assert fitted(wide, 40) == [
        "a-name-that-takes-most-of-the-line",
        "      x   first second third fourth",
        "b",
        "      yy  c",
    ]


def test_a_long_line_moves_no_other_comment() -> None:
    rows = [["a: 1", "# x"], ["b" * 70, "# y"], ["section:"], ["ccc: 2", "# z"]]
    assert commented(rows, 80) == ["a: 1    # x", f"{'b' * 70}  # y", "section:", "ccc: 2  # z"]


# ---------------------------------------------------------------------- excerpts


def shown(line: str, token: str, width: int) -> tuple[str, str]:
    """The excerpt of a line, and what the carets below it point at."""
    column = line.index(token) + 1
    diagnostic = Diagnostic(
        "SC501", "m", file="x.yaml", line=1, column=column, end_line=1, end_column=column + len(token),
        excerpt=((1, line),), notes=(Note("here", "y.yaml", 1, 1),),
    )  # fmt: skip
    lines = render([diagnostic], width=width).splitlines()
    assert all(len(each) <= width for each in lines)
    source, carets = lines[3], lines[4]
    return source.removeprefix("1 | "), source[carets.index("^") : carets.rindex("^") + 1]


def test_an_excerpt_shows_the_part_around_the_caret() -> None:
    line = f"{'a' * 60} TOKEN {'b' * 60}"
    assert shown(line, "TOKEN", 200) == (line, "TOKEN")
    source, marked = shown(line, "TOKEN", 60)
    assert (source[0], source[-1], marked) == ("…", "…", "TOKEN")
    source, marked = shown(line, "aaa", 60)
    assert (source[0], source[-1], marked) == ("a", "…", "aaa")
    source, marked = shown(line, "b" * 60, 60)
    assert (source[0], marked[0], marked[-1]) == ("…", "b", "b")
    for at in range(len(line) - 5):
        unique = line[:at] + "XYZ" + line[at + 3 :]
        assert shown(unique, "XYZ", 50)[1] == "XYZ"


def test_a_text_is_broken_between_words() -> None:
    words = " ".join(f"word{number}" for number in range(30))
    diagnostic = Diagnostic("SC501", words, hint=words, notes=(Note(words),), environments=("production",))
    text = render([diagnostic], width=60)
    assert all(len(line) <= 60 for line in text.splitlines())
    assert " ".join(text.split()).count(words) == 3
    assert words in render([diagnostic])
