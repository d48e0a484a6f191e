"""The shape of the code: who imports whom, what importing costs, and which names are public."""

from __future__ import annotations

import ast
import gc
import importlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import storeconf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

PACKAGE = Path(storeconf.__file__).parent

# A module imports only from its own row and the rows before it (CONTRIBUTING.md shows the table in fewer rows).
ROWS: tuple[tuple[str, ...], ...] = (
    ("_litestar", "_pace", "_single_flight", "_text", "diagnostics", "diagnostics.codes"),
    ("_background", "_coherence", "diagnostics.render"),
    ("errors",),
    ("_arguments", "_lifecycle"),
    ("operations",),
    ("_contract", "_root", "plugin"),
    ("_get_or_set",),
    ("store",),
    ("stores.resp.errors", "stores.resp.options", "stores.file.format", "stores.file.system"),
    ("stores.resp.driver", "stores.resp.protocol", "stores.file.directory"),
    ("stores.resp.connect", "stores.resp.connection", "stores.file.reading", "stores.file.syncing"),
    ("stores.resp.keys", "stores.file.writing"),
    ("stores.resp.transport", "stores.file.operations"),
    ("stores.resp.bulk", "stores.resp.cluster", "stores.resp.sentinel", "stores.file.worker"),
    ("stores.resp.transports",),
    ("stores.resp", "stores.resp.store", "stores.file", "stores._space"),
    ("stores.memory",),
    ("stores", "backends", "backends.file", "backends.server"),
    ("middleware", "middleware._repeated"),
    (
        "middleware.cache",
        "middleware.coded",
        "middleware.metrics",
        "middleware.mirror",
        "middleware.moved_from",
        "middleware.outage",
        "middleware.refresh",
        "middleware.refusal",
        "middleware.resilience",
        "middleware.ttl",
    ),
    ("middleware.compress", "middleware.encrypt"),
    ("_handle", "_lock", "_typed"),
    ("config.language", "config.tree"),
    ("config.readers",),
    ("config.readers.json_reader", "config.readers.toml_places", "config.readers.yaml_errors"),
    ("config.readers.toml_reader", "config.readers.yaml_reader"),
    ("catalog", "config.document"),
    ("config.fields", "config.schema", "config"),
    ("config.merge", "plan"),
    ("config.layers",),
    ("config.secrets",),
    ("config.reporter",),
    ("config.addresses", "config.interpolate"),
    ("config.sources", "config.settings"),
    ("config.variables",),
    ("config.validate",),
    ("config.relations",),
    ("config.pipeline",),
    ("config.dump",),
    ("layout",),
    ("build", "registry"),
    ("_watch",),
    ("sync.stores",),
    ("sync",),
    ("transfer.dump_format",),
    ("transfer.endpoint",),
    ("integrations",),
    ("transfer", "integrations._sessions", "cli.output"),
    ("cli.completion", "cli.described"),
    (
        "integrations.django",
        "integrations.key_value",
        "integrations.limits",
        "integrations.litestar",
        "integrations.litestar_backed",
        "integrations.starlette",
        "cli.app",
    ),
    (
        "integrations.fastapi",
        "cli.authoring",
        "cli.changes",
        "cli.data",
        "cli.explain",
        "cli.graph",
        "cli.layout",
        "cli.move",
    ),
    ("cli", "__main__"),
    ("testing._suite",),
    ("testing._model", "testing._namespaces", "testing._values"),
    ("testing._concurrency", "testing._expiry", "testing._flight", "testing._lifecycle", "testing.stateful"),
    ("testing._atomic", "testing._sharing"),
    ("testing.conformance",),
    ("testing",),
    ("testing.fixtures",),
)
WITH_TYPES = {"backends", "cli", "config", "diagnostics", "integrations", "stores", "sync", "transfer"}
"""The packages in which not even imports for type checkers may point upwards."""

# What is imported only inside functions, at the caller's wish: conveniences that reach upwards on purpose.
LATE_AND_WANTED = {
    ("layout", "registry"),
    ("registry", "integrations"),
}


LONG = 450
"""Lines of a module that needs no reason for its length."""

