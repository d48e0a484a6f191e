"""No command, in no format, shows a secret: planted everywhere, searched in everything that is printed."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from tests.cli.running import Done, run

MARK = "kanari"
"""Every secret holds it."""

LAYOUT = f"""
x-note: nothing of interest
stores:
  main:
    type: redis
    url: "redis://127.0.0.1:1/0"
    namespace: shop
    username: shop
    password: "{MARK}-field"
    connect_timeout: 50ms
    retries: 0
  sessions:
    parent: main
    middleware:
      encrypt: {{keys: ["{MARK}-key-one", "{MARK}-key-two"]}}
  orders:
    parent: main
    middleware: {{encrypt: "{MARK}-key-alone"}}
  by_url:
    type: valkey
    url: "valkey://shop:{MARK}-userinfo@127.0.0.1:1/1"
    namespace: a
    retries: 0
    connect_timeout: 50ms
  by_variable:
    type: valkey
    url: "valkey://127.0.0.1:1/6"
    namespace: g
    retries: 0
    connect_timeout: 50ms
  by_parts:
    type: valkey
    url: "valkey://shop:${{PART}}@127.0.0.1:1/2"
    namespace: b
    client_name: "${{file:name.txt}}"
    retries: 0
    connect_timeout: 50ms
  by_file:
    type: valkey
    url: "valkey://127.0.0.1:1/3"
    namespace: c
    password: "${{file:secret.txt}}"
    retries: 0
    connect_timeout: 50ms
  by_resolver:
    type: valkey
    url: "valkey://127.0.0.1:1/4"
    namespace: d
    password: "${{vault:any}}"
    client_name: "${{vault:name}}"
    retries: 0
    connect_timeout: 50ms
  watched:
    type: redis
    sentinel: {{nodes: ["127.0.0.1:1"], service: shop, username: u, password: "{MARK}-sentinel"}}
    namespace: e
    retries: 0
    connect_timeout: 50ms
  by_namespace: {{parent: main, namespace: "${{file:name.txt}}", middleware: {{limit: {{key_size: 1KiB}}}}}}
  below: {{parent: by_namespace}}
  local: {{type: memory, description: "${{file:name.txt}}"}}
  files: {{type: file, path: var}}
default_factory: {{type: redis, url: "redis://u:{MARK}-factory@127.0.0.1:1/5", namespace: f, retries: 0}}
environments:
  one:
    stores:
      main: {{password: "{MARK}-of-one"}}
  two:
    stores:
      main: {{password: "{MARK}-of-two", url: "redis://127.0.0.1:1/9"}}
      by_url: {{url: "valkey://shop:{MARK}-other@127.0.0.1:1/1"}}
      sessions: {{middleware: {{encrypt: {{keys: ["{MARK}-key-three"]}}}}}}
      by_file: {{type: file, path: elsewhere}}
"""

RESOLVER = f"""
class Vault:
    api_version = 1

    def resolve(self, argument, context):
        return "{MARK}-resolved-" + argument
