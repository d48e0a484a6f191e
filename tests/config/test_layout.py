"""The layout as a value: equality, origins, dumps, reports; and that no output ever shows a secret."""

from __future__ import annotations

import json
import logging
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pytest
import yaml
from pydantic import Field, model_validator

import storeconf
from storeconf.catalog import Catalog
from storeconf.diagnostics.render import FORMATS, render
from storeconf.errors import ConfigError
from storeconf.layout import CheckResult, Layout, check_layout, read_layout
from storeconf.plugin import Backend, Middleware, Secret
from storeconf.stores import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storeconf.plugin import BuildContext, ResolveContext
    from storeconf.store import Store

SHOP = """
version: 1
stores:
  main: {type: redis, url: "redis://${HOST:-localhost}:6379/0", namespace: shop, description: "costs 5 $$, $${x}"}
  sessions: {parent: main, middleware: {ttl: {default: 14d, renew_on_get: true}}}
  cache: {parent: main, middleware: {ttl: 15m}}
  pages: {parent: cache, namespace: html}
  rates: {use: cache}
  uploads: {type: file, path: var/uploads, mode: "0750"}
default_factory: {parent: main, max_stores: 100}
environments:
  development:
    stores: {main: {type: memory}}
  production:
    stores: {main: {max_connections: 2, connect_timeout: 1s}}
"""


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("storeconf.yaml").write_text(SHOP)


def read(environment: str | None = "production", environ: Mapping[str, str] | None = None, **given: Any) -> Layout:
    return read_layout("storeconf.yaml", environment=environment, environ=environ or {}, **given)


def test_a_layout_says_little_of_itself() -> None:
    assert repr(read()) == "<Layout for 'production' of 6 stores>"
    assert repr(read_layout({}, environ={})) == "<Layout of 0 stores>"
    assert read().files == ("storeconf.yaml",)


def test_a_layout_can_not_be_changed() -> None:
    layout = read()
    with pytest.raises(AttributeError):
        layout.environment = "other"  # type: ignore[misc]  # which is the point
    with pytest.raises(TypeError):
        layout.stores["x"] = layout.stores["main"]  # type: ignore[index]  # likewise
    with pytest.raises(ValueError, match="frozen"):
        layout.stores["main"].backend.namespace = "x"  # type: ignore[union-attr]  # likewise


def test_layouts_are_equal_when_they_say_the_same_wherever_they_say_it() -> None:
    assert read() == read()
    assert read() != read("development")
    edited = SHOP.replace("max_connections: 2", "max_connections: 7")
    Path("edited.yaml").write_text(edited)
    expected = read_layout("edited.yaml", environment="production", environ={})
    assert read(environ={"STORECONF__STORES__MAIN__MAX_CONNECTIONS": "7"}) == expected
    assert read(overrides={"stores.main.max_connections": 7}) == expected
    assert read_layout(yaml.safe_load(edited), environment="production", environ={}) == expected
    assert read() != expected


def test_a_dump_keeps_the_shape_of_the_language() -> None:
    shown = read().dump()
    assert shown["version"] == 1
    assert list(shown) == ["version", "stores", "default_factory"]
    assert shown["stores"]["main"] == {
        "type": "redis",
        "url": "redis://localhost:6379/0",
        "namespace": "shop",
        "description": "costs 5 $$, $${x}",
        "max_connections": 2,
        "connect_timeout": "1s",
    }
    assert shown["stores"]["sessions"] == {
        "parent": "main",
        "middleware": {"ttl": {"default": "14d", "renew_on_get": True}},
    }
    assert shown["stores"]["uploads"]["path"] == str(Path.cwd() / "var/uploads")
    assert shown["default_factory"] == {"parent": "main", "max_stores": 100}
    assert read_layout({"default_factory": "forbid"}, environ={}).dump() == {"default_factory": "forbid"}
    json.dumps(shown)


