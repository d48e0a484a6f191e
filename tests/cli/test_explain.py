"""`storeconf explain`, `diff` and `env`: where values come from, what differs, and what could override them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from storeconf.diagnostics.codes import CODES
from tests.cli.running import run

if TYPE_CHECKING:
    from pathlib import Path

LAYOUT = """
stores:
  main: {type: memory, namespace: shop, max_entries: 1000}
  cache: {parent: main, middleware: {ttl: 15m, limit: {key_size: 1KiB}}}
  pages: {parent: cache, middleware: {limit: false}}
  again: {use: pages}
  once_more: {use: again}
default_factory: {parent: cache, middleware: {read_only: {}}}
environments:
  production:
    stores:
      main: {type: redis, url: "redis://u:hunter2@h/0"}
      cache: {middleware: {ttl: {default: 1h}}}
  staging:
    stores:
      main: {type: redis, url: "redis://u:hunter3@h/0"}
"""


OVERLAY = "stores: {cache: {middleware: {ttl: {default: 2h}}}}\n"


def place(text: str, value: str, file: str = "storeconf.yaml") -> str:
    """Where a value stands in a text."""
    before = text[: text.index(value)]
    line = before.count("\n") + 1
    return f"{file}:{line}:{len(before) - before.rfind(chr(10))}"


@pytest.fixture(autouse=True)
def _layout(directory: Path) -> None:
    (directory / "storeconf.yaml").write_text(LAYOUT)
    (directory / "storeconf.production.yaml").write_text(OVERLAY)


def explain(path: str, *more: str) -> list[str]:
    done = run("explain", path, "--env", "production", *more)
    assert (done.status, done.err) == (0, "")
    return done.out.splitlines()


# ---------------------------------------------------------------------- explain


def test_the_history_is_told_from_the_highest_layer_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORECONF__STORES__CACHE__MIDDLEWARE__TTL__DEFAULT", "3h")
    lines = explain("stores.cache.middleware.ttl.default", "--set", "stores.cache.middleware.ttl.default=4h")
    assert lines[0] == "production  stores.cache.middleware.ttl.default"
    assert [line.split(maxsplit=2) for line in lines[1:6]] == [
        ["4h", "--set", "override"],
        ["3h", "$STORECONF__STORES__CACHE__MIDDLEWARE__TTL__DEFAULT", "variable, shadowed"],
        ["2h", place(OVERLAY, "2h", "storeconf.production.yaml"), "overlay, shadowed"],
        ["1h", place(LAYOUT, "1h"), "environment, shadowed"],
        ["15m", place(LAYOUT, "15m"), "file, shadowed"],
    ]
    assert len({line.index(line.split(maxsplit=2)[2]) for line in lines[1:6]}) == 1


def test_the_history_in_json_has_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORECONF__STORES__MAIN__MAX_CONNECTIONS", "4")
    shown = run("explain", "stores.main.max_connections", "--env", "production", "--format", "json").json
    assert shown["format"] == 1
    assert shown["environment"] == "production"
    assert shown["history"] == [
        {
            "layer": "variable",
            "file": None,
            "line": None,
            "column": None,
            "variable": "STORECONF__STORES__MAIN__MAX_CONNECTIONS",
            "value": "4",
            "removed": False,
        }
    ]
    shown = run("explain", "stores.main.type", "--env", "production", "--format", "json").json
    assert [(each["layer"], each["line"], each["column"], each["value"]) for each in shown["history"]] == [
        ("environment", 12, 20, "redis"),
        ("file", 3, 16, "memory"),
    ]


def test_what_a_change_of_kind_took_away_is_told() -> None:
    lines = explain("stores.main.max_entries")
    assert lines[1].split() == ["(removed)", "storeconf.yaml:12:20", "environment"]
    assert lines[2].split() == ["1000", place(LAYOUT, "1000"), "file,", "shadowed"]


def test_a_value_that_nobody_set_is_the_fields_default() -> None:
    lines = explain("stores.main.retries")
    assert lines[1].split() == ["3", "default"]
    assert lines[3].strip() != ""  # what the field is for
    shown = run("explain", "stores.main.connect_timeout", "--env", "production", "--format", "json").json
    assert (shown["history"], shown["default"]) == ([], "2s")
    assert explain("stores.main.username")[1].split() == ["(none)", "default"]
    assert explain("stores.cache.namespace")[1].split() == ["cache", "default"]


def test_a_mapping_is_explained_value_by_value() -> None:
    lines = explain("stores.main")
    assert [line.split()[:3] for line in lines[1:]] == [
        ["namespace", "shop", "storeconf.yaml:3:35"],
        ["type", "redis", "storeconf.yaml:12:20"],
        ["url", "redis://u:***@h/0", "storeconf.yaml:12:32"],
    ]
    assert lines[2].endswith("environment, shadows storeconf.yaml:3:16")
    shown = run("explain", "stores.cache.middleware", "--env", "production", "--format", "json").json
    assert [(each["path"], each["value"], each["file"]) for each in shown["values"]] == [
        ("stores.cache.middleware.ttl.default", "2h", "storeconf.production.yaml"),
        ("stores.cache.middleware.limit.key_size", "1KiB", "storeconf.yaml"),
    ]


def test_what_a_child_inherits_is_found_where_it_is_said() -> None:
    lines = explain("stores.pages.middleware.ttl.default")
    assert lines[0] == "production  stores.pages.middleware.ttl.default  inherited from stores.cache"
    assert lines[1].split()[:2] == ["2h", place(OVERLAY, "2h", "storeconf.production.yaml")]
    shown = run("explain", "stores.pages.middleware.ttl", "--env", "production", "--format", "json").json
    assert shown["found_at"] == "stores.cache.middleware.ttl"
    assert explain("default_factory.middleware.ttl.default")[0].endswith("inherited from stores.cache")
    assert explain("stores.pages.middleware.limit")[1].split()[0] == "false"


def test_an_alias_has_the_values_of_its_store() -> None:
    lines = explain("stores.once_more.middleware.ttl.default")
    assert lines[0].endswith("once_more is another name for pages, inherited from stores.cache")
    assert explain("stores.once_more.use")[1].split()[0] == "again"


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("stores.cache.midleware.ttl", "stores.cache.middleware.ttl"),
        ("stores.chache.parent", "stores.cache.parent"),
        ("cache", "stores.cache"),
        ("cache.middleware.ttl", "stores.cache.middleware.ttl"),
        ("stores.main.urls", "stores.main.url"),
        ("default_factroy.parent", "default_factory.parent"),
        ("stores.cache.middleware.limit.keysize", "stores.cache.middleware.limit.key_size"),
    ],
)
def test_an_unknown_path_is_told_with_the_nearest(path: str, near: str) -> None:
    done = run("explain", path, "--env", "production")
    assert done.status == 1
    assert done.out == ""
    assert done.err == f"production: error: no setting at {path}; did you mean {near}?\n"


@pytest.mark.parametrize(
    "path", ["", ".", "stores.", "x", "stores.main.url.more", "stores.main.cluster.0", "environments"]
)
def test_an_odd_path_is_no_failure(path: str) -> None:
    done = run("explain", path, "--env", "production")
    assert done.status == 1
    assert "no setting at" in done.err


def test_a_path_of_a_list_leads_to_its_items() -> None:
    more = ("--set", "stores.main.cluster=[a:1, b:2]")
    assert explain("stores.main.cluster.1", *more)[1].split() == ["b:2", "--set", "override"]
    assert explain("stores.main.cluster", *more)[1].split("  ")[1] == "[a:1, b:2]"
    for index in ("2", "-1", "x", "9" * 5000):
        assert run("explain", f"stores.main.cluster.{index}", "--env", "production", *more).status == 1


# ---------------------------------------------------------------------- explain, a code


def test_a_code_is_explained_without_a_layout(directory: Path) -> None:
    (directory / "storeconf.yaml").unlink()
    done = run("explain", "sc406")
    assert (done.status, done.err) == (0, "")
    title, means, empty, *mend = done.out.splitlines()
    assert (title, means, empty) == ("SC406: unsafe-url-part", f"  {CODES['SC406'].explanation}", "")
    assert " ".join(line.strip() for line in mend) == CODES["SC406"].remedy
    shown = run("explain", "SC406", "--format", "json").json
    assert shown.keys() == {"format", "code", "title", "explanation", "remedy"}
    assert (shown["code"], shown["remedy"]) == ("SC406", CODES["SC406"].remedy)


def test_a_code_that_does_not_exist_is_said_to() -> None:
    done = run("explain", "SC999")
    assert (done.status, done.out, done.err) == (1, "", "error: unknown code SC999\n")


# ---------------------------------------------------------------------- diff


def test_a_difference_is_status_1() -> None:
    done = run("diff", "staging", "production")
    assert done.status == 1
    assert done.out.splitlines() == [
        "staging → production  storeconf.yaml, storeconf.production.yaml",
        "~ stores.main.url              redis://u:***@h/0 → redis://u:***@h/0 (they differ)",
        "~ stores.cache.middleware.ttl  15m → {default: 2h}",
    ]


def test_no_difference_is_status_0() -> None:
    done = run("diff", "staging", "staging")
    assert (done.status, done.out) == (0, "")
    assert done.err == "no differences between staging and staging\n"
    assert run("diff", "staging", "staging", "--format", "json").json == {
        "format": 1,
        "environments": ["staging", "staging"],
        "diff": [],
    }


def test_a_difference_in_json(directory: Path) -> None:
    (directory / "storeconf.yaml").write_text(
        "stores: {a: {type: memory}}\nenvironments:\n  one: {stores: {b: {type: memory, max_entries: 1}}}\n"
        "  two: {default_factory: forbid, stores: {a: {max_entries: 5}}}\n"
    )
    done = run("diff", "one", "two", "--format", "json")
    assert done.status == 1
    assert done.json["diff"] == [
        {"path": "stores.a.max_entries", "change": "added", "before": None, "after": 5},
        {"path": "stores.b.type", "change": "removed", "before": "memory", "after": None},
        {"path": "stores.b.max_entries", "change": "removed", "before": 1, "after": None},
        {"path": "default_factory", "change": "added", "before": None, "after": "forbid"},
    ]


def test_an_unknown_environment_has_no_difference() -> None:
    done = run("diff", "staging", "prodution")
    assert done.status == 1
    assert done.out == ""
    assert "did you mean 'production'?" in done.err


# ---------------------------------------------------------------------- env


def test_every_variable_is_listed_with_its_path_and_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORECONF__STORES__main__Db", "7")
    monkeypatch.setenv("STORECONF__STORES__MAIN__CLIENT_NAME_FILE", "name")
    monkeypatch.setenv("STORECONF_ENV", "staging")
    with open("name", "w") as file:
        file.write("shop")
    done = run("env", "--set", "stores.main.url=redis://h")
    rows = [line.split() for line in done.out.splitlines()]
    assert rows[0] == ["staging", "storeconf.yaml"]
    assert ["STORECONF_ENV", "chooses", "the", "environment", "=", "staging"] in rows
    assert ["STORECONF_FILE", "names", "the", "file", "of", "the", "layout"] in rows
    assert ["stores.main"] in rows
    assert ["STORECONF__STORES__main__Db", "db", "=", "7"] in rows
    assert ["STORECONF__STORES__MAIN__CLIENT_NAME_FILE", "client_name", "=", "name"] in rows
    assert ["STORECONF__STORES__MAIN__URL", "url", "redis://h"] in rows
    assert ["STORECONF__STORES__MAIN__RETRIES", "retries", "3"] in rows
    assert ["stores.cache"] in rows
    assert ["STORECONF__STORES__CACHE__MIDDLEWARE__TTL", "middleware.ttl", "15m"] in rows
    assert ["STORECONF__STORES__PAGES__NAMESPACE", "namespace", "pages"] in rows
    assert ["default_factory"] in rows
    assert ["STORECONF__DEFAULT_FACTORY__PARENT", "parent", "cache"] in rows


def test_each_listed_variable_really_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = run("env", "--env", "production", "--format", "json").json["env"]
    assert len({each["variable"] for each in listed}) == len(listed)
    for each in listed:
        known = (".ttl.default", ".key_size", ".description", ".max_connections")
        if each["path"] and each["path"].endswith(known) and not each["variable"].endswith("_FILE"):
            monkeypatch.setenv(each["variable"], "77")
            shown = run("explain", each["path"], "--env", "production", "--format", "json").json
            assert shown["history"][0]["variable"] == each["variable"]
            monkeypatch.delenv(each["variable"])


def test_variables_in_json_have_values_and_what_holds_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORECONF__STORES__MAIN__PASSWORD", "hunter4")
    done = run("env", "--env", "production", "--format", "json", "--set", "stores.main.url=redis://h")
    by_path = {each["path"]: each for each in done.json["env"] if not each["variable"].endswith("_FILE")}
    assert by_path["stores.main.password"] == {
        "variable": "STORECONF__STORES__MAIN__PASSWORD",
        "path": "stores.main.password",
        "value": "***",
        "effective": "***",
    }
    assert by_path["stores.cache.parent"]["effective"] == "main"
