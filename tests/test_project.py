"""The project around the code: workflows, versions and sizes agree with each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from storeconf import __version__

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def targets() -> set[str]:
    """The targets of the Makefile, each version of Python in its own."""
    text = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"^([a-z][a-z.-]*):", text, re.MULTILINE))
    return named | {f"test-{version}" for version in versions()}


def versions() -> list[str]:
    versions = re.search(r"^VERSIONS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert versions is not None
    return versions[1].split()


def commands(workflow: Path) -> set[str]:
    """The targets that a workflow makes, each value of its matrix in its place."""
    text = workflow.read_text()
    made = set(re.findall(r"\bmake ([a-z0-9.-]+)", text))
    for job in yaml.safe_load(text)["jobs"].values():
        matrix = job.get("strategy", {}).get("matrix", {})
        made |= {*matrix.get("target", ()), *(each["target"] for each in matrix.get("include", ()))}
    return made


def test_ci_makes_the_targets_that_the_workflows_make() -> None:
    script = (ROOT / ".ci/run").read_text()
    local = set(re.findall(r"^ *timed make \"?([a-z0-9.-]+[a-z0-9])", script, re.MULTILINE)) - {"test"}
    assert local | {f"test-{version}" for version in versions()} == commands(ROOT / ".github/workflows/ci.yml")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_makes_what_there_is_and_may_do_little(workflow: Path) -> None:
    assert commands(workflow) <= targets()
    content = yaml.safe_load(workflow.read_text())
    assert content["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 60 for job in content["jobs"].values())


def test_the_versions_of_python_are_the_same_everywhere() -> None:
    prefix = "Programming Language :: Python :: "
    assert [
        each.removeprefix(prefix) for each in PROJECT["classifiers"] if re.match(rf"{prefix}3\.", each)
    ] == versions()
    assert PROJECT["requires-python"] == f">={versions()[0]}"


def test_the_version_is_among_the_supported_ones() -> None:
    minor = ".".join(__version__.split(".")[:2])
    assert f"| {minor} |" in (ROOT / "SECURITY.md").read_text()


def test_test_files_are_short_enough_to_be_read() -> None:
    long = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("*.py")
        if len(path.read_text().splitlines()) > 600
    }
    assert long == set(), "divide them by subject"
