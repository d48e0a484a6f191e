"""`storeconf validate`: what it checks, what it prints where, and its statuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import sarif
from tests.cli.running import run

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
stores:
  main: {type: memory}
environments:
  development: {}
  production: {stores: {main: {type: redis, namespace: a, url: "${URL:?production needs URL}"}}}
"""
BAD = """
stores:
  main: {type: memory, max_entires: 3}
environments:
  development: {}
  production: {stores: {main: {max_size: wide}}}
"""
RISKY = 'stores: {main: {type: redis, namespace: a, url: "rediss://h", tls: {verify: none}}}\n'


@pytest.fixture(autouse=True)
def _files(directory: Path) -> None:
    for name, text in (("good.yaml", GOOD), ("bad.yaml", BAD), ("risky.yaml", RISKY)):
        (directory / name).write_text(text)


def test_every_environment_is_checked() -> None:
    done = run("validate", "-f", "good.yaml")
    assert done.status == 1
    assert done.out.startswith("production: error[SC404]: ")
    assert "good.yaml:6:" in done.out
    assert done.err == "\ndevelopment, production: good.yaml: 1 error\n"


def test_one_environment_is_checked_where_one_is_named() -> None:
    done = run("validate", "-f", "good.yaml", "--env", "development")
    assert (done.status, done.out, done.err) == (0, "", "development: good.yaml: no problems\n")


def test_the_environment_of_the_process_does_not_narrow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORECONF_ENV", "development")
    assert run("validate", "-f", "good.yaml").status == 1


def test_the_layout_is_found_where_none_is_named(directory: Path) -> None:
    (directory / "good.yaml").rename(directory / "storeconf.yaml")
    assert run("validate", "--without-secrets").err == "development, production: storeconf.yaml: no problems\n"


def test_without_secrets_unset_names_are_placeholders() -> None:
    assert run("validate", "-f", "good.yaml", "--without-secrets").status == 0


def test_text_is_a_compilers() -> None:
    done = run("validate", "bad.yaml")
    assert done.status == 1
    assert done.out.startswith(
        "development, production: error[SC501]: type 'memory' has no field 'max_entires'\n"
        " --> bad.yaml:3:24\n"
        "  |\n"
        "3 |   main: {type: memory, max_entires: 3}\n"
        "  |                        ^^^^^^^^^^^\n"
        "  = path: stores.main.max_entires, set by the file\n"
        "  = hint: did you mean 'max_entries'?\n"
        "\n"
        "production: error[SC504]: "
    )
    assert (
        " --> bad.yaml:6:42\n"
        "  |\n"
        "6 |   production: {stores: {main: {max_size: wide}}}\n"
        "  |                                          ^^^^\n"
        "  = path: stores.main.max_size, set by the environment's section\n"
    ) in done.out
    assert done.err == "\ndevelopment, production: bad.yaml: 2 errors\n"


def test_warnings_are_shown_and_are_no_failure() -> None:
    done = run("validate", "risky.yaml")
    assert done.status == 0
    assert "warning[SC801]" in done.out
    assert done.err == "\nrisky.yaml: 1 warning\n"


def test_several_files_are_each_summed_up() -> None:
    done = run("validate", "bad.yaml", "nothing.yaml", "good.yaml", "--without-secrets")
    assert done.status == 1
    assert done.err.splitlines()[1:] == [
        "development, production: bad.yaml: 2 errors",
        "nothing.yaml: 1 error",
        "development, production: good.yaml: no problems",
    ]


def test_json_has_everything_of_each_problem() -> None:
    done = run("validate", "bad.yaml", "--format", "json")
    assert (done.status, done.err) == (1, "")
    assert done.json["format"] == 1
    assert done.json["diagnostics"][0] == {
        "code": "SC501",
        "severity": "error",
        "message": "type 'memory' has no field 'max_entires'",
        "path": "stores.main.max_entires",
        "file": "bad.yaml",
        "line": 3,
        "column": 24,
        "end_line": 3,
        "end_column": 35,
        "variable": None,
        "hint": "did you mean 'max_entries'?",
        "environments": ["development", "production"],
    }


def test_forms_for_build_servers(directory: Path) -> None:
    github = run("validate", "bad.yaml", "--format", "github")
    assert github.status == 1
    assert [line.split(" ")[0] for line in github.out.splitlines()] == ["::error", "::error"]
    assert f"file={directory / 'bad.yaml'},line=3,endLine=3,col=24,endColumn=35" in github.out
    done = run("validate", "bad.yaml", "--format", "sarif")
    assert done.status == 1
    assert [result["ruleId"] for result in sarif.check(done.out)["runs"][0]["results"]] == ["SC501", "SC504"]


def test_sarif_satisfies_its_schema_and_places_every_problem(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "storeconf.yaml").write_text("stores: {main: {type: memory}}\nextends: [nowhere.yaml]\n")
    monkeypatch.setenv("STORECONF__STORES__MAIN__MAX_ENTRIES", "x")
    monkeypatch.setenv("STORECONF_STRAY", "x")
    for arguments in ((), ("bad.yaml", "good.yaml"), ("-",), ("missing.yaml",)):
        done = run("validate", *arguments, "--format", "sarif", stdin=b"stores: {main: {type: memroy}}\n")
        log = sarif.check(done.out)
        assert "STORECONF_STRAY" in done.out
        assert len(log["runs"][0]["results"]) > 1
    monkeypatch.delenv("STORECONF_STRAY")
    monkeypatch.delenv("STORECONF__STORES__MAIN__MAX_ENTRIES")
    (directory / "storeconf.yaml").write_text("stores: {main: {type: memory}}\n")
    assert sarif.check(run("validate", "--format", "sarif").out)["runs"][0]["results"] == []


def test_where_nothing_is_wrong_nothing_is_printed() -> None:
    for form in ("text", "github"):
        done = run("validate", "good.yaml", "--without-secrets", "--format", form)
        assert (done.status, done.out) == (0, "")
    done = run("validate", "good.yaml", "--without-secrets", "--format", "json")
    assert (done.status, done.json) == (0, {"format": 1, "diagnostics": []})


def test_a_build_server_is_asked_for_and_never_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert not run("validate", "bad.yaml").out.startswith("::")


def test_a_problem_that_files_share_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORECONF_STRAY", "x")
    done = run("validate", "good.yaml", "bad.yaml", "--without-secrets")
    assert done.out.count("SC804") == 1
    assert done.out.startswith("development, production: error[SC501]")


def test_nothing_is_connected_to_and_nothing_is_made(directory: Path) -> None:
    (directory / "files.yaml").write_text("stores: {main: {type: file, path: var}}")
    assert run("validate", "files.yaml").status == 0
    assert not (directory / "var").exists()