"""

VARIABLES = {
    "PART": f"{MARK}-part",
    "STORECONF__STORES__ORDERS__MIDDLEWARE__ENCRYPT__KEYS": json.dumps([f"{MARK}-variable-key"]),
    "STORECONF__STORES__BY_VARIABLE__PASSWORD_FILE": "other.txt",
    "STORECONF__STORES__WATCHED__SENTINEL__PASSWORD": f"{MARK}-variable",
    "STORECONF__STORES__WATCHED__PASSWORD": f"{MARK}-variable-too",
}

COMMANDS = [
    ["validate"],
    *(["validate", "--format", form] for form in ("text", "json", "github", "sarif")),
    *(["show", "--format", form] for form in ("yaml", "toml", "json")),
    *(["show", "--origins", "--format", form] for form in ("yaml", "toml", "json")),
    *(["env", "--format", form] for form in ("text", "json")),
    *(["tree", "--format", form] for form in ("text", "json")),
    *(["graph", "--format", form] for form in ("mermaid", "dot", "html")),
    *(["ping", "--format", form] for form in ("text", "json")),
    *(["keys", "sessions", "--format", form] for form in ("text", "json")),
    *(["get", "sessions", "k", "--format", form] for form in ("text", "json")),
    *(["stats", "by_url", "--format", form] for form in ("text", "json")),
    *(["raw-key", "by_parts", "k", "--format", form] for form in ("text", "json")),
    ["raw-key", "files", "k"],
    ["set", "orders", "k", "v"],
    ["delete", "by_resolver", "k"],
    ["clear", "watched", "--yes"],
    ["clear", "local"],
    ["prune"],
    ["prune", "by_file"],
    ["get", "unlisted", "k"],
    ["get", "sesions", "k"],
]
PATHS = [
    "stores",
    "default_factory",
    "default_factory.url",
    "stores.sessions.middleware.encrypt.keys.0",
    "stores.orders.middleware.encrypt",
    "stores.orders.middleware.encrypt.keys",
    "stores.watched.sentinel",
    "stores.by_variable.password",
    "stores.nothing.password",
    *(
        f"stores.{name}.{field}"
        for name in ("main", "by_parts", "by_file", "by_resolver")
        for field in ("url", "password")
    ),
    *(
        f"stores.{name}"
        for name in ("main", "sessions", "orders", "by_url", "by_file", "by_resolver", "watched", "local")
    ),
    "stores.local.description",
    "stores.by_parts.client_name",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of installed packages, with a plugin whose resolver knows a secret."""
    site = tmp_path_factory.mktemp("site")
    (site / "vault-1.dist-info").mkdir()
    (site / "vault-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: vault\nVersion: 1\n")
    (site / "vault-1.dist-info/entry_points.txt").write_text("[storeconf.resolvers]\nvault = kanari_vault:Vault\n")
    (site / "kanari_vault.py").write_text(RESOLVER)
    return site


