"""Layouts for the tests of layers, written to a directory and put together without the process's variables."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from storeconf.catalog import Catalog
from storeconf.config import Request
from storeconf.config.pipeline import Assembly
from storeconf.config.pipeline import assemble as put_together
from storeconf.config.tree import Tainted
from storeconf.layout import working_directory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from storeconf.diagnostics import Finding, Origin

__all__ = ["Workplace", "assemble", "events", "place", "tainted"]


def assemble(
    source: Any = None,
    *,
    environment: str | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Any = None,
    catalog: Catalog | None = None,
    without_secrets: bool = False,
) -> Assembly:
    """Put a layout together; ``environ`` None: with the process's variables."""
    variables = os.environ if environ is None else environ
    catalog = catalog or Catalog.builtin()
    return put_together(
        Request(source, environment, overrides, variables, catalog, working_directory(), without_secrets)
    )


class Workplace:
    """A working directory with the files of layouts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, **files: str) -> Workplace:
        """Write files whose names have ``__`` for a dot."""
        for name, text in files.items():
            self.file(name.replace("__", "."), text)
        return self

    def file(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def assemble(
        self,
        source: Any = "storeconf.yaml",
        environment: str | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        overrides: Any = None,
        catalog: Catalog | None = None,
        without_secrets: bool = False,
    ) -> Assembly:
        return assemble(
            source,
            environment=environment,
            environ=environ or {},
            overrides=overrides,
            catalog=catalog,
            without_secrets=without_secrets,
        )

    def tree(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The tree of a layout without problems."""
        assembly = self.assemble(*args, **kwargs)
        assert not assembly.report.found, [str(problem) for problem in assembly.report.found]
        return assembly.tree

    def problem(self, *args: Any, **kwargs: Any) -> Finding:
        """The only problem of a layout."""
        assembly = self.assemble(*args, **kwargs)
        assert len(assembly.report.found) == 1, [str(problem) for problem in assembly.report.found]
        return assembly.report.found[0]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    monkeypatch.chdir(tmp_path)
    return Workplace(tmp_path)


def tainted(tree: Any) -> dict[str, str]:
    """What may be shown of each secret text in a tree."""
    inside = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    found = {str(tree): tree.shown} if isinstance(tree, Tainted) and tree.hidden else {}
    for each in inside:
        found |= tainted(each)
    return found


def place(problem: Finding | Mapping[str, Any]) -> tuple[str | None, int | None, int | None]:
    """Where a problem is, without its end."""
    if isinstance(problem, dict):
        return problem.get("file"), problem.get("line"), problem.get("column")
    return problem.file, problem.line, problem.column  # type: ignore[union-attr]


def events(origin: Origin | None) -> list[tuple[str, str, object]]:
    """A history as layer, place and value, highest first; what was removed has the value Ellipsis."""
    found = []
    while origin is not None:
        found.append((origin.layer, str(origin), ... if origin.removed else origin.value))
        origin = origin.shadowed
    return found
