"""What operators, pipelines and containers need of the commands: strictness, quietness, pipes, several environments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.running import environment, process, run

if TYPE_CHECKING:
    from pathlib import Path

RISKY = 'stores: {a: {type: redis, namespace: a, url: "rediss://h", tls: {verify: none}}}\n'
KNOWN = RISKY + "acknowledge: {SC801: [stores.a.tls]}\n"
LAYOUT = """
stores:
  main: {type: file, path: data, middleware: {ttl: 3d}}
  sessions: {parent: main, middleware: {cache: {max_age: 5s}}}
  plain: {parent: main, middleware: {ttl: false}}
  other: {use: sessions}
default_factory: {parent: main}
environments:
  a: {stores: {main: {type: memory, max_entries: x}}}
  b: {}
  c: {default_factory: forbid}
"""


@pytest.fixture(autouse=True)
def _files(directory: Path) -> None:
    for name, text in (("risky.yaml", RISKY), ("known.yaml", KNOWN), ("storeconf.yaml", LAYOUT)):
        (directory / name).write_text(text)


# ---------------------------------------------------------------------- strict, quiet, acknowledged


def test_warnings_count_as_errors_only_if_strict() -> None:
    assert run("validate", "risky.yaml").status == 0
    strict = run("validate", "risky.yaml", "--strict")
    assert strict.status == 1
    assert "warning[SC801]" in strict.out
    assert run("validate", "known.yaml", "--strict").status == 0


def test_quiet_prints_errors_alone() -> None:
    done = run("validate", "risky.yaml", "-q")
    assert (done.status, done.both) == (0, "")
    assert "SC801" in run("validate", "risky.yaml", "--strict", "-q").out
    done = run("validate", "-q", "--env", "a")
    assert "error[SC503]" in done.out
    assert done.err == ""
    done = run("show", "-f", "risky.yaml", "-q")
    assert done.err == ""
    assert "redis" in done.out


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("SC801: [stores.a]", []),
        ("SC801: [stores.a.tls.verify]", []),
        ("SC801: [stores.a.tl]", ["SC801", "SC808"]),
        ("SC802: [stores.a]", ["SC801", "SC808"]),
        ("SC801: stores.a", ["SC503", "SC801"]),
        ("SC801: [3]", ["SC503", "SC801"]),
        ("SC899: [stores.a]", ["SC501", "SC801"]),
        ("SC801: null", ["SC801", "SC802"]),
    ],
)
def test_warnings_are_acknowledged_by_code_and_path(directory: Path, entry: str, expected: list[str]) -> None:
    (directory / "x.yaml").write_text(f"{RISKY}acknowledge: {{{entry}}}\n")
    done = run("validate", "x.yaml", "--format", "json")
    assert sorted(each["code"] for each in done.json["diagnostics"]) == expected


def test_a_warning_without_a_path_is_acknowledged_everywhere(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes injects such variables; the schema in editors must know the entry, too."""
    text = "stores: {a: {type: memory}}\nenvironments: {production: {}}\n"
    (directory / "x.yaml").write_text(text)
    (directory / "x.productoin.yaml").write_text("{}\n")
    monkeypatch.setenv("STORECONF_PORT", "80")

    def codes(*arguments: str) -> list[str]:
        done = run("validate", "x.yaml", "--format", "json", *arguments)
        return sorted(each["code"] for each in done.json["diagnostics"])

    assert codes() == ["SC804", "SC809"]
    (directory / "x.yaml").write_text(f'{text}acknowledge: {{SC804: ["*"], SC809: ["*"]}}\n')
    assert codes() == []
    assert run("validate", "x.yaml", "--strict").status == 0
    assert "SC803" in run("show", "-f", "x.yaml").err
    (directory / "x.yaml").write_text(f'{text}acknowledge: {{SC803: ["*"], SC804: ["*"], SC809: ["*"]}}\n')
    assert run("show", "-f", "x.yaml").err == ""
    assert codes() == []
    monkeypatch.delenv("STORECONF_PORT")
    assert codes() == []  # what the surroundings cause need not occur everywhere
    (directory / "x.productoin.yaml").unlink()
    assert codes() == ["SC808"]
    assert "SC809 is acknowledged, but does not occur\n" in run("validate", "x.yaml").out


def test_everywhere_is_every_path(directory: Path) -> None:
    (directory / "x.yaml").write_text(f'{RISKY}acknowledge: {{SC801: ["*"]}}\n')
    assert run("validate", "x.yaml", "--strict").status == 0
    for wrong in ("**", "stores.*.tls", "*.a", ""):
        (directory / "x.yaml").write_text(f"{RISKY}acknowledge: {{SC801: ['{wrong}']}}\n")
        assert run("validate", "x.yaml", "--strict").status == 1, wrong