@pytest.mark.parametrize("environment", ["development", "production"])
def test_a_dump_read_again_is_the_same_layout(environment: str, tmp_path: Path) -> None:
    environ = {
        "HOST": "db",
        "STORECONF__STORES__MAIN__DESCRIPTION": "${not} a $$ substitution",
        "STORECONF__STORES__CACHE__MIDDLEWARE__TTL__JITTER": "0.5",
        "STORECONF__STORES__NEW__TYPE": "file",
        "STORECONF__STORES__NEW__PATH": "elsewhere",
    }
    layout = read(environment, environ)
    (tmp_path / "other").mkdir()
    again = tmp_path / "other/dumped.yaml"
    again.write_text(yaml.safe_dump(layout.dump(masked=False)))
    reread = read_layout(again, environ={})
    assert (reread.stores, reread.default_factory) == (layout.stores, layout.default_factory)


def test_origins_tell_the_whole_history() -> None:
    environ = {"STORECONF__STORES__MAIN__MAX_CONNECTIONS": "3"}
    origin = read(environ=environ, overrides={"stores.main.max_connections": 4}).origin("stores.main.max_connections")
    assert origin is not None
    assert (origin.layer, origin.value) == ("override", 4)
    variable = origin.shadowed
    assert variable is not None
    assert (variable.layer, variable.variable, variable.value) == (
        "variable",
        "STORECONF__STORES__MAIN__MAX_CONNECTIONS",
        "3",
    )
    environment = variable.shadowed
    assert environment is not None
    assert (environment.layer, environment.file, environment.line, environment.value) == (
        "environment",
        "storeconf.yaml",
        15,
        2,
    )
    assert environment.shadowed is None
    assert [each.place for each in (origin, variable, environment)] == [
        None,
        "$STORECONF__STORES__MAIN__MAX_CONNECTIONS",
        f"storeconf.yaml:15:{environment.column}",
    ]


def test_what_no_layer_says_has_no_origin() -> None:
    layout = read()
    for path in ("stores.main.retries", "stores.nothing", "nothing", "stores.main.url.deeper", ""):
        assert layout.origin(path) is None
    origin = layout.origin("stores.cache.middleware.ttl.default")
    assert origin is not None
    assert (origin.line, origin.value) == (6, "15m")


def test_a_plan_and_a_registry_come_from_it() -> None:
    layout = read("development")
    assert next(step.name for step in layout.plan().steps) == "main"
    assert set(layout.compile().names()) == set(layout.stores)


def test_reading_raises_every_error_and_examining_none() -> None:
    Path("bad.yaml").write_text("stores: {a: {type: memory, x: 1, y: 2}, b: {parent: c}}")
    with pytest.raises(ConfigError) as caught:
        read_layout("bad.yaml", environ={})
    assert [each.code for each in caught.value.diagnostics] == ["SC501", "SC501", "SC601"]
    report = check_layout("bad.yaml", environ={})
    assert report.layout is None
    assert report.diagnostics == caught.value.diagnostics


def test_nothing_is_missed_elsewhere_when_a_file_can_not_be_read() -> None:
    Path("bad.yaml").write_text("extends: [nothing.yaml]\nstores: {b: {parent: main}}")
    assert [each.code for each in check_layout("bad.yaml", environ={}).diagnostics] == ["SC203"]


def test_a_problem_of_several_environments_comes_once() -> None:
    Path("bad.yaml").write_text(
        "stores: {a: {type: memory, x: 1}}\n"
        "environments:\n"
        "  one: {stores: {a: {max_entries: 0}}}\n"
        "  two: {stores: {a: {y: 1}}}\n"
        "  three: {}\n"
    )
    report = check_layout("bad.yaml", all_environments=True, environ={"STORECONF_ENV": "nonsense"})
    assert report.environments == ("one", "two", "three")
    assert [(each.code, each.line, each.environments) for each in report.diagnostics] == [
        ("SC501", 1, ("one", "two", "three")),
        ("SC504", 3, ("one",)),
        ("SC501", 4, ("two",)),
    ]
    assert check_layout("bad.yaml", all_environments=True, environment="three", environ={}).environments == ("three",)
    assert dict(report.layouts) == {}