@pytest.fixture
def planted(tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A working directory with the layout, its secret files and its variables."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)
    Path("storeconf.yaml").write_text(LAYOUT)
    for name in ("secret", "name", "other"):
        Path(f"{name}.txt").write_text(f"{MARK}-in-{name}\n")
    monkeypatch.syspath_prepend(str(site))
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


def check(done: Done, log: str, command: list[str]) -> None:
    for text in (done.out, done.err, log):
        for line in text.splitlines():
            hidden = line.replace("kanari_vault", "")
            assert MARK not in hidden, f"{command} shows a secret: {line}"


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("environment", [None, "one", "two"])
def test_no_command_shows_a_secret(environment: str | None, caplog: pytest.LogCaptureFixture) -> None:
    chosen = [] if environment is None else ["--env", environment]
    for command in COMMANDS:
        check(run(*command, *chosen), caplog.text, command)
    for path in PATHS:
        for form in ("text", "json"):
            command = ["explain", path, "--format", form]
            check(run(*command, *chosen), caplog.text, command)


@pytest.mark.usefixtures("planted")
def test_the_layout_is_a_good_one_so_that_the_search_means_something() -> None:
    assert run("validate").status == 0
    assert run("show", "--env", "one").out.count("***") > 10


@pytest.mark.usefixtures("planted")
def test_no_difference_shows_a_secret_but_that_there_is_one(caplog: pytest.LogCaptureFixture) -> None:
    for form in ("text", "json"):
        command = ["diff", "one", "two", "--format", form]
        done = run(*command)
        check(done, caplog.text, command)
        assert done.status == 1
        assert "stores.main.password" in done.out


@pytest.mark.usefixtures("planted")
def test_no_override_is_shown_where_it_is_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    given = [
        f"stores.main.password={MARK}-set",
        f"stores.main.url=redis://u:{MARK}-set@127.0.0.1:1/0",
        f"stores.sessions.middleware.encrypt.keys=[{MARK}-set]",
        f"stores.orders.middleware.encrypt={MARK}-set",
        f"stores.main.pasword={MARK}-set",
        f"stores.main.password.wrapped={MARK}-set",
        f"stores.main.password=[{MARK}-set",
        f"stores.nothing.password={MARK}-set",
        f"stores.watched.sentinel={{password: {MARK}-set}}",
    ]
    for value in given:
        for command in (
            ["show"],
            ["validate"],
            ["explain", "stores.main"],
            ["env"],
            ["tree"],
            ["ping"],
            ["show", "--origins"],
        ):
            check(run(*command, "--set", value), caplog.text, [*command, value])


REDIS = "type: redis, url: 'redis://h', namespace: a"
BROKEN = {
    "a list where a secret belongs": f"stores: {{main: {{{REDIS}, password: [{MARK}]}}}}",
    "a mapping where a secret belongs": f"stores: {{main: {{{REDIS}, password: {{x: {MARK}}}}}}}",
    "an unknown field next to a secret": f"stores: {{main: {{{REDIS}, passwort: x, password: {MARK}}}}}",
    "a misspelt secret field": f"stores: {{main: {{{REDIS}, passwort: {MARK}}}}}",
    "a misspelt secret field on a line of its own": f"stores:\n  main:\n    type: redis\n    passwrd: {MARK}\n",
    "a misspelt field of a sentinel": (
        f"stores: {{main: {{type: redis, namespace: a, sentinel: {{nodes: ['h:1'], service: s, pasword: {MARK}}}}}}}"
    ),
    "a secret of an unknown type": f"stores: {{main: {{type: rediss, url: 'redis://u:{MARK}@h', password: {MARK}}}}}",
    "a secret without a type": f"stores:\n  main:\n    password: {MARK}\n    namespace: 3\n",
    "a secret twice": f"stores:\n  main:\n    type: redis\n    password: {MARK}\n    password: {MARK}-2\n",
    "a secret behind a tab": f"stores:\n  main:\n    type: redis\n    password: {MARK}\n\tdb: 3\n",
    "a quotation mark that never ends": f'stores:\n  main:\n    type: redis\n    password: "{MARK}\n    db: 3\n',
    "a bracket after a secret": f"stores:\n  main:\n    password: {MARK}]: x: y\n",
    "a colon too many": f"stores:\n  main:\n    password: {MARK}: x\n",
    "an unknown middleware": f"stores: {{main: {{type: memory, middleware: {{encript: {{keys: [{MARK}]}}}}}}}}",
    "an unknown field of encrypt": (
        f"stores: {{main: {{type: memory, middleware: {{encrypt: {{key: [{MARK}], keys: [{MARK}-2]}}}}}}}}"
    ),
    "too short a key": f"stores: {{main: {{type: memory, middleware: {{encrypt: {{keys: [{MARK}, 3]}}}}}}}}",
    "a port that is none": f"stores: {{main: {{type: redis, namespace: a, url: 'redis://u:{MARK}@h:port/0'}}}}",
    "an unknown scheme": f"stores: {{main: {{type: redis, namespace: a, url: 'rediz://u:{MARK}@h/0'}}}}",
    "a query": f"stores: {{main: {{type: redis, namespace: a, url: 'redis://h/0?password={MARK}&x={MARK}-2'}}}}",
    "a credential twice": f"stores: {{main: {{type: redis, namespace: a, url: 'redis://u:{MARK}@h', password: x}}}}",
    "an unsafe part": "stores: {main: {type: redis, namespace: a, url: 'redis://u:${file:unsafe.txt}@h/0'}}",
    "a bad substitution": f"stores: {{main: {{type: redis, namespace: a, password: '{MARK}${{'}}}}",
    "a default": f"stores: {{main: {{type: redis, namespace: 3, url: 'redis://h', password: '${{X:-{MARK}}}'}}}}",
    "a default that has lost its hyphen": f"stores: {{main: {{type: redis, namespace: 3, password: '${{X:{MARK}}}'}}}}",
    "a required one": f"stores: {{main: {{{REDIS}, password: '${{X:?there must be one}}{MARK}'}}}}",
    "a file with the wrong type": f"stores: {{main: {{{REDIS}, db: '${{file:secret.txt}}'}}}}",
    "a resolver with the wrong type": f"stores: {{main: {{{REDIS}, db: '${{vault:x}}'}}}}",
    "a resolver as a reference": "stores: {main: {parent: '${vault:x}'}}",
    "a colliding root": (
        f"stores:\n  a: {{type: redis, namespace: n, url: 'redis://u:{MARK}@h/0'}}\n"
        f"  b: {{type: redis, namespace: n, url: 'redis://u:{MARK}@h/0'}}\n"
    ),
    "exclusive fields": f"stores: {{main: {{type: redis, namespace: a, url: 'redis://u:{MARK}@h', cluster: ['h:1']}}}}",
    "a secret in a child": f"stores: {{main: {{type: memory}}, c: {{parent: main, password: {MARK}}}}}",
    "a secret in an alias": f"stores: {{main: {{type: memory}}, c: {{use: main, password: {MARK}}}}}",
    "a secret in an environment": (
        f"stores: {{main: {{type: memory}}}}\nenvironments: {{one: {{stores: {{main: {{password: {MARK}}}}}}}}}"
    ),
    "a mapping of YAML that was meant as a password": f"stores: {{main: {{{REDIS}, password: {{{MARK}}}}}}}",
    "a password with a colon and a space": (
        f"stores:\n  main: {{type: memory, middleware: {{encrypt: {{keys: [{MARK}: {MARK}-2, 'x']}}}}}}\n"
    ),
    "a URL with a space": f"stores: {{main: {{type: redis, namespace: a, url: 'redis://u:{MARK} {MARK}-2@h:1'}}}}",
    "a URL without a colon": f"stores: {{main: {{type: redis, namespace: a, url: 'redis//u:{MARK}@h:1'}}}}",
    "a password as a user": f"stores: {{main: {{type: redis, namespace: a, cluster: ['{MARK}@h:1']}}}}",
    "a list of stores": f"stores: [{{type: redis, password: {MARK}}}]",
    "a list of environments": (
        f"stores: {{main: {{type: memory}}}}\nenvironments: [{{stores: {{main: {{type: redis, password: {MARK}}}}}}}]"
    ),
    "a list in an environment": (
        f"stores: {{main: {{type: memory}}}}\nenvironments: {{one: {{stores: [{{type: redis, password: {MARK}}}]}}}}"
    ),
    "a default without its colon": f"stores: {{main: {{{REDIS}, password: '${{X-{MARK}}}'}}}}",
    "a block that ends too early": (
        f"stores:\n  main:\n    type: redis\n    password: |\n      {MARK}-2\n     {MARK}: [\n      x\n"
    ),
    "a secret at the top": f"password: {MARK}\nstores: {{main: {{type: memory}}}}",
    "a long one over lines": (
        f"stores:\n  main:\n    type: redis\n    namespace: 1\n    password: |\n      {MARK}\n      {MARK}-2\n"
    ),
}
TOML = {
    "no end": f'[stores.main]\ntype = "redis"\npassword = "{MARK}\n',
    "no quotes": f'[stores.main]\ntype = "redis"\npassword = {MARK}\n',
    "twice": f'[stores.main]\ntype = "redis"\npassword = "{MARK}"\npassword = "{MARK}-2"\n',
    "a key below a text": f'stores.main.password = "x"\nstores.main.password.y = "{MARK}"\n',
    "rubbish behind": f'[stores.main]\ntype = "redis"\npassword = "{MARK}" x\n',
    "a list": f'[stores.main]\ntype = "redis"\nurl = "redis://h"\nnamespace = "a"\npassword = ["{MARK}"]\n',
}
JSON = {
    "no comma": f'{{"stores": {{"main": {{"type": "redis", "password": "{MARK}" "db": 3}}}}}}',
    "no end": f'{{"stores": {{"main": {{"type": "redis", "password": "{MARK}',
    "a comment": f'{{"stores": {{"main": {{"type": "redis", "password": "{MARK}", # no\n}}}}}}',
    "an escape": f'{{"stores": {{"main": {{"type": "redis", "password": "{MARK}\\x"}}}}}}',
}
CASES = [
    *(pytest.param("yaml", text, id=name) for name, text in BROKEN.items()),
    *(pytest.param("toml", text, id=f"TOML: {name}") for name, text in TOML.items()),
    *(pytest.param("json", text, id=f"JSON: {name}") for name, text in JSON.items()),
]


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize(("suffix", "text"), CASES)
def test_no_problem_shows_a_secret(
    suffix: str, text: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name)
    Path("unsafe.txt").write_text(f"{MARK}@x:y/z")
    Path(f"broken.{suffix}").write_text(text)
    for command in (
        *(["validate", "--format", form] for form in ("text", "json", "github", "sarif")),
        ["validate", "--without-secrets"],
        ["show"],
        ["explain", "stores.main.password"],
        ["tree"],
        ["get", "main", "k"],
    ):
        check(run(*command, "-f", f"broken.{suffix}"), caplog.text, command)


VARIABLES_THAT_FAIL = {
    "an unknown field": {"STORECONF__STORES__MAIN__PASSWORT": MARK},
    "a list": {"STORECONF__STORES__SESSIONS__MIDDLEWARE__ENCRYPT__KEYS": f"[{MARK}"},
    "a mapping": {"STORECONF__STORES__WATCHED__SENTINEL": f"{{password: {MARK}, x: y"},
    "a mapping that is good": {
        "STORECONF__STORES__WATCHED__SENTINEL": f"{{password: {MARK}, nodes: ['h:1'], service: s}}"
    },
    "a kind": {"STORECONF__STORES__NEW": f"{{type: redis, url: 'redis://h', namespace: n, password: {MARK}}}"},
    "both forms": {"STORECONF__STORES__BY_VARIABLE__PASSWORD": MARK},
    "a file that fits nothing": {"STORECONF__STORES__MAIN__DB_FILE": "secret.txt"},
    "one underscore": {"STORECONF_STORES__MAIN__PASSWORD": MARK},
    "a stranger": {"STORECONF_PASSWORD": MARK},
    "a URL": {"STORECONF__STORES__MAIN__URL": f"redis://u:{MARK}@h:port"},
    "a URL that is good": {"STORECONF__STORES__BY_PARTS__URL": f"valkey://u:{MARK}@h:1"},
    "an environment": {"STORECONF_ENV": "three"},
}


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("variables", VARIABLES_THAT_FAIL.values(), ids=VARIABLES_THAT_FAIL)
def test_no_variable_is_shown_where_it_is_a_secret(
    variables: dict[str, str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for command in (
        *(["validate", "--format", form] for form in ("text", "json", "github", "sarif")),
        ["show", "--origins"],
        ["env"],
        ["env", "--format", "json"],
        ["explain", "stores"],
        ["tree"],
    ):
        check(run(*command), caplog.text, command)


WORDS = ("redis", "true", "6379", "name", "main", "store", "stores", "connect", "memory", "127.0.0.1", "ab", "password")


@pytest.mark.parametrize("word", WORDS)
def test_a_secret_that_is_a_common_word_garbles_nothing(word: str) -> None:
    Path("storeconf.yaml").write_text(
        "stores:\n  main: {type: redis, url: 'redis://127.0.0.1:1/0', namespace: shop, retries: 0, "
        f"connect_timeout: 50ms, password: '{word}'}}\n  other: {{type: memory, description: name of redis}}\n"
    )
    shown = run("show").out
    assert shown.count("***") == 1
    assert 'password: "***"' in shown
    for command in (["validate"], ["ping"], ["get", "main", "k"], ["get", "none", "k"], ["changes", "storeconf.yaml"]):
        done = run(*command)
        assert "***" not in done.both, done.both
