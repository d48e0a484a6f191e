"""`storeconf show`: the effective layout can be read again; and the writers of YAML and TOML behind it."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any, Literal

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from storeconf.config.document import parse
from storeconf.config.dump import shown, toml_lines, yaml_lines
from storeconf.layout import read_layout
from tests.cli.running import run

if TYPE_CHECKING:
    from pathlib import Path

LAYOUT = """
version: 1
x-note: not shown
stores:
  main: {type: redis, url: "redis://${HOST:-localhost}:6379/0", namespace: shop, description: "5 $$, $${x}: 'a' # b"}
  "on": {parent: main, namespace: "null", middleware: {ttl: {default: 14d, renew_on_get: true}}}
  "1e3": {parent: main, description: "0x1F"}
  cache: {parent: main, middleware: {ttl: 15m, limit: false}}
  rates: {use: cache}
  uploads: {type: file, path: var/uploads, mode: "0750", description: "größe — \\u2028 \\t \\x7f \\U0001F600"}
  grid: {type: valkey, cluster: ["a:1", "b:2"], namespace: g}
default_factory: {parent: main, max_stores: 100}
environments:
  development:
    stores: {main: {type: memory}}
  production:
    default_factory: forbid
    stores: {main: {max_connections: 2, connect_timeout: 1s}}
"""


@pytest.fixture(autouse=True)
def _layout(directory: Path) -> None:
    (directory / "storeconf.yaml").write_text(LAYOUT)


@pytest.mark.parametrize("form", ["yaml", "toml", "json"])
@pytest.mark.parametrize("environment", ["development", "production"])
def test_what_is_shown_can_be_read_again(form: str, environment: str, directory: Path) -> None:
    done = run("show", "--env", environment, "--format", form)
    assert done.status == 0
    other = directory / "other"
    other.mkdir()
    (other / f"again.{form}").write_text(done.out)
    layout = read_layout("storeconf.yaml", environment=environment, environ={})
    again = read_layout(other / f"again.{form}", environ={})
    assert (again.stores, again.default_factory) == (layout.stores, layout.default_factory)
    assert again.dump() == layout.dump()


@pytest.mark.parametrize(
    ("form", "lines"),
    [
        ("yaml", ("max_connections: 2", "create: false", 'db: "***"', "- c:3")),
        ("toml", ("max_connections = 2", "create = false", 'db = "***"', '"c:3",')),
    ],
)
def test_origins_stand_behind_the_values(
    form: Literal["yaml", "toml"], lines: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    monkeypatch.setenv("STORECONF__STORES__GRID__CLUSTER__1", "c:3")
    monkeypatch.setenv("STORECONF__STORES__MAIN__DB_FILE", "db")
    (directory / "db").write_text("0")
    (directory / "storeconf.yaml").write_text(LAYOUT.replace(":6379/0", ":6379"))
    done = run("show", "--env", "production", "--origins", "--format", form, "--set", "stores.uploads.create=false")
    assert done.status == 0
    places = {line.partition(" # ")[0].strip(): line.rpartition(" # ")[2] for line in done.out.splitlines()}
    assert [places[line] for line in lines] == [
        "storeconf.yaml:18:38",
        "--set",
        "$STORECONF__STORES__MAIN__DB_FILE",
        "$STORECONF__STORES__GRID__CLUSTER__1",
    ]
    assert parse(done.out.encode(), form, "shown").value["stores"]


def test_origins_in_json() -> None:
    done = run("show", "--env", "production", "--origins", "--format", "json")
    assert done.json["environment"] == "production"
    assert done.json["layout"]["stores"]["main"]["max_connections"] == 2
    assert {
        "path": "stores.main.max_connections",
        "value": 2,
        "layer": "environment",
        "file": "storeconf.yaml",
        "line": 18,
        "column": 38,
        "variable": None,
    } in done.json["origins"]


def test_secrets_are_masked() -> None:
    done = run("show", "--env", "production", "--set", "stores.main.password=hunter2")
    assert "hunter2" not in done.out
    assert 'password: "***"' in done.out


def test_the_environment_and_the_files_come_first() -> None:
    assert run("show", "--env", "production").out.startswith("# production: storeconf.yaml\n")
    assert run("show", "--env", "production", "--format", "toml").out.startswith("# production: storeconf.yaml\n")
    assert run("show").out.startswith("# no environment: storeconf.yaml\n")


# ---------------------------------------------------------------------- the writers

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.text(string.printable, max_size=20),
    st.sampled_from(
        ["yes", "No", "~", "null", "0123", "1_000", "12:30", "2001-01-01", ".5", "1e3", "0o7", "-", "- a", "a: b"]
    ),
    st.from_regex(r"[0-9]{1,4}(ms|[wdhms]|[kKMG]i?B|e[0-9])?", fullmatch=True),
)
SCALARS = st.one_of(
    TEXTS, st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False)
)
TREES = st.dictionaries(
    TEXTS.filter(bool),
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS.filter(bool), inner, max_size=4),
        max_leaves=12,
    ),
    max_size=5,
)


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types: 1, 1.0 and true are three values."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@given(TREES, st.booleans())
@example({"a": "b\n", "c": ["", "x, y", "[z]", {"k": "v: w"}], "d": {}}, False)
def test_yaml_that_is_written_reads_the_same(tree: dict[str, Any], items: bool) -> None:
    text = "\n".join(line for line, _ in yaml_lines(tree, items=items))
    assert same(parse(text.encode(), "yaml", "written").value, tree)


@given(TREES)
@example({"a": 5e-324, "b": 1e16})
def test_texts_are_texts_to_readers_of_older_yaml_too(tree: dict[str, Any]) -> None:
    read = yaml.safe_load("\n".join(line for line, _ in yaml_lines(tree))) or {}
    assert [type(key) for key in read] == [str] * len(tree)
    assert {key: value for key, value in read.items() if isinstance(value, str)} == {
        key: value for key, value in tree.items() if isinstance(value, str)
    }


@given(TREES, st.booleans())
def test_toml_that_is_written_reads_the_same(tree: dict[str, Any], items: bool) -> None:
    text = "\n".join(line for line, _ in toml_lines(tree, items=items))
    assert same(parse(text.encode(), "toml", "written").value, tree)


@given(TREES)
def test_each_line_knows_the_path_that_it_is_about(tree: dict[str, Any]) -> None:
    def leaves(value: Any, path: tuple[str | int, ...]) -> list[tuple[str | int, ...]]:
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        if isinstance(value, list):
            return [(*path, at) for at in range(len(value))] or [path]
        return [found for key, each in inner for found in leaves(each, (*path, key))] or ([path] if path else [])

    for lines in (yaml_lines(tree, items=True), toml_lines(tree, items=True)):
        assert sorted(map(str, (path for _, path in lines if path is not None))) == sorted(map(str, leaves(tree, ())))


@given(SCALARS)
def test_a_value_for_people_is_one_printable_line(value: Any) -> None:
    assert shown(value).isprintable()
    assert shown(value) != ""


def test_a_value_for_people_needs_quotes_only_where_it_could_be_another() -> None:
    assert [shown(value) for value in ("14d", "redis://h/0", "a, b", "3", "true", "", " x", 3, True, 0.5)] == [
        "14d", "redis://h/0", "a, b", '"3"', '"true"', '""', '" x"', "3", "true", "0.5",
    ]  # fmt: skip
    assert shown(["a", {"b": "c d"}, 1]) == "[a, {b: c d}, 1]"
