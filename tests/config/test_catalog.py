"""Which names lead to which classes, with plugins as real distributions on the path."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, ClassVar, Literal

import pytest

from storeconf.catalog import BUILT_IN, GROUPS, Catalog, CatalogEntry
from storeconf.errors import ConfigError, PluginError
from storeconf.layout import Layout, read_layout
from storeconf.plugin import Backend, Middleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from storeconf.plugin import ResolveContext

    Install = Callable[..., None]

BACKEND = """
from typing import ClassVar, Literal
from storeconf.plugin import Backend

class {name}(Backend):
    api_version: ClassVar[int] = {version}
    type: Literal["{type}"] = "{type}"
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put tiny distributions on the path: their metadata, and one module each."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = []

    def make(distribution: str, module: str, code: str, *points: str, version: str = "1.0") -> None:
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text("\n".join(points) + "\n")
        modules.append(module)
        sys.modules.pop(module, None)
        # A new entry is a new path, so the scan that is cached for the old one does not count.
        monkeypatch.syspath_prepend(str(info))

    yield make
    for module in modules:
        sys.modules.pop(module, None)


def the_entry(catalog: Catalog, name: str) -> CatalogEntry:
    (entry,) = (entry for entry in catalog.entries() if entry.name == name)
    return entry


def failure(find: Callable[[str], object], name: str) -> PluginError:
    with pytest.raises(PluginError) as caught:
        find(name)
    return caught.value


def test_a_working_plugin(install: Install) -> None:
    code = BACKEND.format(name="Lite", version=1, type="lite")
    install("acme-lite", "acme_lite", code, "[storeconf.backends]", "lite = acme_lite:Lite", version="2.5")
    catalog = Catalog.installed()
    assert catalog.backend("lite").__name__ == "Lite"
    assert "lite" in catalog.backend_names()
    entry = the_entry(catalog, "lite")
    assert (entry.part, entry.state, entry.distribution, entry.version) == ("backend", "loaded", "acme-lite", "2.5")
    assert entry.value == "acme_lite:Lite"
    assert entry.capabilities is not None
    assert entry.to_dict()["capabilities"]["atomic"] == []
    assert entry.reason is None


def test_a_plugin_is_imported_only_when_asked_for(install: Install) -> None:
    code = BACKEND.format(name="Lazy", version=1, type="lazy")
    install("acme-lazy", "acme_lazy", code, "[storeconf.backends]", "lazy = acme_lazy:Lazy")
    catalog = Catalog.installed()
    assert "lazy" in catalog.backend_names()
    assert catalog.backend("memory")
    assert "acme_lazy" not in sys.modules
    assert catalog.backend("lazy")
    assert "acme_lazy" in sys.modules


def test_built_in_names_need_no_scan() -> None:
    code = "from storeconf.catalog import Catalog\nimport sys\nCatalog.installed().backend('memory')\n"
    code += "assert 'importlib_metadata' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_scan_is_made_once(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib_metadata

    install("acme-once", "acme_once", "", "[storeconf.backends]", "once = acme_once:Once")
    scans = []
    real = importlib_metadata.distributions

    def counted(**given: list[str]) -> Iterable[object]:
        scans.append(given)
        return real(**given)

    monkeypatch.setattr(importlib_metadata, "distributions", counted)
    for name in ("once", "nothing"):
        failure(Catalog.installed().backend, name)
    assert Catalog.installed().middleware_names()
    assert len(scans) == 1


