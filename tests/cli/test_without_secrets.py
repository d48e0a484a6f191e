"""Commands that look at a layout do without its secrets: what is not known here is shown as the file says it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.running import run

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """
stores:
  main:
    type: redis
    url: "redis://app:${PASSWORD}@${HOST}/0"
    namespace: "${NAMESPACE}"
    tls: {ca_file: "${CA}"}
  cache:
    type: redis
    url: "${CACHE_URL:?give one}"
    db: 3
    namespace: cache
    password: "begins-${REST}"
    connect_timeout: "${WAIT}s"
    middleware:
      ttl: {default: "${TTL}", renew_on_get: true}
      encrypt: {keys: ["${file:/run/nothing/key}", "literal-${KEY}"]}
      compress: "${ALGORITHM}"
  pages: {parent: main, namespace: "${PAGES}", description: "${WHAT}"}
  local: {type: file, path: "${DIRECTORY}", mode: "${MODE}"}
default_factory: {parent: main, max_stores: "${MOST}"}
environments:
  staging: {}
  production: {stores: {cache: {url: "${PRODUCTION_URL}"}}}
"""
UNKNOWN = """
stores:
  a: {type: "${TYPE}", password: geheimnis, middleware: {encrypt: geheimnis2, ttl: 5}}
  b: {parent: "${PARENT}", namespace: x}
  c: {use: "${USE}"}
  d: {parent: a}
  e: {type: file, path: var, middleware: {fallback: "${FALLBACK}"}}
default_factory: "${DEFAULT}"
"""
SHOWN = """\
stores:
  a:
    type: "${TYPE}"
    password: "***"
    middleware:
      encrypt: "***"
      ttl: 5
  b:
    parent: "${PARENT}"
    namespace: x
  c:
    use: "${USE}"
  d:
    parent: a
"""


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "storeconf.yaml").write_text(TEXT)
    (tmp_path / "unknown.yaml").write_text(UNKNOWN)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            "show",
            ["url: redis://app:***@${HOST}/0", 'ca_file: "${CA}"', 'password: "***"', '["${file:/run/nothing/key}"'],
        ),
        ("show --origins --format json", ['"value": "${PRODUCTION_URL}"', '"line": 24', '"value": "${MODE}"']),
        ("show --format toml", ['connect_timeout = "${WAIT}s"', 'url = "${PRODUCTION_URL}"']),
        ("explain stores.cache.url", ["${PRODUCTION_URL}", "${CACHE_URL:?give one}", "storeconf.yaml:10:10"]),
        ("explain stores.main.url", ["redis://app:***@${HOST}/0"]),
        ("env", ["STORECONF__STORES__CACHE__MIDDLEWARE__TTL__DEFAULT", "${TTL}", "${PAGES}"]),
        ("tree", ["${NAMESPACE}:${PAGES}", "ttl ${TTL}", "compress ${ALGORITHM}", "file ${DIRECTORY}"]),
        ("tree --format json", ['"${PAGES}"', '"description": "${WHAT}"']),
        ("graph", ["redis ${NAMESPACE}", "${PAGES}"]),
        ("graph --format html", ["${PRODUCTION_URL}"]),
    ],
)
def test_what_is_not_known_is_shown_as_the_file_says_it(command: str, expected: list[str]) -> None:
    without = run(*command.split(), "--env", "production")
    assert without.status == 1
    assert "SC402" in without.err
    assert without.out == ""
    done = run(*command.split(), "--env", "production", "--without-secrets")
    assert (done.status, done.err) == (0, "")
    for text in expected:
        assert text in done.out, done.out
    assert "begins-" not in done.out
    assert "literal-" not in done.out
    assert "placeholder" not in done.out


def test_of_a_text_around_secrets_only_they_are_hidden(work: Path) -> None:
    (work / "password").write_text("s3cret\n")
    (work / "around.yaml").write_text("""
stores:
  a: {type: redis, url: "redis://app:${file:password}@db:6379/2", namespace: "x-${file:password}"}
  b: {type: redis, url: "redis://${file:password}.internal", namespace: b, client_name: "a-${file:password}-$$"}
  c: {type: redis, url: "redis://app:${file:nothing:-literal}@db", namespace: c}
  d: {type: file, path: "var/${file:password}"}
""")
    done = run("show", "-f", "around.yaml")
    for text in ("redis://app:***@db:6379/2", "x-***", "redis://***.internal", "a-***-$", "redis://app:***@db"):
        assert text in done.out, done.out
    assert 'path: "***"' in done.out
    explained = "".join(run("explain", f"stores.{name}", "-f", "around.yaml").out for name in "abcd")
    explained += run("explain", "stores.b.client_name", "-f", "around.yaml").out
    assert "a-${file:password}-$$" in explained
    for text in (done.both, explained):
        assert "s3cret" not in text
        assert "literal" not in text


def test_environments_are_compared() -> None:
    done = run("diff", "staging", "production", "--without-secrets", "--format", "json")
    assert done.status == 1
    assert done.json["diff"] == [
        {
            "path": "stores.cache.url",
            "change": "changed",
            "before": "${CACHE_URL:?give one}",
            "after": "${PRODUCTION_URL}",
        }
    ]


def test_stores_of_which_the_kind_is_not_known_are_shown() -> None:
    done = run("show", "-f", "unknown.yaml", "--without-secrets")
    assert (done.status, done.err) == (0, "")
    assert SHOWN in done.out
    assert 'fallback: "${FALLBACK}"' in done.out
    assert 'default_factory: "${DEFAULT}"' in done.out
    for path in ("stores.a", "stores.a.middleware.encrypt", "stores.c.use", "default_factory"):
        assert run("explain", path, "-f", "unknown.yaml", "--without-secrets").status == 0
    assert "geheimnis" not in run("env", "-f", "unknown.yaml", "--without-secrets").both


@pytest.mark.parametrize("command", ["tree", "graph"])
def test_a_tree_needs_to_know_kinds_and_parents(command: str) -> None:
    done = run(command, "-f", "unknown.yaml", "--without-secrets")
    assert (done.status, done.out) == (1, "")
    places = ("3:13", "4:15", "5:12", "7:53", "8:18")
    for place in places:
        assert f"--> unknown.yaml:{place}" in done.err
    assert done.err.count("which is not known here") == len(places)
    assert "geheimnis" not in done.err