def test_all_environments_of_a_good_layout() -> None:
    report = check_layout("storeconf.yaml", all_environments=True, environ={})
    assert report.diagnostics == ()
    assert list(report.layouts) == ["development", "production"]
    Path("plain.yaml").write_text("stores: {a: {type: memory}}")
    plain = check_layout("plain.yaml", all_environments=True, environ={})
    assert plain.environments == ()
    assert list(plain.layouts) == [None]


def test_the_base_of_a_layout_with_environments_warns() -> None:
    layout = read(None)
    assert [each.code for each in layout.warnings] == ["SC803"]


def test_plugins_can_be_switched_off_by_a_variable() -> None:
    Path("plain.yaml").write_text("stores: {a: {type: memory}}")
    assert check_layout("plain.yaml", environ={"STORECONF_DISABLE_PLUGINS": "1"}).layout is not None


class First(Middleware):
    kind: ClassVar[str] = "first"
    after: ClassVar[tuple[str, ...]] = ("second",)


class Second(Middleware):
    kind: ClassVar[str] = "second"
    after: ClassVar[tuple[str, ...]] = ("first",)


def test_chains_that_contradict_one_another_are_a_problem_of_the_layout() -> None:
    catalog = Catalog.builtin().with_middleware("first", First).with_middleware("second", Second)
    chain: dict[str, Any] = {"first": {}, "second": {}}
    report = check_layout(
        {"stores": {"a": {"type": "memory"}, "b": {"parent": "a", "middleware": chain}}}, catalog=catalog, environ={}
    )
    (found,) = report.diagnostics
    assert (found.code, found.path) == ("SC709", "stores.b.middleware")
    assert "conflicting middleware order" in found.message


# ---------------------------------------------------------------------- secrets

CANARY = "canary-1f9e"
"""Every secret in what follows begins so."""


class Vault(Backend):
    """Its secrets have names from which nobody could tell."""

    type: Literal["vault"] = "vault"
    phrase: Secret | None = None
    pins: list[Secret] = Field(default_factory=list)
    words: dict[str, Secret] = Field(default_factory=dict)
    count: int = 0

    @model_validator(mode="after")
    def _crash(self) -> Vault:
        if self.count == 13 and self.phrase is not None:
            raise KeyError(self.phrase.get_secret_value())
        return self

    def build(self, context: BuildContext) -> Store:
        return MemoryStore()


class Seal(Middleware):
    kind: ClassVar[str] = "seal"
    shorthand_field: ClassVar[str] = "wax"
    wax: Secret

    def wrap(self, inner: Store, context: BuildContext) -> Store:
        return inner


class Resolves:
    def resolve(self, argument: str, context: ResolveContext) -> str:
        if argument == "crash":
            raise RuntimeError("out of order")
        return f"{CANARY}-{argument}"


SECRETS = Catalog.builtin().with_backend("vault", Vault).with_middleware("seal", Seal).with_resolver("res", Resolves())