def test_an_unknown_name_lists_what_there_is_and_what_is_near(install: Install) -> None:
    install("acme-lite", "acme_near", "", "[storeconf.backends]", "litestore = acme_near:Lite")
    error = failure(Catalog.installed().backend, "redsi")
    assert error.code == "SC701"
    assert str(error.args[0]) == "unknown backend 'redsi'"
    assert error.hint is not None
    assert "did you mean 'redis'?" in error.hint
    error = failure(Catalog.installed().backend, "dynamo")
    assert error.hint is not None
    assert "memory, file, redis, valkey, litestore" in error.hint
    assert "entry point 'dynamo' in 'storeconf.backends'" in error.hint
    assert "acme_near" not in sys.modules


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("raise RuntimeError('out of luck')", "RuntimeError: out of luck"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("class Skipped(BaseException): pass\nraise Skipped('not here')", "Skipped: not here"),
        ("x = 1", "AttributeError: module 'acme_bad' has no attribute 'Bad'"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_a_plugin_that_breaks_at_import(install: Install, code: str, cause: str) -> None:
    install("acme-bad", "acme_bad", code, "[storeconf.backends]", "bad = acme_bad:Bad")
    catalog = Catalog.installed()
    error = failure(catalog.backend, "bad")
    assert error.code == "SC702"
    assert "entry point 'bad' = 'acme_bad:Bad' of acme-bad 1.0" in str(error)
    assert cause in str(error)
    assert error.__cause__ is not None
    assert catalog.backend("memory")
    entry = the_entry(catalog, "bad")
    assert entry.state == "broken"
    assert entry.reason is not None
    assert cause in entry.reason


@pytest.mark.parametrize(
    ("group", "name", "code", "fault"),
    [
        ("storeconf.backends", "odd", "class Odd: pass", "is not a subclass of storeconf.Backend"),
        ("storeconf.backends", "odd", "Odd = 3", "is not a subclass of storeconf.Backend"),
        ("storeconf.backends", "odd", BACKEND.format(name="Odd", version=1, type="other"), "has type 'other'"),
        ("storeconf.middleware", "odd", "class Odd: pass", "is not a subclass of storeconf.Middleware"),
        (
            "storeconf.middleware",
            "odd",
            "from storeconf.plugin import Middleware\nclass Odd(Middleware):\n    kind = 'even'",
            "has kind 'even'",
        ),
        ("storeconf.middleware", "odd", "from storeconf.plugin import Middleware as Odd", "has no kind: write kind"),
        ("storeconf.resolvers", "odd", "class Odd: pass", "has no resolve(argument, context)"),
        (
            "storeconf.resolvers",
            "odd",
            "class Odd:\n    def __init__(self, x): pass",
            "can't be made without arguments",
        ),
    ],
)
def test_a_plugin_of_the_wrong_class(install: Install, group: str, name: str, code: str, fault: str) -> None:
    install("acme-odd", "acme_odd", code, f"[{group}]", f"{name} = acme_odd:Odd")
    catalog = Catalog.installed()
    part = next(part for part in GROUPS if GROUPS[part] == group)
    find = {"backend": catalog.backend, "middleware": catalog.middleware, "resolver": catalog.resolver}[part]
    error = failure(find, name)
    assert error.code == "SC703"
    assert fault in str(error)
    assert error.hint == "report this to the author of acme-odd"
    assert the_entry(catalog, name).state == "broken"


def test_a_middleware_may_be_declared_like_a_backend(install: Install) -> None:
    code = """
from typing import ClassVar, Literal
from storeconf import Middleware

class Mark(Middleware):
    kind: Literal["mark"] = "mark"
    shorthand_field: ClassVar[str] = "sign"
    before: ClassVar[str] = "ttl"
    sign: str = "!"

    def wrap(self, inner, context):
        return inner
"""
    install("acme-mark", "acme_mark", code, "[storeconf.middleware]", "mark = acme_mark:Mark")

    def layout(mark: object) -> Layout:
        chain = {"ttl": "1m", "read_only": True, "mark": mark}
        return read_layout({"stores": {"a": {"type": "memory", "middleware": chain}}}, environ={})

    (step,) = layout("?").plan().steps
    assert [kind for kind, _ in step.chain] == ["read_only", "mark", "ttl"]
    assert step.chain[1][1].model_dump() == {"sign": "?"}
    with pytest.raises(ConfigError, match="has no field 'kind'"):
        layout({"kind": "mark"})


def test_a_plugin_for_another_version_of_the_api(install: Install) -> None:
    code = BACKEND.format(name="Future", version=99, type="future")
    install("acme-future", "acme_future", code, "[storeconf.backends]", "future = acme_future:Future")
    error = failure(Catalog.installed().backend, "future")
    assert error.code == "SC704"
    assert "version 99" in str(error)
    assert "acme-future" in str(error)


def test_two_distributions_that_claim_one_name(install: Install) -> None:
    code = BACKEND.format(name="Twin", version=1, type="twin")
    install("acme-one", "acme_one", code, "[storeconf.backends]", "twin = acme_one:Twin")
    install("acme-two", "acme_two", code, "[storeconf.backends]", "twin = acme_two:Twin", version="3")
    catalog = Catalog.installed()
    error = failure(catalog.backend, "twin")
    assert error.code == "SC706"
    assert "acme-one 1.0" in str(error)
    assert "acme-two 3" in str(error)
    assert [entry.state for entry in catalog.entries() if entry.name == "twin"] == ["conflict", "conflict"]
    assert catalog.backend("memory")
    assert catalog.without_plugins("acme-one").backend("twin").__module__ == "acme_two"


def test_an_older_copy_of_a_distribution_further_down_the_path_is_no_rival(install: Install) -> None:
    code = BACKEND.format(name="Lite", version=1, type="copied")
    install("acme-copied", "acme_copied", code, "[storeconf.backends]", "copied = acme_copied:Lite", version="2.0")
    install("acme-copied", "acme_copied", code, "[storeconf.backends]", "copied = acme_copied:Lite", version="1.0")
    assert Catalog.installed().backend("copied")


def test_a_built_in_name_cannot_be_taken(install: Install) -> None:
    code = BACKEND.format(name="Mine", version=1, type="memory")
    install("acme-mine", "acme_mine", code, "[storeconf.backends]", "memory = acme_mine:Mine")
    install("acme-env", "acme_env", "", "[storeconf.resolvers]", "env = acme_env:Env")
    catalog = Catalog.installed()
    assert catalog.backend("memory").__module__ == "storeconf.backends"
    assert catalog.backend_names().count("memory") == 1
    rivals = [entry for entry in catalog.entries() if entry.distribution == "acme-mine"]
    assert [entry.state for entry in rivals] == ["conflict"]
    assert rivals[0].reason is not None
    assert "acme-mine 1.0 claims the name of the built-in backend 'memory'" in rivals[0].reason
    assert catalog.shadowed("backend", "memory") == rivals[0].reason
    assert catalog.shadowed("backend", "file") is None
    assert "acme_mine" not in sys.modules


@pytest.mark.parametrize("switch", ["1", "true", "all", "switched", "other, switched", "acme-switch"])
def test_plugins_can_be_switched_off(install: Install, switch: str) -> None:
    code = BACKEND.format(name="Lite", version=1, type="switched")
    install("acme-switch", "acme_switch", code, "[storeconf.backends]", "switched = acme_switch:Lite")
    catalog = Catalog.installed().without_plugins(switch)
    error = failure(catalog.backend, "switched")
    assert error.code == "SC707"
    assert "acme-switch 1.0" in str(error)
    assert "STORECONF_DISABLE_PLUGINS" in str(error)
    assert "switched" not in catalog.backend_names()
    assert the_entry(catalog, "switched").state == "disabled"
    assert catalog.backend("memory")
    assert "acme_switch" not in sys.modules


@pytest.mark.parametrize("switch", [None, "", " ", "other"])
def test_other_switches_leave_a_plugin_on(install: Install, switch: str | None) -> None:
    code = BACKEND.format(name="Lite", version=1, type="kept")
    install("acme-kept", "acme_kept", code, "[storeconf.backends]", "kept = acme_kept:Lite")
    assert Catalog.installed().without_plugins(switch).backend("kept")


def test_broken_metadata_harms_nobody_else(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install("acme-mess", "acme_mess", "", "[console_scripts", "???")
    install("acme-worse", "acme_worse", "", "[storeconf.backends]", "???")
    assert failure(Catalog.installed().backend, "nothing").code == "SC701"
    assert "the entry points of acme-worse can't be read" in caplog.text


class Box(Backend):
    type: Literal["box"] = "box"


class Spy(Middleware):
    kind: ClassVar[str] = "spy"


class Vault:
    def resolve(self, argument: str, context: ResolveContext) -> str:
        return argument


def test_a_catalog_is_a_value() -> None:
    empty = Catalog.builtin()
    full = empty.with_backend("box", Box).with_middleware("spy", Spy).with_resolver("vault", Vault())
    assert full.backend("box") is Box
    assert full.middleware("spy") is Spy
    assert full.resolver("vault").resolve("x", None) == "x"  # type: ignore[arg-type]  # it looks at nothing
    assert "box" not in empty.backend_names()
    assert full.backend_names() == (*BUILT_IN["backend"], "box")
    assert full.resolver_names() == ("env", "file", "vault")
    for find, name in ((empty.backend, "box"), (empty.middleware, "spy"), (empty.resolver, "vault")):
        assert failure(find, name).code == "SC701"
    narrowed = full.without("box", "redis")
    assert narrowed.backend_names() == ("memory", "file", "valkey")
    assert failure(narrowed.backend, "redis").code == "SC701"
    assert full.backend("redis")


def test_what_is_given_is_checked_like_a_plugin() -> None:
    assert failure(lambda name: Catalog.builtin().with_backend(name, Box), "bag").code == "SC703"
    assert failure(lambda name: Catalog.builtin().with_backend(name, Box), "memory").code == "SC705"
    assert failure(lambda name: Catalog.builtin().with_resolver(name, Vault()), "env").code == "SC705"

    class Memory(Backend):
        type: Literal["memory"] = "memory"

    replaced = Catalog.builtin().without("memory").with_backend("memory", Memory)
    assert replaced.backend("memory") is Memory


def test_a_resolver_may_be_a_class(install: Install) -> None:
    code = "class Vault:\n    api_version = 1\n    def resolve(self, argument, context):\n        return argument * 2"
    install("acme-vault", "acme_vault", code, "[storeconf.resolvers]", "acme = acme_vault:Vault")
    assert Catalog.installed().resolver("acme").resolve("x", None) == "xx"  # type: ignore[arg-type]  # unused there


def test_a_resolver_may_be_a_function(install: Install) -> None:
    code = (
        "def twice(argument, context):\n    return argument * 2\ndef late(argument, context): ...\nlate.api_version = 9"
    )
    points = ("[storeconf.resolvers]", "acme = acme_vault:twice", "late = acme_vault:late")
    install("acme-vault", "acme_vault", code, *points)
    layout = read_layout({"stores": {"a": {"type": "redis", "url": "redis://h", "namespace": "${acme:x}"}}}, environ={})
    assert layout.dump(masked=False)["stores"]["a"]["namespace"] == "xx"
    assert failure(Catalog.installed().resolver, "late").code == "SC704"
    given = Catalog.builtin().with_resolver("up", lambda argument, context: argument.upper())
    assert given.resolver("up").resolve("x", None) == "X"  # type: ignore[arg-type]  # unused there


@pytest.mark.parametrize(("part", "name"), [(part, name) for part in BUILT_IN for name in BUILT_IN[part]])
def test_every_built_in_kind_is_declared_like_a_plugin(part: str, name: str) -> None:
    (entry,) = (each for each in Catalog.builtin().entries() if (each.part, each.name) == (part, name))
    assert (entry.state, entry.reason) == ("built-in", None)
