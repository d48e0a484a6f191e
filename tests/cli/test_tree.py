"""`storeconf tree` and `graph`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.running import run

if TYPE_CHECKING:
    from pathlib import Path

LAYOUT = """
stores:
  local: {type: memory, max_size: 67108864}
  main:
    type: redis
    url: "redis://u:hunter2@h:6379/0"
    namespace: shop
    tls: {ca_file: ca.pem}
    middleware: {ttl: 3600, timeout: 1500ms}
  cache: {parent: main, description: <what & "why">, middleware: {timeout: false, compress: zstd, fallback: local}}
  pages: {parent: cache, namespace: html}
  end: {use: pages}
default_factory: {parent: cache, middleware: {read_only: {}}}
environments: {production: {}}
"""


@pytest.fixture(autouse=True)
def _layout(directory: Path) -> None:
    (directory / "storeconf.yaml").write_text(LAYOUT)
    (directory / "ca.pem").touch()


def test_the_tree_shows_what_hangs_together() -> None:
    done = run("tree", "--env", "production")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == [
        "production  storeconf.yaml",
        "local                              memory max_size 64MiB",
        "main            shop               redis redis://u:***@h:6379/0, tls(ca_file ca.pem)  ttl 1h > timeout 1.5s",
        "└─ cache        shop:cache         ttl 1h > fallback local > compress zstd",
        "   └─ pages     shop:cache:html    ttl 1h > fallback local > compress zstd",
        "      └─ end                       the same store",
        "any other name  shop:cache:<name>  read_only > ttl 1h > fallback local > compress zstd",
    ]


@pytest.mark.parametrize(
    ("factory", "line"),
    [
        ("", "any other name  <name>  a hidden memory store, with a warning"),
        ("default_factory: forbid", "any other name          is an error"),
        ("default_factory: {use: a}", "any other name          the same store as a"),
        ("default_factory: {type: memory, namespace: n}", "any other name  n:<name>  memory"),
        ("default_factory: {parent: a}", "any other name  <name>"),
    ],
)
def test_what_any_other_name_gets(factory: str, line: str, directory: Path) -> None:
    (directory / "other.yaml").write_text(f"stores: {{a: {{type: memory}}}}\n{factory}\n")
    last = run("tree", "-f", "other.yaml").out.splitlines()[-1]
    assert last.split() == line.split()


def test_the_tree_in_json() -> None:
    shown = run("tree", "--env", "production", "--format", "json").json
    assert shown["format"] == 1
    assert shown["environment"] == "production"
    by_name = {each["name"]: each for each in shown["tree"]}
    assert list(by_name) == ["local", "main", "cache", "pages", "end"]
    assert by_name["cache"] == {
        "name": "cache",
        "kind": "namespace",
        "type": "redis",
        "parent": "main",
        "use": None,
        "namespace": ["shop", "cache"],
        "middleware": ["ttl", "fallback", "compress"],
        "unsupported": [],
        "description": '<what & "why">',
    }
    assert (by_name["end"]["kind"], by_name["end"]["use"]) == ("alias", "pages")
    assert by_name["end"]["namespace"] == by_name["pages"]["namespace"] == ["shop", "cache", "html"]
    assert shown["default_factory"]["path"] == ["shop", "cache"]


PLUGIN = """
from typing import ClassVar, Literal

import storeconf
from storeconf.middleware import StoreWrapper
from storeconf.stores import MemoryStore


class Plain(MemoryStore):
    capabilities = storeconf.Capabilities(atomic=frozenset({"add", "touch", "pop", "compare_and_set"}))


class PlainBackend(storeconf.Backend):
    capabilities: ClassVar[storeconf.Capabilities] = Plain.capabilities
    type: Literal["plain"] = "plain"

    def build(self, context):
        return Plain()


class Less(StoreWrapper):
    def on_bind(self):
        self.capabilities = storeconf.Capabilities(atomic=self.wrapped.capabilities.atomic - {"pop"})


class LessMiddleware(storeconf.Middleware):
    kind: ClassVar[str] = "less"

    def wrap(self, inner, context):
        return Less(inner)
