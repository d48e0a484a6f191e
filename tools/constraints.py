"""Writes constraints.txt: for every package that developers and CI install, the newest version that fits.

One file holds for all versions of Python that storeconf supports: what the oldest of them resolves to also constrains
the others, which add the packages that they alone need.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "constraints.txt"
GROUPS = ("build", "dev", "docs", "bench")


def run(*command: str | Path) -> str:
    return subprocess.run(
        [str(each) for each in command], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def resolve(version: str, known: dict[str, str]) -> dict[str, str]:
    """The packages and versions that Python ``version`` would install, with those that are known already."""
    interpreter = run("tools/find-python", version).strip()
    with tempfile.TemporaryDirectory() as directory:
        python = Path(directory, "venv", "bin", "python")
        constraints = Path(directory, "known.txt")
        constraints.write_text(render(known))
        run(interpreter, "-m", "venv", Path(directory, "venv"))
        pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", constraints)
        run(*pip, "--upgrade", "pip")
        groups = [argument for group in GROUPS for argument in ("--group", group)]
        report = Path(directory, "report.json")
        run(*pip, "--dry-run", "--ignore-installed", "--report", report, "--editable", ".", "pip", *groups)
        installs = json.loads(report.read_text())["install"]
    found = {re.sub(r"[-_.]+", "-", each["metadata"]["name"]).lower(): each["metadata"]["version"] for each in installs}
    found.pop("storeconf")
    return found


def render(versions: dict[str, str]) -> str:
    return "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))


def main(pythons: list[str]) -> None:
    versions: dict[str, str] = {}
    for python in pythons:
        versions |= resolve(python, versions)
        print(f"Python {python}: {len(versions)} packages")
    FILE.write_text(render(versions))


if __name__ == "__main__":
    main(sys.argv[1:])
