"""Mistakes that would otherwise pass silently, or with a misleading hint."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

import storeconf
from storeconf.layout import check_layout

if TYPE_CHECKING:
    from pathlib import Path

    from storeconf.diagnostics import Diagnostic

MAIN = "stores:\n  main: {type: memory}\n"
TTL = "STORECONF__STORES__MAIN__MIDDLEWARE__TTL"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def problems(files: dict[str, str], *, environ: dict[str, str] | None = None, **how: Any) -> tuple[Diagnostic, ...]:
    for name, text in files.items():
        with open(name, "w", encoding="utf-8", newline="") as file:
            file.write(text)
    return check_layout(next(iter(files)), environ=environ or {}, **how).diagnostics


def store(fields: str, **environ: str) -> tuple[Diagnostic, ...]:
    return problems({"storeconf.yaml": f"stores:\n  a: {{{fields}}}\n"}, environ=environ)


# ---------------------------------------------------------------------- overlays


@pytest.mark.parametrize("suffix", ["yaml", "yml", "json", "toml"])
def test_overlays_are_read_where_a_directory_can_not_be_listed(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", denied)
    text = "[stores.main]\nmax_entries = 5\n" if suffix == "toml" else '{"stores": {"main": {"max_entries": 5}}}'
    with open(f"storeconf.prod.{suffix}", "w", encoding="utf-8") as file:
        file.write(text)
    with open("storeconf.yaml", "w", encoding="utf-8") as file:
        file.write(MAIN)
    for how in ({"environment": "prod", "environ": {}}, {"environ": {"STORECONF_ENV": "prod"}}):
        layout = storeconf.read_layout("storeconf.yaml", **how)
        assert layout.dump()["stores"]["main"] == {"type": "memory", "max_entries": 5}


@pytest.mark.parametrize(
    ("declared", "file", "meant"),
    [
        ("production", "storeconf.prodution.yaml", "storeconf.production.yaml"),
        ("production", "storeconf.porduction.toml", "storeconf.production.toml"),
        ("production", "storeconf.production.YAML", "storeconf.production.yaml"),
        ("production", "Storeconf.production.yaml", "storeconf.production.yaml"),
        ("production", "storeconf.prodution.YML", "storeconf.production.yml"),
        ("production", "storeconf.production_.yaml", "storeconf.production.yaml"),
        ("prod", "storeconf.Prod.yaml", "storeconf.prod.yaml"),
        ("eu-west", "storeconf.eu_west.yaml", "storeconf.eu-west.yaml"),
        ("staging", "storeconf.stagng.yaml", "storeconf.staging.yaml"),
    ],
)
def test_a_mistyped_overlay_is_a_warning(declared: str, file: str, meant: str) -> None:
    files = {"storeconf.yaml": f"{MAIN}environments: {{{declared}: {{}}}}\n", file: "{}" if "toml" not in file else ""}
    (found,) = problems(files, environment=declared)
    assert (found.code, found.severity, found.file) == ("SC809", "warning", file)
    assert meant in f"{found.message} {found.hint}"
    files["storeconf.yaml"] += f"acknowledge: {{SC809: [{found.path}]}}\n"
    assert problems(files, environment=declared) == ()


@pytest.mark.parametrize(
    "file",
    [
        "storeconf.staging.yaml",
        "storeconf.us-east.yaml",
        "storeconf.qa2.yaml",
        "storeconf.production.yaml.bak",
        "storeconf.production.yaml~",
        "storeconf.schema.json",
        "storeconf.stores.production.yaml",
        "other.prodution.yaml",
    ],
)
def test_other_names_are_none(file: str) -> None:
    text = f"{MAIN}environments: {{production: {{}}, us-west: {{}}, qa1: {{}}, eu-east: {{}}}}\n"
    assert problems({"storeconf.yaml": text, file: "{}"}, environment="production") == ()


def test_an_overlay_of_pyproject_has_its_table_or_not() -> None:
    for text in ("[tool.storeconf.stores.main]\nmax_entries = 5\n", "[stores.main]\nmax_entries = 5\n"):
        main = '[tool.storeconf.stores.main]\ntype = "memory"\n'
        assert problems({"pyproject.toml": main, "pyproject.p.toml": text}, environment="p") == ()
        assert storeconf.read_layout(environment="p", environ={}).dump()["stores"]["main"]["max_entries"] == 5


# ---------------------------------------------------------------------- variables


@pytest.mark.parametrize(
    "variables",
    [
        {"STORECONF__DEFAULT_FACTORY": "forbid", "STORECONF__DEFAULT_FACTORY__PARENT": "main"},
        {"STORECONF__DEFAULT_FACTORY": "{parent: main}", "STORECONF__DEFAULT_FACTORY__PARENT": "main"},
        {TTL: "10m", f"{TTL}__DEFAULT": "1h"},
        {TTL: "{default: 10m}", f"{TTL}__DEFAULT": "1h"},
        {TTL: "false", f"{TTL}__MAX": "1h"},
        {TTL: "null", f"{TTL}__MAX": "1h"},
        {"STORECONF__STORES__MAIN": "null", "STORECONF__STORES__MAIN__MAX_ENTRIES": "1"},
    ],
)
def test_variables_that_contradict_each_other_are_an_error(variables: dict[str, str]) -> None:
    found = [each for each in problems({"storeconf.yaml": MAIN}, environ=variables) if each.code == "SC306"]
    assert len(found) == 1
    assert all(name in found[0].message for name in variables)


@pytest.mark.parametrize(
    "variables",
    [
        {TTL: "10m", f"{TTL}__MAX": "1h"},
        {f"{TTL}__DEFAULT": "10m", f"{TTL}__MAX": "1h"},
        {
            "STORECONF__STORES__MAIN__MIDDLEWARE__CACHE": "true",
            "STORECONF__STORES__MAIN__MIDDLEWARE__CACHE__MAX_AGE": "1s",
        },
        {"STORECONF__STORES__MAIN": "{max_entries: 5}", "STORECONF__STORES__MAIN__MAX_SIZE": "1MB"},
    ],
)
def test_variables_that_complete_each_other_are_none(variables: dict[str, str]) -> None:
    assert [each.code for each in problems({"storeconf.yaml": MAIN}, environ=variables)] == []


def test_null_in_a_variable_removes() -> None:
    text = "stores:\n  main: {type: memory, max_entries: 5, middleware: {ttl: 5m}}\n  b: {parent: main}\n"
    for name, removed in (
        ("STORECONF__STORES__MAIN__MAX_ENTRIES", ("main", "max_entries")),
        (TTL, ("main", "middleware", "ttl")),
        ("STORECONF__STORES__B", ("b",)),
    ):
        assert problems({"storeconf.yaml": text}, environ={name: "null"}) == ()
        layout = storeconf.read_layout("storeconf.yaml", environ={name: "null"})
        here: Any = layout.dump()["stores"]
        for step in removed:
            assert step in here or step == removed[-1]
            here = here.get(step)
        assert not here
        origin = layout.origin(".".join(("stores", *removed)))
        assert origin is not None
        assert (origin.removed, origin.variable) == (True, name)
    (found,) = problems({"storeconf.yaml": text}, environ={"STORECONF__STORES__MAIN__MAX_SIZE": "null"})
    assert (found.code, found.variable) == ("SC802", "STORECONF__STORES__MAIN__MAX_SIZE")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("storeconf__stores__main__max_entries", "STORECONF__STORES__MAIN__MAX_ENTRIES"),
        ("Storeconf__STORES__main__max_entries", "STORECONF__STORES__MAIN__MAX_ENTRIES"),
        ("storeconf_env", "STORECONF_ENV"),
    ],
)
def test_a_prefix_in_another_case_is_a_warning(name: str, meant: str) -> None:
    (found,) = problems({"storeconf.yaml": MAIN}, environ={name: "5", "storeconf_other": "5"})
    assert (found.code, found.severity, found.variable) == ("SC804", "warning", name)
    assert found.hint is not None
    assert meant in found.hint


def test_a_list_that_is_none_is_one_problem() -> None:
    text = "stores:\n  a: {type: redis, namespace: a}\n"
    found = problems({"storeconf.yaml": text}, environ={"STORECONF__STORES__A__CLUSTER": "a:1,b:2"})
    assert [each.code for each in found] == ["SC305"]
    found = problems({"storeconf.yaml": text}, overrides=[("stores.a.cluster", "a:1,b:2")])
    assert [each.code for each in found] == ["SC305"]


# ---------------------------------------------------------------------- references


@pytest.mark.parametrize("field", ["parent: main", "use: main"])
def test_an_unknown_store_names_the_place_that_removes_it(field: str) -> None:
    text = f"{MAIN}  a: {{{field}}}\nenvironments:\n  production:\n    stores: {{main: null}}\n"
    (found,) = problems({"storeconf.yaml": text}, environment="production")
    assert (found.code, [(note.file, note.line) for note in found.notes]) == ("SC601", [("storeconf.yaml", 6)])
    (found,) = problems({"storeconf.yaml": f"{MAIN}  a: {{{field}}}\n"}, environ={"STORECONF__STORES__MAIN": "null"})
    assert [note.variable for note in found.notes] == ["STORECONF__STORES__MAIN"]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (f"extends: [bsae.yaml]\n{MAIN}", "'base.yaml'"),
        (f"extends: [shraed/base.yaml]\n{MAIN}", "'shared'"),
        (f"default_factory: main\n{MAIN}", "{parent: main}"),
        (f"default_factory: forbit\n{MAIN}", "'forbid'"),
        ("stores: {main: {type: memory, description: '${fil:x}'}}", "env, file"),
        ("stores: {main: {type: memory, max_entries: 010}}", "max_entries: 10"),
        ("stores: {main: {type: memory, max_entries: '$(SIZE)'}}", "${NAME}"),
        ("stores: {main: {type: redis, namespace: a, cluster: '${NODES}'}}", "STORECONF__STORES__MAIN__CLUSTER"),
        ("stores: {main: {type: redis, namespace: a, url: 'redis://h:$(PORT)'}}", "${NAME}"),
        ("stores: {main: {type: memory, max_size: $(SIZE)}}", "${NAME}"),
        ("stores: {main: {type: memory, max_entries: 1_000}}", "max_entries: 1000"),
        ("stores: {main: {type: redis, namespace: a, cluster: ['${COMMAS}']}}", "STORECONF__STORES__MAIN__CLUSTER"),
        ("stores:\n  main:{type: memory}\n", "space"),
        ("stores:\n  main:\n    type:memory\n", "space"),
        ("stores:\n  main: {type: memory, max_entries:5}\n", "space"),
    ],
)
def test_a_hint_fits_the_mistake(text: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(MAIN)
    (tmp_path / "shared").mkdir()
    (found,) = problems({"storeconf.yaml": text}, environ={"NODES": '["a:1"]', "COMMAS": "a:1,b:2"})
    assert hint in (found.hint or "")


@pytest.mark.parametrize(
    ("url", "word"),
    [("redis://h:6379\r", "carriage return"), ("redis://[::1]:abc", "port"), ("redis://u:p@h:abc", "port")],
)
def test_what_is_wrong_with_a_url(url: str, word: str) -> None:
    (found,) = store("type: redis, namespace: a, url: '${U}'", U=url)
    assert word in found.message
    assert "password" not in f"{found.message} {found.hint}"


def test_an_empty_environment_is_explained() -> None:
    (found,) = problems({"storeconf.yaml": MAIN}, environment="")
    assert found.environments == ()
    assert "empty" in found.message


def test_a_key_of_yaml_has_a_greatest_length() -> None:
    (found,) = problems({"storeconf.yaml": f"stores:\n  {'k' * 1100}: {{type: memory}}\n"})
    assert (found.line, found.column) == (2, 3)
    assert "1,024" in found.message


def test_a_quoted_merge_key_is_an_unknown_field() -> None:
    found = store('"<<": {type: memory}')
    assert "'<<'" in " ".join(each.message for each in found)


# ---------------------------------------------------------------------- secret files, modes, dollars


@pytest.mark.parametrize(("content", "code"), [("", "SC805"), ("\n", "SC805"), ("\ufeffpassword\n", "SC810")])
def test_a_secret_file_is_empty_or_has_a_mark(content: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(content, encoding="utf-8")
    fields = "type: redis, namespace: a, url: 'redis://h'"
    (found,) = store(f"{fields}, password: '${{file:secret}}'")
    assert (found.code, found.severity, found.path) == (code, "warning", "stores.a.password")
    (found,) = store(fields, STORECONF__STORES__A__PASSWORD_FILE="secret")
    assert (found.code, found.severity, found.path) == (code, "warning", "stores.a.password")
    assert store(f"{fields}, password: '${{file:secret:-x}}'") == () or content.strip()


@pytest.mark.parametrize("mode", ["0o750", "0750", '"0750"', "750"])
def test_a_mode_is_shown_in_octal(mode: str) -> None:
    assert store(f"type: file, path: ., mode: {mode}") == ()
    shown = storeconf.read_layout("storeconf.yaml", environ={}).dump()["stores"]["a"]["mode"]
    assert str(shown) in ("0750", "750")
    origin = storeconf.read_layout("storeconf.yaml", environ={}).origin("stores.a.mode")
    assert origin is not None
    assert str(origin.value) in ("0750", "750")


def test_a_mode_that_the_field_reads_from_a_text_is_shown_in_octal() -> None:
    text = "type: file, path: ., mode: '${MODE:-0750}'"
    for environ in ({}, {"MODE": "0770"}, {"STORECONF__STORES__A__MODE": "0o770"}):
        assert store(text, **environ) == ()
        shown = storeconf.read_layout("storeconf.yaml", environ=environ).dump()["stores"]["a"]["mode"]
        assert shown == ("0770" if environ else "0750")
    overridden = storeconf.read_layout("storeconf.yaml", environ={}, overrides={"stores.a.mode": "0710"})
    assert overridden.dump()["stores"]["a"]["mode"] == "0710"


def test_two_dollars_of_a_default_are_one() -> None:
    assert store("type: memory, description: '${A:-a$$b}'") == ()
    spec = storeconf.read_layout("storeconf.yaml", environ={}).stores["a"]
    assert spec.description == "a$b"


# ---------------------------------------------------------------------- settings that are allowed but unwise

REDIS = "type: redis, namespace: a"


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ("type: file, path: ~/data", "path"),
        ("type: file, path: '~'", "path"),
        ("type: memory, middleware: {ttl: {default: 2h, max: 1h}}", "middleware.ttl.default"),
        ("type: memory, middleware: {ttl: {renew_on_get: 2h, max: 1h}}", "middleware.ttl.renew_on_get"),
        ("type: memory, middleware: {on_error: true}", "middleware.on_error"),
        ("type: memory, middleware: {encrypt: {keys: [a-long-key-that-nobody-knows, a]}}", "middleware.encrypt.keys.1"),
        ("type: memory, middleware: {encrypt: a}", "middleware.encrypt.keys.0"),
        (f"{REDIS}, url: 'redis://h', connect_timeout: 5s, command_timeout: 1s", "connect_timeout"),
        (f"{REDIS}, url: 'redis://h', connect_timeout: 6s", "connect_timeout"),
        (f"{REDIS}, url: 'redis://h?socket_connect_timeout=9'", "url"),
        (f"{REDIS}, url: 'redis://user@h'", "url"),
        (f"{REDIS}, url: 'redis://h?username=user'", "url"),
        (f"{REDIS}, url: 'redis://h', username: user", "username"),
        (f"{REDIS}, sentinel: {{nodes: ['h:1'], service: s, username: user}}", "sentinel.username"),
        (f"{REDIS}, url: 'redis://h', tls: {{ca_file: /no/such/ca.pem}}", "tls.ca_file"),
        (f"{REDIS}, url: 'rediss://h?ssl_ca_certs=/no/such/ca.pem'", "url"),
        (f"{REDIS}, sentinel: {{nodes: ['h:1'], service: s, tls: {{ca_file: no.pem}}}}", "sentinel.tls.ca_file"),
    ],
)
def test_a_risky_setting_is_a_warning_that_can_be_acknowledged(fields: str, path: str) -> None:
    (found,) = store(fields)
    assert (found.code, found.severity, found.path) == ("SC801", "warning", f"stores.a.{path}")
    text = f"stores:\n  a: {{{fields}}}\nacknowledge: {{SC801: [{found.path}]}}\n"
    assert problems({"storeconf.yaml": text}) == ()


@pytest.mark.parametrize(
    "fields",
    [
        "type: file, path: '~tmp'",
        "type: memory, middleware: {ttl: {default: 1h, max: 1h}}",
        "type: memory, middleware: {on_error: raise}",
        f"{REDIS}, url: 'redis://h', command_timeout: 1s",
        f"{REDIS}, url: 'redis://:p@h'",
        f"{REDIS}, url: 'redis://h', username: user, password: p",
        f"{REDIS}, url: 'redis://h', tls: {{ca_file: storeconf.yaml}}",
    ],
)
def test_others_are_none(fields: str) -> None:
    assert store(fields) == ()


def test_false_where_nothing_is_inherited() -> None:
    (found,) = store("type: memory, middleware: {limit: false}")
    assert (found.code, found.severity, found.path) == ("SC802", "warning", "stores.a.middleware.limit")
    child = "stores:\n  a: {type: memory, middleware: {limit: 1MB}}\n  b: {use: a}\n"
    child += "  c: {parent: b, middleware: {limit: false}}\n"
    assert problems({"storeconf.yaml": child}) == ()
    (found,) = problems({"storeconf.yaml": child + "  d: {parent: c, middleware: {limit: false}}\n"})
    assert found.path == "stores.d.middleware.limit"
    section = "environments: {e: {stores: {a: {middleware: {limit: false}}}}}\n"
    assert problems({"storeconf.yaml": child.partition("  b:")[0] + section}, environment="e") == ()
    factory = "stores: {a: {type: memory}}\ndefault_factory: {parent: a, middleware: {ttl: false}}\n"
    (found,) = problems({"storeconf.yaml": factory})
    assert found.path == "default_factory.middleware.ttl"
    text = "stores: {a: {type: memory, middleware: {limit: false}}}\nenvironments: {e: {}}\n"
    assert problems({"storeconf.yaml": text}, environment="e") == ()  # another environment may have one
