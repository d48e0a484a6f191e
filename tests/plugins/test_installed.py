"""Plugins as users have them: built as wheels, installed beside storeconf, used by its command and by programs."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.environment import BAD, PROJECTS, ROOT, Environment

PLUGINS = [plugin.module for plugin in BAD] + [project.name.replace("-", "_") for project in PROJECTS]

LAYOUT = """\
stores:
  jobs: {type: sqlite, path: var/jobs.sqlite, description: "${secretbox:nobody:-by default}"}
  quick: {type: lmdb, path: var/quick}
  kept: {type: key-value, store: disk, path: var/kept}
  sessions:
    parent: kept
    middleware: {audit: {keys: plain}, ttl: 1h}
"""

PROGRAM = """
import asyncio, json, logging, sys
import storeconf
logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s")

async def main():
    async with storeconf.load("storeconf.yaml") as registry:
        for name in ("jobs", "sessions", "quick"):
            await registry[name].set("k", "v")
        return [await registry["sessions"].expires_in("k"), (await registry["jobs"].increment("n"))]

print(json.dumps([asyncio.run(main()), storeconf.__file__]))
"""


def test_wheels_are_what_is_tested(installed: Environment, tmp_path: Path) -> None:
    done = installed.run("python", "-c", "import storeconf; print(storeconf.__file__)", cwd=tmp_path)
    assert str(installed.directory) in done.stdout
    assert len(installed.wheels) == 1 + len(PROJECTS) + len(BAD)


def test_a_layout_of_all_of_them_loads_and_runs(installed: Environment, tmp_path: Path) -> None:
    assert installed.validate(LAYOUT, tmp_path) == []
    done = installed.run("python", "-c", PROGRAM, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0] == [3600, 1]
    assert "storeconf.audit: set of sessions: done 'k'" in done.stderr
    value = installed.storeconf("get", "jobs", "k", cwd=tmp_path)
    assert (value.returncode, value.stdout) == (0, "v")
    tree = installed.storeconf("tree", cwd=tmp_path)
    assert tree.stdout.index("audit") < tree.stdout.index("ttl")


def test_a_secret_from_the_encrypted_file(installed: Environment, tmp_path: Path) -> None:
    key = installed.run("python", "-m", "storeconf_secretbox", "key", cwd=tmp_path).stdout.strip()
    box = "import sys, os; from pathlib import Path; from storeconf_secretbox import Box\n"
    box += "Box(Path('secrets.box')).write('password', 'hunter2', os.environ)"
    assert installed.run("python", "-c", box, cwd=tmp_path, SECRETBOX_KEY=key).returncode == 0
    layout = "stores:\n  a: {type: redis, url: redis://x, namespace: n, password: '${secretbox:password}'}\n"
    assert installed.validate(layout, tmp_path, SECRETBOX_KEY=key) == []
    shown = installed.storeconf("show", cwd=tmp_path, SECRETBOX_KEY=key)
    assert shown.returncode == 0
    assert "hunter2" not in shown.stdout
    [problem] = installed.validate(layout, tmp_path)
    assert "SECRETBOX_KEY is not set" in problem["message"]
    assert (problem["line"], problem["path"]) == (2, "stores.a.password")


BAD_KINDS: dict[str, tuple[str, str]] = {
    "boom": ("SC702", "RuntimeError: it went up in smoke"),
    "lonely": ("SC702", "No module named 'nobody_has_this'"),
    "lost": ("SC702", "Elsewhere"),
    "odd": ("SC703", "is not a subclass of storeconf.Backend"),
    "named": ("SC703", "has type 'otherwise'"),
    "future": ("SC704", "version 99 of storeconf's plugin API"),
    "twin": ("SC706", "twin-one 1.5 and twin-two 1.5"),
    "nobody": ("SC701", "unknown backend 'nobody'"),
}


def test_each_bad_backend_is_a_located_problem(installed: Environment, tmp_path: Path) -> None:
    lines = [f"  s-{kind}: {{description: x, type: {kind}}}" for kind in BAD_KINDS]
    found = installed.validate("\n".join(["stores:", *lines]), tmp_path)
    by_path = {each["path"]: each for each in found}
    assert set(by_path) == {f"stores.s-{kind}.type" for kind in BAD_KINDS}
    for number, (kind, (code, message)) in enumerate(BAD_KINDS.items(), 2):
        problem = by_path[f"stores.s-{kind}.type"]
        assert (problem["code"], problem["line"]) == (code, number)
        assert problem["column"] == lines[number - 2].index(kind, 20) + 1
        assert message in problem["message"]
        assert problem["hint"]


def test_bad_middleware_and_resolvers_are_located_problems(installed: Environment, tmp_path: Path) -> None:
    found = installed.validate(
        "stores:\n  a:\n    type: memory\n    middleware:\n      sieve: {}\n    description: ${oracle:x}\n", tmp_path
    )
    places = {each["code"] + each["path"]: (each["line"], each["column"]) for each in found}
    assert places["SC703stores.a.middleware.sieve"] == (5, 7)
    assert places["SC703stores.a.description"][0] == 6


def test_a_shadowed_built_in_is_used_and_the_shadow_is_told(installed: Environment, tmp_path: Path) -> None:
    stores = "stores: {a: {type: memory}, b: {type: canary}}"
    [warning] = installed.validate(stores, tmp_path)
    assert (warning["code"], warning["severity"], warning["path"]) == ("SC705", "warning", "stores.a.type")
    assert "bad-shadow 1.5 claims the name of the built-in backend 'memory'" in warning["message"]


@pytest.mark.parametrize("switch", ["1", "canary", "other, canary"])
def test_a_plugin_that_is_switched_off(installed: Environment, tmp_path: Path, switch: str) -> None:
    [problem] = installed.validate("stores: {b: {type: canary}}", tmp_path, STORECONF_DISABLE_PLUGINS=switch)
    assert problem["code"] == "SC707"
    assert "switched off by STORECONF_DISABLE_PLUGINS" in problem["message"]
    assert not (tmp_path / "canary").exists()


def test_layouts_of_built_in_kinds_scan_nothing_and_import_no_plugin(installed: Environment, tmp_path: Path) -> None:
    (tmp_path / "storeconf.yaml").write_text(
        "stores: {a: {type: memory, middleware: {ttl: 1h}}, b: {type: file, path: data}, c: {parent: a}}"
    )
    program = (
        "import sys, storeconf; storeconf.load('storeconf.yaml')\n"
        "from storeconf.catalog import _scan\n"
        "assert not _scan.cache_info().currsize, 'it scanned'\n"
        f"names = {{*{PLUGINS!r}, 'importlib_metadata'}}\n"
        "assert not names & set(sys.modules), names & set(sys.modules)\n"
    )
    done = installed.run("python", "-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "canary").exists()
    assert installed.validate("stores: {b: {type: canary}}", tmp_path) == []
    assert (tmp_path / "canary").exists()


def listed(installed: Environment, tmp_path: Path, **environ: str) -> dict[tuple[str, str | None], dict[str, Any]]:
    done = installed.storeconf("plugins", "--format", "json", cwd=tmp_path, **environ)
    assert done.returncode == 0, done.stderr
    return {(each["name"], each["distribution"]): each for each in json.loads(done.stdout)["plugins"]}


def test_the_list_of_plugins(installed: Environment, tmp_path: Path) -> None:
    found = listed(installed, tmp_path)
    sqlite = found["sqlite", "storeconf-sqlite"]
    assert (sqlite["part"], sqlite["state"], sqlite["version"]) == ("backend", "loaded", "0.1.0")
    assert sqlite["capabilities"]["persistent"]
    assert "increment" in sqlite["capabilities"]["atomic"]
    assert found["key-value", "storeconf-key-value"]["capabilities"]["atomic"] == []
    assert found["audit", "storeconf-audit"]["part"] == "middleware"
    assert found["secretbox", "storeconf-secretbox"]["part"] == "resolver"
    assert found["memory", None]["state"] == "built-in"
    for kind, (code, message) in BAD_KINDS.items():
        for plugin in BAD:
            if plugin.name == kind:
                entry = found[kind, plugin.distribution]
                assert entry["state"] == ("conflict" if code == "SC706" else "broken")
                assert message in entry["reason"]
    assert found["memory", "bad-shadow"]["state"] == "conflict"
    shown = installed.storeconf("plugins", cwd=tmp_path).stdout
    assert "it went up in smoke" in shown
    assert "without add, compare_and_set, increment, pop, renew, touch" in shown


def test_the_list_with_plugins_switched_off(installed: Environment, tmp_path: Path) -> None:
    found = listed(installed, tmp_path, STORECONF_DISABLE_PLUGINS="1")
    assert found["sqlite", "storeconf-sqlite"]["state"] == "disabled"
    assert found["boom", "bad-import"]["state"] == "disabled"
    assert not (tmp_path / "canary").exists()


def test_the_schema_holds_what_is_installed(installed: Environment, tmp_path: Path) -> None:
    done = installed.storeconf("schema", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    schema = done.stdout
    assert json.loads(schema)
    for text in ('"sqlite"', '"key-value"', '"audit"', "The database file; it is made when it is missing."):
        assert text in schema
    for text in ('"boom"', '"odd"', '"twin"'):
        assert text not in schema


@pytest.mark.slow
@pytest.mark.timeout(240)  # a whole suite each, on a machine that has other work
@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.name)
def test_the_plugins_own_tests_pass_on_the_wheels(installed: Environment, tmp_path: Path, project: Path) -> None:
    # A disk would only take longer: what survives a power cut can't be tested here.
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:valkey", "-c", str(project / "pyproject.toml")]
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        done = installed.run(
            *("python", "-m", "pytest", *options),
            *("--rootdir", str(project), "--import-mode=importlib", str(project / "tests")),
            cwd=tmp_path,
            PYTHONDONTWRITEBYTECODE="1",
            TMPDIR=directory,
        )
    assert done.returncode == 0, done.stdout[-4000:]
    assert str(ROOT / "storeconf") not in done.stdout
