"""constraints.txt: every package that developers and CI install has its version there, and nothing else is."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LINES = (ROOT / "constraints.txt").read_text().splitlines()
VERSIONS = dict(line.split("==") for line in LINES)


def declared() -> list[Requirement]:
    """The requirements of pyproject.toml: its own, those of the extras, and those of all groups."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = [*project["project"]["optional-dependencies"].values(), *project["dependency-groups"].values()]
    texts = [*project["project"]["dependencies"], *(each for group in groups for each in group)]
    return [Requirement(each) for each in texts if isinstance(each, str)]


def test_each_line_is_a_name_and_a_version_in_order() -> None:
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in LINES)
    assert list(VERSIONS) == sorted(VERSIONS)
    assert len(VERSIONS) == len(LINES)


def test_what_pyproject_names_is_pinned_in_its_range_and_open_above() -> None:
    for requirement in declared():
        assert requirement.specifier.contains(VERSIONS[canonicalize_name(requirement.name)]), requirement
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not [each for each in project["dependencies"] if "<" in each.partition(";")[0] or "==" in each]


def test_all_that_is_installed_for_it_is_pinned() -> None:
    """Run `make update` if a package is missing here."""
    waiting, seen = declared(), set()
    while waiting:
        requirement = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        for extra in ("", *requirement.extras):
            name = canonicalize_name(requirement.name)
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                needed = distribution(name).requires or []
            except PackageNotFoundError:
                continue  # of a group that is not installed here
            assert name in VERSIONS
            if distribution(name).version != VERSIONS[name]:
                continue  # which needs other packages, as under `make test-newest`
            each = [Requirement(text) for text in needed]
            waiting += [one for one in each if one.marker is None or one.marker.evaluate({"extra": extra})]