def test_errors_can_not_be_acknowledged(directory: Path) -> None:
    (directory / "x.yaml").write_text("stores: {a: {type: memory, max_entries: x}}\nacknowledge: {SC503: [stores.a]}\n")
    done = run("validate", "x.yaml", "--format", "json")
    assert [each["code"] for each in done.json["diagnostics"]] == ["SC503", "SC808"]
    assert "but it is an error, which can't be acknowledged" in done.json["diagnostics"][1]["message"]


def test_the_hint_for_everywhere_can_be_copied(directory: Path) -> None:
    (directory / "x.yaml").write_text(f'{RISKY}acknowledge: {{SC801: "*"}}\n')
    (found,) = (each for each in run("validate", "x.yaml", "--format", "json").json["diagnostics"] if each["hint"])
    assert found["hint"] == 'write ["*"]'
    (directory / "x.yaml").write_text(f"{RISKY}acknowledge: {{SC801: {found['hint'].removeprefix('write ')}}}\n")
    assert run("validate", "x.yaml", "--strict").status == 0


def test_what_is_acknowledged_in_general_need_occur_in_one_environment_only(directory: Path) -> None:
    text = """
stores: {a: {type: memory}}
acknowledge: {SC801: [stores.a]}
environments:
  development: {}
  production: {stores: {a: {type: redis, namespace: a, url: "rediss://h", tls: {verify: none}}}}
"""
    (directory / "x.yaml").write_text(text)
    assert run("validate", "x.yaml", "--strict").status == 0
    for name in ("development", "production"):
        assert run("validate", "x.yaml", "--strict", "--env", name).status == 0
    (directory / "x.yaml").write_text(text.replace("SC801: [stores.a]", "SC801: [stores.b]"))
    done = run("validate", "x.yaml", "--format", "json")
    assert [(each["code"], each["environments"]) for each in done.json["diagnostics"]] == [
        ("SC808", ["development", "production"]),
        ("SC801", ["production"]),
    ]


def test_an_environment_acknowledges_for_itself(directory: Path) -> None:
    section = "environments: {x: {acknowledge: {SC801: [stores.a]}}, y: {}}\n"
    (directory / "x.yaml").write_text(RISKY + section)
    done = run("validate", "x.yaml", "--format", "json")
    assert [(each["code"], each["environments"]) for each in done.json["diagnostics"]] == [("SC801", ["y"])]
    assert run("show", "-f", "x.yaml", "--env", "x", "--format", "json").json["acknowledge"] == {"SC801": ["stores.a"]}


# ---------------------------------------------------------------------- pipes, variables, environments


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0"])
@pytest.mark.parametrize(
    "text",
    ["stores:\n  m: {type: memory}\n", '{"stores":\t{"m": {"type": "memory"}}}', '[stores.m]\ntype = "memory"\n'],
)
def test_a_layout_comes_from_a_pipe(directory: Path, name: str, text: str) -> None:
    assert process("validate", name, cwd=directory, stdin=text.encode()).status == 0
    shown = process("show", "-f", name, "--format", "json", cwd=directory, stdin=text.encode())
    assert shown.json == {"stores": {"m": {"type": "memory"}}}


def test_a_layout_comes_from_the_substitution_of_a_shell(directory: Path) -> None:
    command = f"{sys.executable} -m storeconf validate <(echo 'stores: {{m: {{type: memroy}}}}')"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "did you mean 'memory'?" in done.stdout


def test_problems_of_stdin_have_a_place_and_no_file_in_a_repository() -> None:
    done = run("validate", "-", "--format", "github", stdin=b"stores: {m: {type: memroy}}\n")
    assert "file=<stdin>,line=1," in done.out
    done = run("validate", "-", "-", stdin=b"stores: {m: {type: memory}}\n")
    assert done.status == 0
    done = run("validate", "-", stdin=b"stores: [\n")
    assert "error[SC10" in done.out
    assert "<stdin>:" in done.out


def test_a_layout_of_variables_alone(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "storeconf.yaml").unlink()
    assert run("show").status == 1
    monkeypatch.setenv("STORECONF__STORES__MAIN__TYPE", "memory")
    monkeypatch.setenv("STORECONF__STORES__MAIN__MIDDLEWARE__TTL", "3d")
    done = run("show", "--format", "json")
    assert done.json["stores"] == {"main": {"type": "memory", "middleware": {"ttl": "3d"}}}
    assert "variables alone" in run("tree").out
    assert run("ping", "main").status == 0
    monkeypatch.setenv("STORECONF_FILE", "missing.yaml")
    assert "SC101" in run("show").err


def test_several_environments_are_validated() -> None:
    both = run("validate", "--env", "a", "--env", "b", "--format", "json")
    assert both.status == 1
    assert [each["environments"] for each in both.json["diagnostics"]] == [["a"]]
    assert run("validate", "--env", "b", "--env", "c").status == 0
    assert "unknown environment 'z'" in run("validate", "--env", "b", "--env", "z").out