STORES = f"""
  redis:
    type: redis
    namespace: a
    url: redis://user:{CANARY}-url@host:6379/0
  query: {{type: valkey, namespace: b, url: "redis://host?password={CANARY}-query"}}
  fields: {{type: redis, namespace: c, url: redis://third, username: u, password: {CANARY}-password}}
  vault: {{type: vault, phrase: {CANARY}-phrase, pins: [{CANARY}-pin], words: {{any: {CANARY}-word}}}}
  block:
    type: vault
    phrase: |
      {CANARY}-block
      {CANARY}-second
  sealed: {{parent: vault, middleware: {{seal: {CANARY}-wax}}}}
  keys: {{parent: vault, middleware: {{encrypt: {{keys: [{CANARY}-one, "${{file:secret.txt}}"]}}}}}}
  read: {{type: vault, phrase: "${{file:secret.txt}}", count: 1}}
  resolved: {{type: vault, phrase: "${{res:phrase}}"}}
  whole: {{type: redis, namespace: d, url: "${{file:url.txt}}"}}
  texts: {{type: redis, namespace: e, url: "redis://e", username: "${{res:user}}", client_name: "${{file:secret.txt}}"}}
  default: {{type: redis, namespace: f, url: redis://f, password: "${{file:nothing:-{CANARY}-default}}"}}
  named: {{type: redis, namespace: g, url: "${{env:NOTHING:-redis://g:{CANARY}-env@g}}"}}
  listed: {{parent: vault, middleware: {{encrypt: {{keys: ["${{env:NOTHING:-{CANARY}-key}}"]}}}}}}
  described: {{parent: vault, description: "${{file:secret.txt}}"}}
"""
ENVIRON = {
    "STORECONF__STORES__VARIABLE__TYPE": "vault",
    "STORECONF__STORES__VARIABLE__PHRASE": f"{CANARY}-variable",
    "STORECONF__STORES__FROM_FILE__TYPE": "vault",
    "STORECONF__STORES__FROM_FILE__PHRASE_FILE": "secret.txt",
}
BREAKS = {
    "nothing": "",
    "unknown fields": "  x: {type: vault, phras: 1}\n",
    "on the line of a secret": f"  x: {{type: vault, phrase: {CANARY}-near, zzz: 1}}\n",
    "secret of a wrong type": f"  x: {{type: vault, phrase: [{CANARY}-list]}}\n",
    "secret where a number is wanted": '  x: {type: vault, count: "${file:secret.txt}"}\n',
    "secret where a choice is wanted": '  x: {type: file, path: p, durability: "${res:choice}"}\n',
    "secret where a duration is wanted": '  x: {parent: vault, middleware: {ttl: "${file:secret.txt}"}}\n',
    "secret where a size is wanted": '  x: {type: memory, max_size: "${res:size}"}\n',
    "secret as a name": '  x: {parent: "${res:parent}"}\n',
    "secret as a type": '  x: {type: "${file:secret.txt}"}\n',
    "secret as a namespace": '  x: {type: memory, namespace: "${res:name space}"}\n',
    "secret in a URL": '  x: {type: redis, namespace: x, url: "redis://u:${res:a@b}@h"}\n',
    "bad URL": f"  x: {{type: redis, namespace: x, url: 'redis://u:{CANARY}-bad@h@h'}}\n",
    "bad scheme": f"  x: {{type: redis, namespace: x, url: 'http://u:{CANARY}-bad@h'}}\n",
    "bad URL from a file": '  x: {type: redis, namespace: x, url: "${res:no url}"}\n',
    "two places": f"  x: {{type: redis, namespace: a, url: 'redis://user:{CANARY}-url@host:6379/0'}}\n",
    "credential twice": f"  x: {{type: redis, namespace: x, url: 'redis://u:{CANARY}-a@h', password: {CANARY}-b}}\n",
    "crashing resolver": '  x: {type: vault, phrase: "${res:crash}"}\n',
    "URL for another field": f"  x: {{type: 'redis://u:{CANARY}-type@h'}}\n",
    "crash with a secret of a file": f"  x: {{type: vault, phrase: {CANARY}-crash, count: 13}}\n",
    "crash with a secret of a variable": "",
    "malformed URL elsewhere": f"  x: {{type: 'redis://u:{CANARY}-a/{CANARY}-b@h'}}\n",
    "password beside the stores": f"  password: {CANARY}-lost\n",
    "no blank before a password": f"  x:\n    password:{CANARY}-glued\n",
    "no blank before the Sentinels' password": (
        f"  x:\n    type: redis\n    namespace: x\n    sentinel:\n      password:{CANARY}-glued\n"
    ),
    "factory without a blank": f"default_factory:\n  password:{CANARY}-glued\n",
    "syntax": f"  x: {{type: vault, password: {CANARY}-syntax\n",
    "duplicate": f"  x: {{type: vault, password: {CANARY}-dup, password: {CANARY}-dup2}}\n",
}
SHADOWED = f"""
environments:
  production:
    stores:
      vault: {{phrase: {CANARY}-production}}
      redis: {{url: redis://other:{CANARY}-other@host, zzz: 1}}
      fields: {{type: memory}}
"""


