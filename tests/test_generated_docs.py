"""What the code knows best stands in the documentation as the code says it."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from storeconf.config.codes import CODES

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs/reference/diagnostics"


@cache
def module(name: str) -> ModuleType:
    """A module of the documentation's own tools."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("language", "docs/reference/language.md"),
        ("schema", "schemas/storeconf.v1.schema.json"),
        ("diagnostics", "docs/reference/diagnostics/index.md"),
    ],
)
def test_what_is_checked_in_is_what_the_models_say(name: str, path: str) -> None:
    made = getattr(module("generate"), name)()
    assert (ROOT / path).read_text(encoding="utf-8") == made, "run: python docs/generate.py"


@pytest.mark.parametrize("code", CODES)
def test_the_page_of_a_code_says_what_its_examples_say(code: str) -> None:
    text = (PAGES / f"{code}.md").read_text(encoding="utf-8")
    assert module("generate").diagnostic(code) == text, "run: python docs/generate.py, and look at what changed"


@pytest.mark.parametrize("code", CODES)
def test_the_page_of_a_code_fails_first_and_then_mends_it(code: str) -> None:
    text = (PAGES / f"{code}.md").read_text(encoding="utf-8")
    failing, _, mended = text.partition("## How to fix it\n")
    assert f"[{code}]" in outputs(failing)
    assert not re.search(r"(error|warning)\[", outputs(mended))
    assert re.search(r"^\$ .*(storeconf|python) ", outputs(mended), re.MULTILINE)


def outputs(text: str) -> str:
    return "".join(re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def test_every_code_has_a_page_and_no_page_is_left_of_another() -> None:
    assert sorted(page.stem for page in PAGES.iterdir()) == [*CODES, "index"]
