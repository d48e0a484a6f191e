"""The users of each integration are clean for pyright in its strict mode; mypy checks them with all other tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import storeconf

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment in which nothing is installed, Litestar least of all."""
    where = tmp_path_factory.mktemp("bare")
    venv.create(where, symlinks=True)
    return where / "bin" / "python"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with nothing but storeconf in it, the checkout's or the installed one."""
    where = tmp_path_factory.mktemp("alone")
    (where / "storeconf").symlink_to(Path(storeconf.__file__).parent)
    return where


def pyright(project: Path, python: str | Path) -> tuple[list[str], int]:
    """What pyright finds, and how many files it looked at."""
    command = [sys.executable, "-m", "pyright", "--project", str(project), "--pythonpath", str(python), "--outputjson"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    report = json.loads(done.stdout)
    problems = [
        f"{Path(each['file']).name}:{each['range']['start']['line'] + 1}: {each['message']}"
        for each in report["generalDiagnostics"]
    ]
    return problems, report["summary"]["filesAnalyzed"]


@pytest.mark.slow
def test_pyright_finds_nothing() -> None:
    assert pyright(HERE, sys.executable) == ([], len(list(HERE.glob("users_of_*.py"))))


@pytest.mark.slow
def test_the_types_of_the_package_are_complete(tmp_path: Path) -> None:
    """No checker has to infer a type of the package; add the annotation that this asks for."""
    command = [sys.executable, "-m", "pyright", "--verifytypes", "storeconf", "--ignoreexternal", "--outputjson"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    report = json.loads(done.stdout)["typeCompleteness"]
    incomplete = [
        f"{symbol['name']}: {each['message']}"
        for symbol in report["symbols"]
        for each in symbol.get("diagnostics", ())
        if symbol["isExported"] and not (symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"])
    ]
    assert incomplete == []
    assert report["completenessScore"] == 1


@pytest.mark.slow
def test_pyright_is_as_strict_where_litestar_is_not_installed(bare: Path, alone: Path, tmp_path: Path) -> None:
    settings = json.loads((HERE / "pyrightconfig.json").read_text())
    settings |= {"extraPaths": [str(alone)]}
    shutil.copy(HERE / "users_of_stores.py", tmp_path)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    assert pyright(tmp_path, bare) == ([], 1)


MISSPELT = """\
import storeconf
import storeconf.stores
from storeconf import Stroe
from storeconf.stores import MemoryStroe

storeconf.laod("x.yaml")
storeconf.stores.FileStroe("var")
registry = storeconf.load("x.yaml")
registry.regsiter("a", storeconf.MemoryStore())
"""
NAMES = ["Stroe", "MemoryStroe", "laod", "FileStroe", "regsiter"]


@pytest.mark.slow
def test_both_type_checkers_report_each_misspelt_name(tmp_path: Path) -> None:
    (tmp_path / "misspelt.py").write_text(MISSPELT)
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--config-file=", f"--cache-dir={tmp_path}"]
    done = subprocess.run(
        [*command, "misspelt.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=110
    )
    assert [name for name in NAMES if f'"{name}"' not in done.stdout] == [], done.stdout + done.stderr
    settings = {"include": ["misspelt.py"], "extraPaths": [str(alone)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    problems, _ = pyright(tmp_path, sys.executable)
    assert [name for name in NAMES if not any(f'"{name}"' in problem for problem in problems)] == [], problems


@pytest.mark.slow
def test_mypy_is_as_strict_where_litestar_is_not_installed(bare: Path, alone: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--config-file=",
        f"--cache-dir={tmp_path}",
    ]
    command += [f"--python-executable={bare}", "users_of_stores.py"]
    environ = {"MYPYPATH": str(alone), "PATH": ""}
    done = subprocess.run(command, cwd=HERE, env=environ, capture_output=True, text=True, check=False, timeout=110)
    assert done.stdout == "Success: no issues found in 1 source file\n", done.stdout + done.stderr