def texts(report: CheckResult) -> list[str]:
    """Everything that could be shown of a report."""
    found = [render(report.diagnostics, form, color=color) for form in FORMATS for color in (False, True)]
    found += [repr(report), repr(report.diagnostics), *map(str, report.diagnostics)]
    if report.layout is None:
        error = ConfigError(report.diagnostics)
        try:
            raise error
        except ConfigError:
            found += [traceback.format_exc(), str(error), repr(error)]
    for layout in report.layouts.values():
        found += [repr(layout), str(layout), repr(layout.stores), repr(layout.default_factory)]
        found += [json.dumps(layout.dump()), yaml.safe_dump(layout.dump())]
        found += [str(layout.plan()), repr(layout.plan()), json.dumps(layout.plan().to_dict()), repr(layout.compile())]
        found += [str(spec) for spec in layout.stores.values()]
        found += [repr(layout._assembly), repr(layout._assembly.documents), repr(layout.variables())]
        found += [repr(layout.origin(path)) for path in paths(layout._assembly.tree)]
    return found


def paths(tree: Any, path: str = "") -> list[str]:
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found = [path] if path else []
    for key, value in inner:
        found += paths(value, f"{path}.{key}" if path else str(key))
    return found


@pytest.mark.parametrize("name", BREAKS)
@pytest.mark.parametrize("form", ["yaml", "json"])
def test_no_secret_is_ever_shown(name: str, form: str, caplog: pytest.LogCaptureFixture) -> None:
    Path("secret.txt").write_text(f"{CANARY}-file\n")
    Path("url.txt").write_text(f"redis://whole:{CANARY}-whole@whole/0?client_name={CANARY}-option")
    text = f"stores:{STORES}{BREAKS[name]}{SHADOWED}"
    if form == "json" and name not in ("syntax", "duplicate"):  # what is no YAML has no twin
        text = json.dumps(yaml.safe_load(text), indent=1)
    path = Path(f"storeconf.{form}")
    path.write_text(text)
    environ = ENVIRON | ({"STORECONF__STORES__VARIABLE__COUNT": "13"} if name.endswith("of a variable") else {})
    with caplog.at_level(logging.DEBUG):
        reports = [
            check_layout(path, environ=environ, catalog=SECRETS),
            check_layout(path, environment="production", environ=environ, catalog=SECRETS),
            check_layout(path, all_environments=True, environ=environ, catalog=SECRETS),
            check_layout(path, all_environments=True, environ=environ, catalog=SECRETS, without_secrets=True),
            check_layout(
                path, environ=environ, catalog=SECRETS, overrides={"stores.vault.phrase": f"{CANARY}-override"}
            ),
        ]
    if name == "nothing":
        assert reports[0].layout is not None
    else:
        assert reports[0].layout is None
    for report in reports:
        for shown in texts(report):
            assert CANARY not in shown
    assert CANARY not in caplog.text


@pytest.mark.parametrize("index", ["²", "9" * 5000, "-1", "7", "x"])
def test_what_is_no_item_of_a_list_has_no_origin(index: str) -> None:
    layout = read_layout({"stores": {"a": {"type": "redis", "cluster": ["a:1"], "namespace": "a"}}}, environ={})
    assert layout.origin("stores.a.cluster.0") is not None
    assert layout.origin(f"stores.a.cluster.{index}") is None


def test_unmasked_dumps_show_secrets_on_request() -> None:
    Path("secret.txt").write_text(f"{CANARY}-file\n")
    layout = read_layout({"stores": {"a": {"type": "vault", "phrase": "${file:secret.txt}"}}}, catalog=SECRETS)
    assert layout.dump()["stores"]["a"]["phrase"] == "***"
    assert layout.dump(masked=False)["stores"]["a"]["phrase"] == f"{CANARY}-file"


def test_the_public_names() -> None:
    assert storeconf.Layout is Layout
    assert storeconf.read_layout is read_layout