PUBLIC_NAMES = Path(__file__).parent / "public_names.txt"
PUBLIC_MODULES = (
    "storeconf",
    "storeconf.integrations.django",
    "storeconf.integrations.fastapi",
    "storeconf.integrations.key_value",
    "storeconf.integrations.limits",
    "storeconf.integrations.litestar",
    "storeconf.integrations.starlette",
    "storeconf.stores",
    "storeconf.sync",
    "storeconf.testing",
)


def row(module: str) -> int:
    rows = [number for number, modules in enumerate(ROWS) if module in modules]
    assert len(rows) == 1, f"storeconf.{module} belongs to {len(rows)} rows: add it to the table here, in one row"
    return rows[0]


@cache
def parsed(path: Path) -> ast.Module:
    """The tree of a file, for all tests that look into it."""
    return ast.parse(path.read_text())


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of that tree."""
    return tuple(ast.walk(parsed(path)))


@cache
def called(path: Path) -> frozenset[str]:
    """What a file calls, as it is written there."""
    return frozenset(ast.unparse(node.func) for node in nodes_of(path) if isinstance(node, ast.Call))


@pytest.fixture(scope="module", autouse=True)
def _trees_are_let_go() -> Iterator[None]:
    """Else each run of the garbage collector in later tests would visit the hundreds of thousands of nodes."""
    yield
    for function in (parsed, nodes_of, called, imports):
        function.cache_clear()


@cache
def imports(path: Path) -> set[str]:
    """The storeconf modules that a file imports; what only type checkers import counts inside `WITH_TYPES`."""
    found: set[str] = set()
    skipped = {
        id(inner)
        for node in nodes_of(path)
        if isinstance(node, ast.If)
        and ast.unparse(node.test) == "TYPE_CHECKING"
        and not WITH_TYPES & {*module_of(path).split(".")}
        for inner in ast.walk(node)
    }
    for node in nodes_of(path):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("storeconf"):
            inner = (f"{node.module}.{alias.name}" for alias in node.names)
            found.update(name if name.removeprefix("storeconf.") in NAMES else node.module for name in inner)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.startswith("storeconf."))
    return {name.removeprefix("storeconf").removeprefix(".") for name in found} - {""}


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if module_of(path)]
NAMES = {module_of(path) for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=module_of)
def test_modules_import_only_from_rows_above(path: Path) -> None:
    module = module_of(path)
    for imported in imports(path):
        if (module.split(".")[0], imported.split(".")[0]) in LATE_AND_WANTED:
            continue
        assert row(imported) <= row(module), f"storeconf.{module} imports storeconf.{imported}, which stands below it"


def test_the_modules_of_config_import_each_other_in_no_cycle() -> None:
    graph = {module_of(path): imports(path) for path in MODULES if module_of(path).startswith("config.")}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module not in done and module in graph:
            for each in graph[module]:
                visit(each, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_loading_a_layout_goes_through_few_modules(tmp_path: Path) -> None:
    """The walk of data through the code: each change of module is a jump that a reader has to make, too."""
    file = tmp_path / "storeconf.yaml"
    file.write_text(
        "stores:\n  main: {type: memory, namespace: shop}\n  sessions:\n    parent: main\n    middleware: {ttl: 14d}\n"
    )
    storeconf.load(file, environ={})
    entered: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        inner = "<" in code.co_qualname.replace("<locals>", "")  # generator expressions and module bodies
        if event == "call" and code.co_filename.startswith(f"{PACKAGE}{os.sep}") and not inner:
            entered.append(module_of(Path(code.co_filename)))

    gc.collect()  # so that what earlier tests left behind is not freed on the way
    sys.setprofile(note)
    try:
        registry = storeconf.load(file, environ={})
    finally:
        sys.setprofile(None)
    assert registry.names() == ["main", "sessions"]
    reading = [name for name in entered if name == "layout" or name.startswith("config.")]
    assert len(set(reading)) <= 13
    assert sum(before != after for before, after in pairwise(reading)) <= 32
    assert len(set(entered)) <= 25
    assert sum(before != after for before, after in pairwise(entered)) <= 80


def loaded_after(code: str) -> set[str]:
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


CLIENTS = {
    "redis",
    "valkey",
    "hiredis",
    "click",
    "rich",
    "litestar",
    "key_value",
    "limits",
    "django",
    "importlib_metadata",
}


def test_importing_storeconf_imports_no_client_and_no_command_line() -> None:
    loaded = loaded_after("import storeconf")
    assert not loaded & (CLIENTS | {"yaml", "pydantic"})


def test_the_stores_alone_import_neither_yaml_nor_pydantic() -> None:
    loaded = loaded_after("from storeconf.stores import MemoryStore, FileStore\nfrom storeconf import StoreError")
    assert not loaded & (CLIENTS | {"yaml", "pydantic"})


def test_loading_a_layout_imports_only_what_it_names() -> None:
    loaded = loaded_after(
        "import storeconf\nstoreconf.load({'stores': {'a': {'type': 'memory'}, 'b': {'parent': 'a'}}}, environ={})"
    )
    assert not loaded & CLIENTS
    assert not {name for name in loaded if name.startswith(("storeconf.backends.server", "storeconf.stores.file"))}


def test_checking_a_layout_imports_no_event_loop_and_no_store(tmp_path: Path) -> None:
    file = tmp_path / "storeconf.yaml"
    file.write_text("stores: {a: {type: memory}, b: {type: file, path: var, create: true}, c: {parent: a}}\n")
    loaded = loaded_after(
        f"from storeconf.cli.app import storeconf\nstoreconf(['validate', {str(file)!r}], standalone_mode=False)"
    )
    assert "storeconf.config.pipeline" in loaded
    assert not loaded & {"asyncio", "ssl", "storeconf.store", "storeconf.registry"}
    assert not {name for name in loaded if name.startswith("storeconf.stores.")}


def test_every_public_name_can_be_imported_and_is_sorted() -> None:
    assert storeconf.__all__ == sorted(storeconf.__all__)
    for name in storeconf.__all__:
        assert getattr(storeconf, name) is not None
    assert set(storeconf.__all__) <= set(dir(storeconf))


def public_names() -> list[str]:
    """Each public name with its module, and what can be called or read on a store and on a registry."""
    names = [f"{module}.{name}" for module in PUBLIC_MODULES for name in importlib.import_module(module).__all__]
    for described in (storeconf.Store, storeconf.StoreRegistry, storeconf.Layout):
        members = {name for name in dir(described) if not name.startswith(("_", "do_"))}
        names += [f"storeconf.{described.__name__}.{name}" for name in members]
    return sorted(names)


def test_the_public_names_are_those_of_the_checked_in_list() -> None:
    """A change of this list is a change of the API, for the changelog; `python -m tests.test_structure` writes it."""
    assert public_names() == PUBLIC_NAMES.read_text().splitlines()


@pytest.mark.parametrize("path", MODULES, ids=module_of)
def test_a_long_module_gives_the_reason_at_its_top(path: Path) -> None:
    text = path.read_text()
    if text.count("\n") > LONG:
        reason = "Longer than other modules, because"
        assert reason in (ast.get_docstring(parsed(path)) or ""), f"{reason} …, in its docstring, or divide it"


def test_modules_reach_into_few_others() -> None:
    """Private attributes that no class of the same module has; the few that are left have a reason beside them."""
    assert len([found for path in MODULES for found in foreign_attributes(path)]) < 10


def foreign_attributes(path: Path) -> list[str]:
    """The accesses to private attributes of another module's objects."""
    nodes = nodes_of(path)
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and is_set_on_self(node)}
    return [
        f"{module_of(path)}:{node.lineno}: {node.attr}"
        for node in nodes
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr not in own
        and ast.unparse(node.value) not in ("self", "cls", "super()")
    ]


