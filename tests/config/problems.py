"""YAML texts with the token marked that a diagnostic must point at: ⟦…⟧."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from storeconf.catalog import Catalog
from storeconf.layout import CheckResult, check_layout

if TYPE_CHECKING:
    from storeconf.diagnostics import Diagnostic


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def check(
    text: str, *, catalog: Catalog | None = None, environ: dict[str, str] | None = None, **given: Any
) -> CheckResult:
    """Examine a YAML text as a file."""
    Path("storeconf.yaml").write_text(dedent(text).replace("⟦", "").replace("⟧", ""))
    return check_layout("storeconf.yaml", environ=environ or {}, catalog=catalog or Catalog.builtin(), **given)


def span(text: str) -> tuple[int, int, int, int]:
    """The marked token: line and column of its begin and end."""
    lines = dedent(text).splitlines()
    (number,) = (number for number, line in enumerate(lines, 1) if "⟦" in line)
    line = lines[number - 1]
    return number, line.index("⟦") + 1, number, line.index("⟧")


def marked(each: Diagnostic) -> tuple[int | None, int | None, int | None, int | None]:
    return each.line, each.column, each.end_line, each.end_column


def the_error(text: str, **given: Any) -> Diagnostic:
    report = check(text, **given)
    assert report.layout is None
    (found,) = report.diagnostics
    assert found.severity == "error"
    return found


@dataclass(frozen=True)
class Case:
    text: str
    code: str
    message: str
    hint: str | None = None
    path: str | None = None


def case(name: str, text: str, code: str, message: str, hint: str | None = None, path: str | None = None) -> Any:
    return pytest.param(Case(text, code, message, hint, path), id=name)
