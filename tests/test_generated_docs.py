"""What the code knows best stands in the documentation as the code says it."""

from __future__ import annotations

import importlib
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import storeconf
from storeconf import errors
from storeconf.catalog import BUILT_IN
from storeconf.diagnostics.codes import CODES
from storeconf.transfer.endpoint import LEFT_OUT

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(storeconf.__file__).parent
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
        ("errors", "docs/reference/errors.md"),
        ("variables", "docs/reference/environment-variables.md"),
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


READS = re.compile(r"""(?:environ|variables)(?:\.get\(|\[)"([A-Z_]+)\"""")


def test_every_variable_that_the_code_reads_has_its_line() -> None:
    page = (ROOT / "docs/reference/environment-variables.md").read_text(encoding="utf-8")
    read = {name for path in PACKAGE.rglob("*.py") for name in READS.findall(path.read_text(encoding="utf-8"))}
    assert len(read) >= 5
    assert {name for name in read if f"| `{name}` |" not in page} == set()


@pytest.mark.parametrize("page", ["reference/rules.md", "how-to/write-a-middleware.md"])
def test_pages_list_middleware_in_its_order(page: str) -> None:
    assert ", ".join(BUILT_IN["middleware"]) in " ".join((ROOT / "docs" / page).read_text().split())


def test_the_page_of_the_commands_names_what_copies_leave_out() -> None:
    text = (ROOT / "docs/reference/command-line.md").read_text()
    left_out = text[text.index("## Move data") : text.index("are left out")]
    assert set(re.findall(r"`([a-z_]+)`", left_out)) == LEFT_OUT


def test_the_tree_of_the_errors_shows_each_below_its_base() -> None:
    """The tree is written by hand, in the docstring of the module."""
    tree = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8").split("```")[1].splitlines()
    above: list[str] = []
    shown = set()
    for line in filter(None, tree[1:]):
        match = re.match(r"^([│├└─ ]*)(\w+)(?:\((\w+)\))?", line)
        assert match is not None
        name, depth = match[2], len(match[1]) // 4
        above[depth:] = [name]
        bases = [above[depth - 1] if depth else "Exception", *([match[3]] if match[3] else [])]
        assert [base.__name__ for base in getattr(errors, name).__bases__] == bases
        shown.add(name)
    assert shown == {name for name in errors.__all__ if name.endswith("Error")}


def test_every_public_name_is_in_the_reference_of_the_api_once() -> None:
    """A name that is public in two modules is described where it comes from."""
    pages = [ROOT / "docs/reference/errors.md", *(ROOT / "docs/reference/api").glob("*.md")]
    described = [name for page in pages for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE)]
    assert len(set(described)) == len(described)
    documented = {id(resolved(name)) for name in described}
    modules = (
        "",
        ".integrations.fastapi",
        ".integrations.litestar",
        ".integrations.starlette",
        ".sync",
        ".testing",
        ".transfer",
    )
    for module in (importlib.import_module(f"storeconf{each}") for each in modules):
        assert {name for name in module.__all__ if id(getattr(module, name)) not in documented} == set(), module


def resolved(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return (
        importlib.import_module(name)
        if name == "storeconf.transfer"
        else getattr(importlib.import_module(module), attribute)
    )


def outputs(text: str) -> str:
    return "".join(re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def test_every_code_has_a_page_and_no_page_is_left_of_another() -> None:
    assert sorted(page.stem for page in PAGES.iterdir()) == [*CODES, "index"]