def is_set_on_self(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"


def test_only_the_redactor_makes_redacted_texts() -> None:
    """Type checkers let nothing else be printed: all others know the type in annotations alone, without casts."""
    makers = set()
    for path in MODULES:
        nodes = nodes_of(path)
        named = {node for node in nodes if isinstance(node, ast.Name) and node.id == "Redacted"}
        annotations = {
            each
            for node in nodes
            for part in (getattr(node, "annotation", None), getattr(node, "returns", None))
            if part is not None
            for each in ast.walk(part)
        }
        casts = [
            node
            for node in nodes
            if isinstance(node, ast.Call) and "cast" in ast.unparse(node.func) and "Redacted" in ast.unparse(node)
        ]
        attributes = [node for node in nodes if isinstance(node, ast.Attribute) and node.attr == "Redacted"]
        if named - annotations or casts or attributes:
            makers.add(module_of(path))
    assert makers == {"config.secrets"}


def test_nothing_but_redacted_texts_is_printed() -> None:
    """Each print call takes an argument of this type, or a local variable of it."""
    tree = parsed(PACKAGE / "cli/output.py")
    printing = set()
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        calls = [
            node for node in ast.walk(function) if isinstance(node, ast.Call) and is_printing(ast.unparse(node.func))
        ]
        named = [(node.arg, node.annotation) for node in ast.walk(function) if isinstance(node, ast.arg)]
        named += [
            (ast.unparse(node.target), node.annotation)
            for node in ast.walk(function)
            if isinstance(node, ast.AnnAssign)
        ]
        typed = {name for name, annotation in named if annotation is not None and ast.unparse(annotation) == "Redacted"}
        for call in calls:
            labels = [each.value for each in call.keywords if each.arg == "label"]
            what = ast.unparse(labels[0] if labels else call.args[0])
            assert what in typed, f"{function.name} prints {what}"
            printing.add(function.name)
    assert printing == {"_to_stdout", "_to_stderr", "progress"}


def test_diagnostics_are_made_by_the_redactor() -> None:
    """And of files that can't be read, whose lines their reader has masked, and whose values nobody knows."""
    makers = {module_of(path) for path in MODULES if "Diagnostic" in called(path)}
    assert makers == {"config.secrets", "config.document", "config.readers"}


def test_the_mask_is_written_once() -> None:
    """Else a mask that changes is no longer known where it is read."""
    where = {
        module_of(path)
        for path in MODULES
        for node in nodes_of(path)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "***" in node.value.replace("\\", "")
    }
    assert where == {"_text"}


PRINTING = ("print", "click.echo", "click.secho", "click.progressbar", "click.prompt", "click.confirm")


def test_the_command_line_prints_through_one_module() -> None:
    """All else would print what neither the redactor nor a dump has seen."""
    printing = {module_of(path) for path in MODULES if any(map(is_printing, called(path)))}
    # The suite of conformance tests reports to a stream that its caller gives it.
    assert printing == {"cli.output", "testing.conformance"}


def is_printing(function: str) -> bool:
    return function in PRINTING or re.fullmatch(r"sys\.(stdout|stderr)(\.buffer)?\.write(lines)?", function) is not None


def test_no_two_classes_have_one_name() -> None:
    counted = Counter(
        node.name.lstrip("_")
        for path in PACKAGE.rglob("*.py")
        for node in nodes_of(path)
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in counted.items() if count > 1] == []


def test_no_modules_import_each_other_in_a_cycle() -> None:
    """Imports for type checking count too, those inside functions do not."""
    graph = {module_of(path): top_level_imports(path) for path in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def top_level_imports(path: Path) -> set[str]:
    """The storeconf modules that a file imports outside of functions."""
    found: set[str] = set()
    waiting = list(parsed(path).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If):
            waiting += [*node.body, *node.orelse]
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("storeconf.") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "storeconf":
            module = node.module.removeprefix("storeconf").removeprefix(".")
            for alias in node.names:
                inner = f"{module}.{alias.name}".removeprefix(".")
                found.add(inner if inner in NAMES else module)
    return found & NAMES - {module_of(path)}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_such"):
        getattr(storeconf, "nothing_such")  # noqa: B009 - type checkers refuse the attribute itself


if __name__ == "__main__":
    PUBLIC_NAMES.write_text("".join(f"{name}\n" for name in public_names()))