"""


def test_the_tree_announces_what_a_store_does_not_offer(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = directory / "plain-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plain\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[storeconf.backends]\nplain = plain_plugin:PlainBackend\n"
        "[storeconf.middleware]\nless = plain_plugin:LessMiddleware\n"
    )
    (directory / "plain_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(directory))
    (directory / "plain.yaml").write_text(
        "stores:\n  a: {type: plain}\n  b: {parent: a, middleware: {less: {}}}\n"
        "  c: {type: memory, middleware: {less: {}}}\n"
    )
    lines = [line.split() for line in run("tree", "-f", "plain.yaml").out.splitlines()[1:4]]
    assert lines[0] == ["a", "plain", "without", "increment"]
    assert lines[1] == ["└─", "b", "b", "less", "without", "pop,", "increment"]
    assert lines[2] == ["c", "memory", "less", "without", "pop"]
    shown = run("tree", "-f", "plain.yaml", "--format", "json").json["tree"]
    assert shown[0]["unsupported"] == ["increment"]
    assert [each["unsupported"] for each in shown] == [["increment"], ["pop"], ["pop", "increment"]]
    rows = [line.split() for line in run("plugins").out.splitlines()]
    assert next(row for row in rows if row[:2] == ["plain", "loaded"])[-3:] == ["without", "increment,", "renew"]


def test_no_depth_is_too_deep(directory: Path) -> None:
    children = "".join(f"  s{n}: {{parent: s{n - 1}}}\n" for n in range(1, 1500))
    (directory / "deep.yaml").write_text(f"stores:\n  s0: {{type: memory, middleware: {{ttl: 1s}}}}\n{children}")
    for arguments in (["tree"], ["tree", "--format", "json"], ["graph"], ["graph", "--format", "html"], ["show"]):
        assert run(*arguments, "-f", "deep.yaml").status == 0


# ---------------------------------------------------------------------- graph


def test_mermaid_needs_no_name_to_be_one_of_its_own() -> None:
    done = run("graph", "--env", "production")
    assert done.out.splitlines() == [
        "---",
        'title: "production: storeconf.yaml"',
        "---",
        "flowchart LR",
        '  n0[("local<br/>memory")]',
        '  n1[("main<br/>redis shop<br/>ttl &gt; timeout")]',
        '  n2["cache<br/>shop:cache<br/>ttl &gt; fallback &gt; compress"]',
        '  n3["pages<br/>shop:cache:html<br/>ttl &gt; fallback &gt; compress"]',
        '  n4(["end"])',
        '  rest>"any other name<br/>shop:cache:&lt;name&gt;<br/>read_only &gt; ttl &gt; fallback &gt; compress"]',
        "  n1 --> n2",
        "  n2 -. calls .-> n0",
        "  n2 --> n3",
        "  n3 -. calls .-> n0",
        "  n4 -. use .-> n3",
        "  n2 --> rest",
        "  rest -. calls .-> n0",
    ]


def test_dot_names_the_same_nodes_and_edges() -> None:
    done = run("graph", "--env", "production", "--format", "dot")
    assert done.out.startswith("digraph storeconf {\n")
    assert done.out.endswith("}\n")
    assert '  n2 [shape=box, label="cache\\nshop:cache\\nttl > fallback > compress"];' in done.out
    assert done.out.count(" -> ") == 7
    assert done.out.count('"') % 2 == 0


def document(*arguments: str) -> dict[str, Any]:
    """What the page draws; tests/browser shows that it does."""
    done = run("graph", "--format", "html", *arguments)
    assert (done.status, done.err) == (0, "")
    found = re.search(r'<script id="document" type="application/json">(.*?)</script>', done.out)
    assert found
    drawn: dict[str, Any] = json.loads(found[1])
    return drawn


def test_the_page_needs_nothing_else_and_has_no_secret() -> None:
    done = run("graph", "--env", "production", "--format", "html")
    assert not re.findall(r"(?:src|href|@import|url)\s*[=(]\s*[\"']?(?!#)", done.out.replace('"url(#arrow)"', ""))
    assert "http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'sha256-" in done.out
    assert "hunter2" not in done.out
    assert done.out.count("<script") == done.out.count("</script>") == 2
    assert "<what" not in done.out


def test_the_page_has_every_environment_with_the_location_of_each_value() -> None:
    drawn = document("--set", "stores.cache.description=</script><!--")
    (environment,) = drawn["environments"]
    assert (drawn["chosen"], environment["name"], environment["files"]) == (
        "production",
        "production",
        "storeconf.yaml",
    )
    stores = {each["name"]: each for each in environment["stores"]}
    assert list(stores) == ["local", "main", "cache", "pages", "end", "*"]
    assert stores["cache"]["description"] == "</script><!--"
    assert stores["cache"]["calls"] == [{"kind": "fallback", "store": "local"}]
    assert stores["*"]["namespace"] == ["shop", "cache", "<name>"]
    assert [(link["kind"], link["from"]) for link in stores["pages"]["chain"]] == [
        ("ttl", "main"),
        ("fallback", "cache"),
        ("compress", "cache"),
    ]
    (url,) = [each for each in stores["main"]["values"] if each["path"] == "url"]
    assert (url["value"], url["places"][0]["at"]) == ("redis://u:***@h:6379/0", "storeconf.yaml:6:10")
    described = next(each for each in stores["cache"]["values"] if each["path"] == "description")
    assert [each["at"] for each in described["places"]] == ["--set", "storeconf.yaml:10:38"]


def test_the_page_reads_a_layout_from_a_pipe_once() -> None:
    piped = b"stores: {a: {type: memory, max_size: '${SIZE}'}}\nenvironments: {one: {}, two: {}}\n"
    done = run("graph", "--format", "html", "-f", "-", "--without-secrets", "--env", "two", stdin=piped)
    assert (done.status, done.err) == (0, "")
    assert "${SIZE}" in done.out
    assert "<stdin>:1:" in done.out.replace("\\u003c", "<").replace("\\u003e", ">")


@pytest.mark.parametrize(("factory", "kind"), [("default_factory: forbid", "forbid"), ("", "absent")])
def test_the_page_shows_what_other_names_get(factory: str, kind: str, directory: Path) -> None:
    (directory / "storeconf.yaml").write_text(f"stores: {{a: {{type: memory}}}}\n{factory}\n")
    assert document()["environments"][0]["stores"][-1]["kind"] == kind


def test_equal_secrets_can_be_told_from_different_ones(directory: Path) -> None:
    (directory / "storeconf.yaml").write_text(
        "stores: {a: {type: redis, url: redis://h, namespace: n, password: hunter2}}\n"
        "environments: {one: {}, two: {stores: {a: {password: hunter2}}}, three: {stores: {a: {password: hunter3}}}}\n"
    )
    values = [each["stores"][0]["values"] for each in document()["environments"]]
    passwords = [next(each for each in those if each["path"] == "password") for those in values]
    assert [each["value"] for each in passwords] == ["***"] * 3
    assert [each["same"] for each in passwords] == [0, 0, 1]


def test_an_environment_that_is_not_valid_does_not_hide_the_others(directory: Path) -> None:
    (directory / "storeconf.yaml").write_text(
        "stores: {a: {type: memory}}\n"
        "environments: {one: {}, two: {stores: {a: {max_entires: 1}}}, three: {stores: {a: {max_size: '${SIZE}'}}}}\n"
    )
    one, two, three = document()["environments"]
    assert (one["problems"], three["problems"]) == ([], [])
    assert [(each["code"], each["at"]) for each in two["problems"]] == [("SC501", "storeconf.yaml:2:44")]
    assert (one["incomplete"], two["stores"], three["incomplete"]) == (False, [], True)
    assert "${SIZE}" in str(three["stores"])
    done = run("graph", "--format", "html", "--env", "two")
    assert (done.status, done.out) == (1, "")
    (directory / "storeconf.yaml").write_text("stores: {a: {type: memory, size: 1}}\n")
    done = run("graph", "--format", "html")
    assert (done.status, done.out) == (1, "")
    assert "SC501" in done.err