@pytest.mark.parametrize("command", ["show", "tree", "ping", "env"])
def test_one_environment_is_taken_elsewhere(command: str) -> None:
    done = run(command, "--env", "b", "--env", "c")
    assert done.status == 2
    assert "one environment" in done.err


# ---------------------------------------------------------------------- show, diff, env


def test_defaults_show_everything_in_force_and_can_be_read_again(directory: Path) -> None:
    done = run("show", "--defaults", "--env", "b", "--format", "json")
    stores = done.json["stores"]
    assert stores["main"]["durability"] == "flush"
    assert stores["sessions"]["namespace"] == "sessions"
    assert stores["sessions"]["middleware"]["ttl"] == {"default": "3d", "jitter": 0.0, "renew_on_get": False}
    assert stores["sessions"]["middleware"]["cache"]["max_age"] == "5s"
    assert stores["plain"]["middleware"] == {"ttl": False}
    assert stores["other"] == {"use": "sessions"}
    (directory / "again.json").write_text(done.out)
    for command in ("tree", "show"):
        first = run(command, "--env", "b", *(["--defaults"] if command == "show" else []), "--format", "json")
        again = run(command, "-f", "again.json", "--format", "json")
        assert again.status == 0
        drop = {"environment"}
        assert {k: v for k, v in first.json.items() if k not in drop} == {
            k: v for k, v in again.json.items() if k not in drop
        }


def test_defaults_have_origins() -> None:
    done = run("show", "--defaults", "--origins", "--env", "b", "--format", "json")
    origins = {each["path"]: (each["layer"], each["line"]) for each in done.json["origins"]}
    assert origins["stores.main.durability"] == (None, None)
    assert origins["stores.main.middleware.ttl.default"] == ("file", 3)
    assert origins["stores.sessions.middleware.ttl.default"] == ("file", 3)
    assert origins["stores.sessions.middleware.cache.max_age"] == ("file", 4)
    assert origins["stores.sessions.middleware.cache.max_entries"] == (None, None)


def test_two_files_are_compared(directory: Path) -> None:
    (directory / "new.yaml").write_text(LAYOUT.replace("3d", "4d"))
    done = run("diff", "storeconf.yaml", "./new.yaml", "--env", "b")
    assert done.status == 1
    assert "~ stores.main.middleware.ttl  3d → 4d" in done.out
    assert run("diff", "storeconf.yaml", "./storeconf.yaml", "--env", "c").status == 0
    done = run("diff", "storeconf.yaml", "new.yaml", "--env", "b", "--format", "json")
    assert (done.json["environments"], done.json["files"]) == (["b", "b"], ["storeconf.yaml", "new.yaml"])


@pytest.mark.parametrize(
    "words", [("a", "new.yaml"), ("b", "c", "--env", "a"), ("x.yaml", "y.yaml", "-f", "storeconf.yaml")]
)
def test_files_and_environments_are_not_mixed(words: tuple[str, ...]) -> None:
    assert run("diff", *words).status == 2


def test_every_variable_that_could_be_set_is_listed() -> None:
    done = run("env", "--env", "b", "--format", "json")
    listed = {each["variable"]: each["path"] for each in done.json["env"]}
    assert listed["STORECONF__STORES__MAIN__PATH_FILE"] == "stores.main.path"
    assert listed["STORECONF__STORES__MAIN__MIDDLEWARE__ENCRYPT__KEYS"] == "stores.main.middleware.encrypt.keys"
    assert listed["STORECONF__STORES__SESSIONS__MIDDLEWARE__BREAKER"] == "stores.sessions.middleware.breaker"
    assert listed["STORECONF__DEFAULT_FACTORY__MAX_STORES"] == "default_factory.max_stores"
    assert "STORECONF__STORES__OTHER__MIDDLEWARE" not in listed


