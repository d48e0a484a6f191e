"""A fresh virtual environment with storeconf, the repository's plugins and bad ones, all of them built as real wheels.

Made once for a run of the tests, whatever number of workers there are. What storeconf and the plugins depend on is
that of the tests' own environment, by a path file, so that nothing is fetched.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROJECTS = sorted(
    path.parent for place in ("plugins", "examples/plugins") for path in (ROOT / place).glob("*/pyproject.toml")
)
"""The distributions of this repository, and those that are examples."""

BACKEND = """
from typing import ClassVar, Literal
import storeconf
class Found(storeconf.Backend):
    type: Literal["{name}"] = "{name}"
    def build(self, context):
        return storeconf.MemoryStore()
"""

CANARY = """
import os, pathlib
pathlib.Path(os.environ["CANARY"]).touch()
"""


@dataclass(frozen=True)
class Plugin:
    """A distribution with one entry point and one module; ``target`` is what the entry point leads to in it."""

    distribution: str
    name: str
    source: str
    target: str = "Found"
    part: str = "backends"

    @property
    def module(self) -> str:
        return self.distribution.replace("-", "_")


BAD = (
    Plugin("bad-import", "boom", "raise RuntimeError('it went up in smoke')"),
    Plugin("bad-dependency", "lonely", "import nobody_has_this"),
    Plugin("bad-target", "lost", "", target="Elsewhere"),
    Plugin("bad-class", "odd", "class Found: type = 'odd'"),
    Plugin("bad-name", "named", BACKEND.format(name="otherwise")),
    Plugin("bad-middleware", "sieve", "class Found: kind = 'sieve'", part="middleware"),
    Plugin("bad-resolver", "oracle", "class Found: pass", part="resolvers"),
    Plugin("bad-version", "future", BACKEND.format(name="future") + "    api_version: ClassVar[int] = 99\n"),
    Plugin("bad-shadow", "memory", CANARY + BACKEND.format(name="memory")),
    Plugin("twin-one", "twin", BACKEND.format(name="twin")),
    Plugin("twin-two", "twin", BACKEND.format(name="twin")),
    Plugin("canary", "canary", CANARY + BACKEND.format(name="canary")),
)
"""Plugins with one fault each, and one that has none but leaves a trace when it is imported."""

BUILD = """
import os, sys
from hatchling.build import build_wheel
wheels, *projects = sys.argv[1:]
for project in projects:
    os.chdir(project)
    build_wheel(wheels)
"""


@dataclass(frozen=True)
class Environment:
    """The environment, and the wheels that went into it."""

    directory: Path

    @property
    def python(self) -> Path:
        return self.directory / "venv" / "bin" / "python"

    @property
    def wheels(self) -> list[Path]:
        return sorted((self.directory / "wheels").iterdir())

    def run(self, *command: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, with no variables of storeconf but those given."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("STORECONF", "PYTHON"))}
        return subprocess.run(
            [str(self.python.parent / command[0]), *command[1:]],
            cwd=cwd,
            env={**kept, "NO_COLOR": "1", "PYTHONWARNINGS": "error", "CANARY": str(cwd / "canary"), **environ},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    def storeconf(self, *arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
        return self.run("storeconf", *arguments, cwd=cwd, **environ)

    def validate(self, layout: str, cwd: Path, **environ: str) -> list[dict[str, Any]]:
        """The diagnostics of a layout in YAML."""
        (cwd / "storeconf.yaml").write_text(layout)
        done = self.storeconf("validate", "--format", "json", cwd=cwd, **environ)
        found: list[dict[str, Any]] = json.loads(done.stdout)["diagnostics"]
        assert done.returncode == int(any(each["severity"] == "error" for each in found)), done
        return found


def prepare(directory: Path) -> Environment:
    """Make the environment in ``directory``, or wait for the worker that does."""
    directory.mkdir(exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "ready").exists():
            _make(directory)
            (directory / "ready").touch()
    return Environment(directory)


def _make(directory: Path) -> None:
    wheels = directory / "wheels"
    projects = [*PROJECTS, *(_project(directory / "bad" / plugin.distribution, plugin) for plugin in BAD)]
    if (ROOT / "storeconf").is_dir():
        projects.append(ROOT)
    else:  # where tools/test-wheel runs the tests: without the source, beside the wheel that they test
        shutil.copytree(ROOT / "dist", wheels)
    _run(sys.executable, "-c", BUILD, wheels, *projects)
    _run(sys.executable, "-m", "venv", "--without-pip", directory / "venv")
    python = directory / "venv" / "bin" / "python"
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python, "--quiet", "--disable-pip-version-check"]
    _run(*pip, "install", "--no-index", "--no-deps", "--no-compile", *sorted(wheels.iterdir()))
    [site] = (directory / "venv" / "lib").glob("python3*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])


def _project(directory: Path, plugin: Plugin) -> Path:
    directory.mkdir(parents=True)
    (directory / f"{plugin.module}.py").write_text(plugin.source)
    (directory / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        f'[project]\nname = "{plugin.distribution}"\nversion = "1.5"\ndependencies = ["storeconf"]\n'
        f'[project.entry-points."storeconf.{plugin.part}"]\n{plugin.name} = "{plugin.module}:{plugin.target}"\n'
        f'[tool.hatch.build.targets.wheel]\ninclude = ["{plugin.module}.py"]\n'
    )
    return directory


def _run(*command: str | Path) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
