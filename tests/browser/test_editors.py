"""The schema in the language servers of editors: what an author sees while writing a layout in YAML or TOML."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.lsp import editing
from tests.cli.running import run
from tests.test_docs import ROOT, blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.browser.lsp import Editor

SERVERS = Path(sys.prefix) / "editors"
"""Where `make test-browser` installs the language servers."""

KINDS = ("memory", "file", "redis", "valkey")
MIDDLEWARE = {"ttl", "fallback", "compress", "encrypt", "cache", "retry", "timeout", "breaker", "metrics", "read_only"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert (SERVERS / "node_modules").is_dir(), "needs language servers, which `make test-browser` installs"
    folder = tmp_path_factory.mktemp("editor").resolve()
    (folder / "storeconf.schema.json").write_text(run("schema").out)
    return folder


class Author:
    """Writes in an editor; a text may contain one ``|``, where the cursor is."""

    def __init__(self, editor: Editor, head: str) -> None:
        self._editor, self._head = editor, head

    def problems(self, text: str, *, wrong: bool = False) -> list[str]:
        """The messages about a text, which has some if it is ``wrong``, with the lines that it has here."""
        found = (each.split(": ", 1) for each in self._editor.open(self._head + text, wrong=wrong))
        return [f"{int(line) - 1}: {message}" for line, message in found]

    def _at(self, text: str) -> tuple[int, int]:
        before, _, after = (self._head + text).partition("|")
        self._editor.open(before + after)
        return before.count("\n"), len(before) - before.rfind("\n") - 1

    def completions(self, text: str) -> set[str]:
        """The names that are offered; those with dots go deeper."""
        return {label for label in self._editor.complete(*self._at(text)) if "." not in label}

    def hover(self, text: str) -> str:
        """What is shown at the cursor."""
        return self._editor.hover(*self._at(text))


@pytest.fixture(scope="module")
def yaml(folder: Path) -> Iterator[Author]:
    command = ["node", str(SERVERS / "node_modules/yaml-language-server/bin/yaml-language-server"), "--stdio"]
    settings = {"yaml": {"validate": True, "completion": True, "hover": True, "schemaStore": {"enable": False}}}
    with editing(command, folder, "yaml", settings) as editor:
        yield Author(editor, "# yaml-language-server: $schema=./storeconf.schema.json\n")


@pytest.fixture(scope="module")
def toml(folder: Path) -> Iterator[Author]:
    script = Path(__file__).parent / "taplo.cjs"
    # In WebAssembly, its recursion over a schema needs more than the usual stack.
    command = ["bash", "-c", f'ulimit -s unlimited; exec node --stack-size=30000 "{script}" "{SERVERS}"']
    with editing(command, folder, "toml", {"evenBetterToml": {"schema": {"enabled": True, "catalogs": []}}}) as editor:
        author = Author(editor, "#:schema ./storeconf.schema.json\n")
        while not author.problems("version = 2\n"):
            pass  # it answers before it has read the schema
        yield author


MISTAKES = {
    "stores:\n  main: {type: redsi}\n": ("redis",),
    "stores:\n  main: {type: memory, max_entry: 3}\n": ("max_entry",),
    "stores:\n  main: {type: memory, max_entries: -1}\n": ("minimum",),
    "stores:\n  main: {type: memory, max_entries: many}\n": ("integer", "${NAME}"),
    "stores:\n  main: {type: memory, middleware: {tttl: 3}}\n": ("tttl",),
    "stores:\n  main: {type: memory, middleware: {ttl: {defualt: 3}}}\n": ("defualt",),
    "stores:\n  main: {type: memory, middleware: {ttl: [3]}}\n": ("object", "number", "string"),
    "stores:\n  main: {type: memory, url: 'redis://x'}\n": ("url",),
    "stores:\n  main: {type: memory, parent: other}\n": ("parent",),
    "stores:\n  main: {parent: 3}\n": ("string",),
    "stores:\n  main: {parent: other, url: 'redis://x'}\n": ("url",),
    "stores:\n  main: {use: other, middleware: {}}\n": ("middleware",),
    "stores:\n  main: {type: redis, url: 'redis://x', cluster: ['a:1'], namespace: x}\n": ("not allowed",),
    "stores:\n  main: {type: redis, url: 'redis://x', namespace: x, tls: {verify: half}}\n": ("full", "chain", "none"),
    "stores:\n  main: {type: file, path: x, durability: hope}\n": ("flush", "fsync"),
    "stores:\n  a__b: {type: memory}\n": ("a__b",),
    "default_factory: forbidden\n": ("forbid",),
    "default_factory: {type: redsi}\n": KINDS,
    "environments:\n  production: {stores: {main: {tyype: redis}}}\n": ("tyype",),
    "version: 2\n": ("1",),
    "store: {}\n": ("store",),
}


@pytest.mark.parametrize("text", MISTAKES)
def test_one_mistake_gives_one_message(text: str, yaml: Author) -> None:
    (problem,) = yaml.problems(text, wrong=True)
    assert problem.startswith(f"{text.count(chr(10))}: ")
    assert all(part in problem for part in MISTAKES[text]), problem
    assert not any(name in problem for name in json.loads(run("schema").out)["definitions"] if "_" in name), problem


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('[stores.main]\ntype = "redsi"\n', KINDS),
        ('[stores.main]\ntype = "memory"\nmax_entry = 3\n', ("max_entry",)),
        ('[stores.main]\ntype = "memory"\nmax_entries = -1\n', ("minimum",)),
        ('[stores.main]\ntype = "memory"\nmiddleware.tttl = 3\n', ("tttl",)),
        ('[stores.main]\ntype = "memory"\nmiddleware.ttl.defualt = 3\n', ("defualt",)),
        ('[stores.main]\ntype = "memory"\nurl = "redis://x"\n', ("url",)),
        ("[stores.main]\nparent = 3\n", ("string",)),
        ('[default_factory]\ntype = "redsi"\n', KINDS),
        ('[environments.production.stores.main]\ntyype = "redis"\n', ("tyype",)),
        ("version = 2\n", ("1",)),
    ],
)
def test_one_mistake_gives_one_message_in_toml_too(text: str, parts: tuple[str, ...], toml: Author) -> None:
    (problem,) = toml.problems(text, wrong=True)
    assert all(part in problem for part in parts), problem
    assert "anyOf" not in problem


def test_a_wrong_type_names_all_kinds(yaml: Author) -> None:
    (problem,) = yaml.problems("stores:\n  main:\n    type: redsi\n", wrong=True)
    assert problem == '3: Value is not accepted. Valid values: "memory", "file", "redis", "valkey".'


GOOD = """
stores:
  main:
    type: redis
    url: ${REDIS_URL:-redis://localhost}
    namespace: shop
    tls: ${TLS}
  partly: {max_entries: 3, middleware: {ttl: 14d, metrics: false}}
  any: {type: "${TYPE}", whatever: 1}
  child: {parent: main, namespace: null}
  alias: {use: child}
  gone:
default_factory: forbid
environments:
  production:
"""


def test_an_empty_file_and_a_good_one_pass(yaml: Author, toml: Author) -> None:
    assert yaml.problems("") == yaml.problems("stores:\n") == yaml.problems(GOOD) == []
    assert toml.problems("") == []
    assert toml.problems('[stores.main]\ntype = "file"\npath = "x"\n[stores.child]\nparent = "main"\n') == []


def test_no_layout_of_the_documentation_has_a_problem(yaml: Author, toml: Author) -> None:
    """Those that the how-tos and the tutorial show as files; what storeconf accepts, an editor must not mark."""
    pages = [each for each in (ROOT / "docs/how-to").glob("*.md") if not each.name.startswith("write-")]  # of plugins
    pages += [ROOT / "docs/tutorial.md", ROOT / "README.md"]
    layouts = [
        each for page in pages for each in blocks(page) if re.search(r"^stores|^\[stores", each.body, re.MULTILINE)
    ]
    assert len(layouts) > 20
    for each in layouts:
        if each.title is not None and each.language in ("yaml", "toml") and "pyproject" not in each.title:
            author = {"yaml": yaml, "toml": toml}[each.language]
            assert author.problems(re.sub(r"\A#.*\n", "", each.body)) == [], each


def test_completion_offers_the_names_that_an_author_writes(yaml: Author) -> None:
    top = {"version", "extends", "unset", "stores", "default_factory", "environments", "$schema"}
    assert yaml.completions("|") >= top
    fresh = yaml.completions("stores:\n  main:\n    |\n")
    assert fresh >= {"type", "parent", "use", "namespace", "description", "middleware", "url"}
    assert not any(name.startswith(("store_", "factory_")) for name in fresh)
    assert fresh.isdisjoint({"child", "alias", "null"})
    assert yaml.completions("stores:\n  main:\n    type: |\n") == set(KINDS)
    memory = yaml.completions("stores:\n  main:\n    type: memory\n    |\n")
    assert memory >= {"max_entries", "max_size", "objects", "middleware"}
    assert memory.isdisjoint({"url", "path", "sentinel", "type"})
    assert yaml.completions("stores:\n  main:\n    parent: x\n    middleware:\n      |\n") >= MIDDLEWARE
    assert yaml.completions("stores:\n  main:\n    type: memory\n    middleware:\n      ttl:\n        |\n") == {
        "default",
        "max",
        "jitter",
        "renew_on_get",
    }
    assert yaml.completions("default_factory: |\n") == {"forbid"}
    assert yaml.completions("default_factory:\n  |\n") >= {"type", "parent", "use", "max_stores"}


def test_completion_offers_them_in_toml_too(toml: Author) -> None:
    assert toml.completions("|") >= {"version", "stores", "default_factory", "environments"}
    assert toml.completions("[stores.main]\n|\n") >= {"type", "parent", "use", "namespace", "middleware", "url"}
    assert toml.completions("[stores.main]\ntype = |\n") >= {f'"{kind}"' for kind in KINDS}
    assert toml.completions("[stores.main.middleware]\n|\n") >= MIDDLEWARE


def test_hovering_shows_the_documentation(yaml: Author, toml: Author) -> None:
    layout = "stores:\n  main:\n    type: redis\n    url: redis://x\n    middleware:\n      ttl:\n        max: 3d\n"
    shown = {
        "url": "One server: redis://",
        "middleware": "The chain around the store",
        "ttl": "Default and greatest expiries",
        "max": "The longest expiry",
        "type": "The kind of a root",
        "redis\n": "Keys and values on Redis, shared by all processes",
        "main": "Keys and values on Redis",
        "stores": "The stores by name.",
    }
    for name, text in shown.items():
        assert text in yaml.hover(layout.replace(name, f"{name[0]}|{name[1:]}", 1)), name
    layout = '[stores.main]\ntype = "redis"\nurl = "redis://x"\nmiddleware.ttl.max = "3d"\n'
    for name in ("url", "middleware", "ttl", "max", "type", "stores"):
        assert shown[name] in toml.hover(layout.replace(name, f"{name[0]}|{name[1:]}", 1)), name
    assert shown["redis\n"] in toml.hover(layout.replace('"redis', '"r|edis', 1))