def test_each_listed_variable_is_read(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in run("env", "--env", "b", "--format", "json").json["env"]:
        if each["path"] is None:
            continue
        with monkeypatch.context() as patch:
            patch.setenv(each["variable"], "0")
            found = run("validate", "--env", "b", "--format", "json").json["diagnostics"]
            assert not [each for each in found if each["code"] in ("SC301", "SC302", "SC304")]


# ---------------------------------------------------------------------- packages


BAD = """
stores:
  good: {type: memory}
  bad: {type: redis, url: "redis://127.0.0.1:1", namespace: a}
  below: {parent: bad}
  odd: {type: memory, middleware: {compress: zstd, encrypt: {keys: [a-long-key-that-nobody-knows-1234]}}}
"""


@pytest.fixture
def _no_packages(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "storeconf.yaml").write_text(BAD)
    for name in ("redis", "zstandard", "cryptography"):
        monkeypatch.setitem(sys.modules, name, None)


def without_packages(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command where some optional packages can't be imported."""
    code = (
        "import sys\n"
        "for name in ('redis', 'zstandard', 'cryptography'): sys.modules[name] = None\n"
        "from storeconf.cli import main\nmain()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.usefixtures("_no_packages")
def test_all_missing_packages_are_reported_at_once() -> None:
    done = run("validate", "--format", "json")
    assert done.status == 0
    assert [(each["path"], each["hint"]) for each in done.json["diagnostics"]] == [
        ("stores.bad.type", "pip install 'storeconf[redis]'"),
        ("stores.odd.middleware.compress", "pip install 'storeconf[zstd]'"),
        ("stores.odd.middleware.encrypt", "pip install 'storeconf[encrypt]'"),
    ]
    assert {each["code"] for each in done.json["diagnostics"]} == {"SC807"}
    assert run("validate", "--strict").status == 1
    assert run("show").err == ""


@pytest.mark.usefixtures("_no_packages")
def test_a_package_that_only_some_machines_lack_is_acknowledged(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "storeconf.yaml").write_text(f"{BAD}acknowledge: {{SC807: [stores.bad, stores.odd.middleware]}}\n")
    assert run("validate", "--strict").status == 0
    assert run("show").err == ""  # which does not look for packages
    monkeypatch.undo()
    monkeypatch.chdir(directory)
    assert run("validate", "--strict").status == 0


def test_ping_reaches_the_stores_whose_packages_are_there(directory: Path) -> None:
    (directory / "storeconf.yaml").write_text(BAD)
    done = without_packages("ping", "--format", "json", cwd=directory)
    assert done.returncode == 1
    results = {each["store"]: (each["ok"], each["error"]) for each in json.loads(done.stdout)["ping"]}
    assert list(results) == ["good", "bad", "below", "odd"]
    assert results["good"] == (True, None)
    for name in ("bad", "below"):
        assert results[name] == (False, "the package 'redis' is not installed: pip install 'storeconf[redis]'")
    assert "pip install" in str(results["odd"][1])
    assert without_packages("ping", "good", cwd=directory).returncode == 0
    assert without_packages("ping", "good", "below", cwd=directory).returncode == 1


@pytest.mark.parametrize(
    "store",
    [
        "{type: redis, url: 'redis://h', namespace: a}",
        "{type: memory, middleware: {compress: zstd}}",
        "{type: memory, middleware: {encrypt: {keys: [a-long-key-that-nobody-knows-1234]}}}",
    ],
)
def test_loading_without_a_package_is_one_error(directory: Path, store: str) -> None:
    (directory / "storeconf.yaml").write_text(f"stores: {{a: {store}}}\n")
    code = (
        "import sys, storeconf\n"
        "for name in ('redis', 'zstandard', 'cryptography'): sys.modules[name] = None\n"
        "storeconf.load()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=directory, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr.count("Traceback") == 1
    assert "pip install" in done.stderr.splitlines()[-1]


def test_ping_names_stores(directory: Path) -> None:
    (directory / "storeconf.yaml").write_text(BAD)
    done = run("ping", "good", "good", "--format", "json")
    assert done.status == 0
    assert [each["store"] for each in done.json["ping"]] == ["good"]
    assert run("ping", "bad").status == 1
    done = run("ping", "goood")
    assert done.status == 1
    assert "did you mean 'good'?" in done.err


# ---------------------------------------------------------------------- colours and paths


@pytest.mark.parametrize(
    ("variables", "colored"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"FORCE_COLOR": ""}, False),
    ],
)
def test_colours_in_a_log(directory: Path, variables: dict[str, str], colored: bool) -> None:
    done = process("validate", cwd=directory, environ={"NO_COLOR": "", "FORCE_COLOR": "", **variables})
    assert ("\x1b[" in done.both) is colored


def test_paths_are_relative_to_the_repository_or_absolute(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "wrong.yaml").write_text("stores: {m: {type: memroy}}\n")
    inside = directory / "app"
    inside.mkdir()
    (inside / "x.yaml").write_text("extends: [../wrong.yaml]\n")
    monkeypatch.chdir(inside)

    def named() -> tuple[str, str]:
        github = run("validate", "x.yaml", "--format", "github").out
        sarif = run("validate", "x.yaml", "--format", "sarif").json
        location = sarif["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
        return github.partition("file=")[2].partition(",")[0], location["artifactLocation"]["uri"]

    outside = directory / "wrong.yaml"
    assert named() == (str(outside), outside.as_uri())
    (directory / ".git").mkdir()
    assert named() == ("wrong.yaml", "wrong.yaml")
    (inside / ".git").write_text("gitdir: elsewhere\n")
    assert named() == ("wrong.yaml", "wrong.yaml")
    assert ".." not in os.path.relpath(directory / named()[0], directory)
