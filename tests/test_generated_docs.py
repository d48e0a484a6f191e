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
PAGE = (ROOT / "docs/reference/diagnostics.md").read_text(encoding="utf-8")


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
    ("name", "path"), [("language", "docs/reference/language.md"), ("schema", "schemas/storeconf.v1.schema.json")]
)
def test_what_is_checked_in_is_what_the_models_say(name: str, path: str) -> None:
    made = getattr(module("generate"), name)()
    assert (ROOT / path).read_text(encoding="utf-8") == made, "run: python docs/generate.py"


def section(code: str) -> str:
    (found,) = (each for each in module("examples").sections(PAGE) if each.startswith(f"## {code}: "))
    return str(found)


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_an_example_that_says_what_the_page_says(code: str) -> None:
    text = section(code)
    title, _, body = text.partition("\n\n")
    assert title == f"## {code}: {CODES[code].title}"
    assert body.startswith(CODES[code].explanation)
    outputs = "".join(re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert f"[{code}]" in outputs
    assert module("examples").run_page(text) == text, "run: python docs/generate.py, and look at what changed"


def test_the_page_holds_the_codes_in_order_and_nothing_else() -> None:
    assert re.findall(r"^## (SC[0-9]+): ", PAGE, re.MULTILINE) == list(CODES)
    assert PAGE.count("\n## ") == len(CODES)
