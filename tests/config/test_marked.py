"""Broken layouts: exactly what is marked is found, each problem once, and at the very node."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import yaml

from storeconf.catalog import Catalog
from storeconf.diagnostics.render import Format, render, render_text
from storeconf.layout import check_layout
from tests import sarif
from tests.config.marked import Case, place

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = [
    Case("tab", "stores:\n⟦SC107:\t⟧main: {type: memory}\n"),
    *(
        Case(f"never closed {number}", text)
        for number, text in enumerate(
            ["stores: ⟦SC107:[⟧", "stores: {a: ⟦SC107:{⟧b: [1], c:\n", "a:\n  - ⟦SC107:[⟧b, {c: d},\n\n# e\n"]
        )
    ),
    Case("root scalar", "⟦SC117:memory⟧\n"),
    Case("root list in JSON", {"storeconf.json": "⟦SC117:[]⟧\n"}),
    Case("half a character", {"storeconf.json": '{"x-a": ⟦SC106:"\\ud800"⟧}\n'}),
    Case("a date", {"storeconf.toml": "x-a = ⟦SC116:2026-01-01⟧\n"}),
    Case(
        "a table twice",
        {"storeconf.toml": "[stores.a]\ntype = 'memory'\n[stores.⟦SC108:a⟧]\n[ stores . ⟦SC108:'a'⟧ ]\n"},
        says=("first defined here\n --> storeconf.toml:1:9",),
    ),
    Case("a tag", "stores: {a: {type: memory, max_entries: ⟦SC112:!!int⟧ '5'}}\n"),
    Case("a tag with a handle", "x-a: [⟦SC112:!<tag:example.com,2026:a>⟧ 5, ⟦SC112:!b⟧ 6]\n"),
    Case("one of several merged", "x-a: &a {type: memory}\nstores: {a: {<<: [*a, ⟦SC115:5⟧, *a, ⟦SC115:t⟧]}}\n"),
    Case("nothing merged", "stores: {a: {<<: [], type: memory}}\n"),
    Case("a list as a key", "stores:\n  ? ⟦SC114:[⟧a]\n  : {type: memory}\n  b: {type: memory}\n"),
    Case("a mapping as a key", "stores:\n  ⟦SC114:{⟧a: b}: {⟦SC114:[⟧c]: d, e: {f: 1, ⟦SC108:f⟧: 2}}\n"),
    Case("lists in a list as a key", "stores:\n  ? ⟦SC114:[⟧[a], {b: c}]\n  : [d]\n"),
]

BROKEN = "stores: {main: {type: ⟦SC107:@⟧memory}}\n"

INCOMPLETE = [
    Case(
        "what is wrong beside a file that is broken",
        {
            "storeconf.yaml": """
extends: [base.yaml, missing.yaml]
version: ⟦SC505:2⟧
stores:
  a: {type: memory, ⟦SC501:foo⟧: 1, max_size: ⟦SC504:much⟧, middleware: {⟦SC701:tll⟧: 5, ttl: {max: ⟦SC503:[]⟧}}}
  b: {type: ⟦SC701:memry⟧}
  ⟦SC509:c_⟧: {parent: a, namespace: d}
  d: {parent: a, namespace: x}
  e: {parent: a, ⟦SC603:namespace⟧: x}
  f: {parent: ⟦SC602:g⟧}
  g: {use: f}
  h: {type: memory, ⟦SC507:parent⟧: a}
  i: {type: file, path: "${HOM⟧E"}
⟦SC501:store⟧: {}
""".replace("missing.yaml", "⟦SC203:missing.yaml⟧").replace('"${HOM⟧E"', '"⟦SC402:${HOME}⟧"'),
            "base.yaml": BROKEN,
        },
    ),
    Case(
        "what follows from a file that is broken",
        {
            "storeconf.yaml": """
extends: [base.yaml]
stores:
  a: {parent: main}
  b: {use: main}
  main: {url: "redis://h"}
  c: {max_size: null, namespace: x}
  d: {type: redis, db: 3}
  e: {type: redis, url: "redis://h", namespace: x}
  f: {type: redis, url: "redis://h", namespace: x}
  g: {type: memory, middleware: {fallback: main, ttl: {renew_on_get: true}}}
  h: {parnet: main}
  i: {type: redis, url: "redis://h", namespace: y, tls: {key_file: k.pem}}
default_factory: {parent: main}
unset: [stores.j]
""",
            "base.yaml": BROKEN,
        },
        {
            "STORECONF__STORES__MAIN__MAX_ENTRIES": "5",
            "STORECONF__STORES__OTHER__URL": "x",
            "STORECONF__STORES__D__CLUSTER__2": "a:1",
            "STORECONF__STORES__MIAN__TYPE": "memory",
        },
        options={"overrides": [("stores.main.db", "3")], "environment": "production"},
    ),
    Case(
        "what an overlay that is broken may change",
        {
            "storeconf.yaml": """
stores:
  a: {type: redis, url: "${REDIS_URL}", namespace: x, ⟦SC501:foo⟧: 1}
  b: {type: memory, description: "${A:?give it} ${file:nothing} ⟦SC401:${}⟧"}
""",
            "storeconf.production.yaml": BROKEN,
        },
    ),
    Case(
        "two overlays",
        {
            "storeconf.yaml": "stores: {a: {type: memory, max_entries: ⟦SC503:x⟧}}\n",
            "storeconf.p.yaml": "{}\n",
            "storeconf.p.json": "{}\n",
        },
        also=(("SC209", "storeconf.p.yaml"),),
    ),
    Case(
        "a text over a mapping",
        {
            "storeconf.yaml": "extends: [base.yaml]\nstores: {a: ⟦SC503:memory⟧, b: {type: memory}}\n",
            "base.yaml": "stores: {a: {type: memory}, b: ⟦SC211:memory⟧}\n",
        },
    ),
    Case(
        "a number over a mapping",
        {"storeconf.yaml": "extends: [b.yaml]\nstores: ⟦SC503:3⟧\n", "b.yaml": "stores: {a: {type: memory}}\n"},
    ),
    Case(
        "files that extend each other",
        {
            "storeconf.yaml": "extends: [b.yaml]\nstores: {a: {parent: ⟦SC601:c⟧}}\n",
            "b.yaml": "extends: [⟦SC204:storeconf.yaml⟧]\nstores: {b: {parent: ⟦SC601:d⟧}}\n",
        },
    ),
    Case(
        "a JSON Schema that lies beside",
        {
            "storeconf.yaml": "stores: {a: {type: memory, ⟦SC501:b⟧: 1}}\n",
            "storeconf.schema.json": '{"definitions": {}}\n',
            "storeconf.schema.yaml": "⟦SC501:definitions⟧: {}\n",
        },
    ),
    Case(
        "an extended directory",
        {"storeconf.yaml": "extends: [sub]\nstores: {a: {type: memory, ⟦SC501:b⟧: 1}}\n", "sub/x": ""},
        also=(("SC102", "sub"),),
        says=("it is extended here\n --> storeconf.yaml:1:11",),
    ),
]

FIELDS = [
    Case(
        "names that need quotes",
        """
stores:
  "1": {type: memory}
  a: {parent: ⟦SC503:1⟧}
  b: {use: ⟦SC503:true⟧}
  c: {parent: "1", namespace: ⟦SC503:5⟧}
  d: {type: memory, description: ⟦SC503:2026⟧}
default_factory: {parent: "1", max_stores: ⟦SC503:"5"⟧}
""",
        says=(
            'hint: put it in quotes: parent: "1"',
            'hint: put it in quotes: use: "true"',
            'hint: put it in quotes: namespace: "5"',
            'hint: put it in quotes: description: "2026"',
            "hint: write it without quotes: max_stores: 5",
        ),
    ),
    Case(
        "settings that stand alone",
        """
stores:
  a: {type: memory, middleware: {ttl: ⟦SC504:soon⟧, read_only: ⟦SC503:yes⟧, on_error: ⟦SC504:mis⟧}}
  b: {type: memory, middleware: {ttl: ⟦SC504:0⟧, compress: ⟦SC504:gzp⟧, retry: ⟦SC503:"5"⟧}}
  c: {type: memory, middleware: {ttl: {default: ⟦SC504:0⟧, max: ⟦SC504:-1⟧}, read_only: {enabled: ⟦SC503:5⟧}}}
  e: {type: memory, middleware: {encrypt: ⟦SC503:[some-key]⟧}}
  d: {type: memory, middleware: {⟦SC504:ttl⟧: true, limit: ⟦SC504:64KiBs⟧}}
""",
        says=(
            "ttl: 'soon' is not a duration",
            'read_only must be true or false, not the text "yes"',
            "on_error must be 'raise' or 'miss'",
            "compress must be 'zstd'",
            "ttl must be greater than zero",
            "write it without quotes: retry: 5",
            "default must be greater than zero",
            "enabled must be true or false, not the whole number 5",
            "give default, max, or renew_on_get",
            "name the setting: encrypt: {keys: […]}",
        ),
    ),
    Case(
        "a required field that is misspelt",
        "stores: {f: {type: file, ⟦SC501:pth⟧: x}, r: {type: redis, sentinel: {⟦SC501:node⟧: [a:1], service: s}, "
        "namespace: x}, ⟦SC502:g⟧: {type: file, ⟦SC501:zzz⟧: x}}\n",
    ),
    Case(
        "a name of a namespace and all else",
        "stores: {m: {type: memory, namespace: ⟦SC509:a b⟧, max_entries: ⟦SC503:x⟧}, "
        "⟦SC510:r⟧: {type: redis, namespace: ⟦SC509:a:b⟧}, "
        "c: {parent: ⟦SC601:nobody⟧, namespace: ⟦SC509:a/b⟧}, d: {parent: ⟦SC601:nobody⟧, namespace: ⟦SC503:[]⟧}}\n",
    ),
    Case(
        "what contradicts the server",
        "stores:\n  a: {type: redis, cluster: ['a:1'], ⟦SC504:db⟧: 3, namespace: x}\n"
        "  b: {type: redis, url: 'unix:///s', ⟦SC504:tls⟧: true, namespace: x}\n"
        "  c: {type: redis, url: 'rediss://h', ⟦SC504:tls⟧: false, namespace: x}\n"
        "  d: {type: redis, url: 'redis://h', client_name: ⟦SC504:a b⟧, namespace: x}\n",
    ),
    Case(
        "a kind restated, once by a substitution",
        "stores: {a: {type: '${KIND}', url: 'redis://h', namespace: x}, b: {type: redis, url: 'redis://h',"
        " namespace: y}}\nenvironments: {p: {stores: {a: {type: redis, db: 1}, b: {type: '${KIND}', db: 1}}}}\n",
        {"KIND": "redis"},
    ),
    Case(
        "a kind changed by a substitution",
        "stores: {a: {type: '${KIND}', url: 'redis://h', namespace: x}}\n"
        "environments: {p: {stores: {a: {type: memory, max_entries: ⟦SC503:x⟧}}}}\n",
        {"KIND": "redis"},
    ),
    Case(
        "two required fields",
        "stores: {a: {type: redis, ⟦SC502:sentinel⟧: {tls: true}, namespace: x}}\n",
        also=(("SC502", "storeconf.yaml:1:27-1:35"),),
        says=('for example nodes: ["10.0.0.1:26379", "10.0.0.2:26379"]', 'for example service: "mymaster"'),
    ),
    Case("a default factory that forbids", "⟦SC506:default_factory⟧: {forbid: true}\n", says=("{use: X}, or forbid",)),
    Case("a template among the stores", "stores: {⟦SC506:x-a⟧: {max_entries: 1}}\n", says=("at the top only",)),
    Case("bytes only", "stores: {a: {type: memory, objects: true, middleware: {⟦SC607:compress⟧: gzip}}}\n"),
]

PLACES = [
    Case(
        "clusters that have a node in common",
        "stores:\n  a: {type: redis, cluster: ['a:1', 'b:2'], namespace: x}\n"
        "  ⟦SC604:b⟧: {type: valkey, cluster: ['B:2', 'c:3', 'a:1'], namespace: x}\n"
        "  ⟦SC604:c⟧: {type: redis, url: 'redis://a:1', namespace: x}\n"
        "  d: {type: redis, cluster: ['b:2'], namespace: y}\n",
    ),
    Case(
        "Sentinels that have a node in common",
        "stores:\n  a: {type: redis, sentinel: {nodes: ['a:1', 'b:1'], service: s}, namespace: x}\n"
        "  ⟦SC604:b⟧: {type: redis, sentinel: {nodes: ['b:1'], service: s}, namespace: x}\n"
        "  c: {type: redis, sentinel: {nodes: ['a:1'], service: t}, namespace: x}\n"
        "  d: {type: redis, url: 'redis://a:1', namespace: x}\n",
    ),
    Case(
        "a node that is named twice",
        "stores: {a: {type: redis, cluster: ['127.0.0.1:1', 'localhost:1', '[::1]:1'], namespace: x}}\n",
    ),
    Case(
        "roots that collide by what other layers say",
        {
            "storeconf.yaml": """
stores:
  a: {type: redis, url: "redis://a", namespace: x}
  ⟦SC604:b⟧: {type: redis, url: "redis://b", namespace: x}
  c: {type: file, path: var/c}
environments:
  production: {stores: {a: {url: "redis://one"}}}
""",
            "storeconf.production.yaml": "stores: {⟦SC604:d⟧: {type: file, path: var/c}}\n",
        },
        {"STORECONF__STORES__B__URL": "redis://one:6379"},
        says=(
            "'a' gets its url here\n --> storeconf.yaml:7:34\n",
            "'b' gets its url here\n --> variable STORECONF__STORES__B__URL\n",
        ),
    ),
    Case(
        "one socket",
        "stores:\n  a: {type: redis, url: 'unix:///run/s', namespace: x}\n"
        "  ⟦SC604:b⟧: {type: redis, url: 'unix:///run/../run/s', namespace: x}\n",
    ),
]

VARIABLES = [
    Case(
        "variables that are nearly right",
        "stores: {main: {type: memory}}\n",
        {
            "STORECONF_ENB": "x",
            "STORECONF_FLIE": "x",
            "STORECONF_PORT": "tcp://10.0.0.1:80",
            "STORECONF__STORES__MIAN__TYPE": "memory",
            "STORECONF__STORES__MAIN2__TYPE": "memory",
        },
        (
            ("SC304", "$STORECONF_ENB"),
            ("SC304", "$STORECONF_FLIE"),
            ("SC804", "$STORECONF_PORT"),
            ("SC806", "$STORECONF__STORES__MIAN__TYPE"),
        ),
    ),
    Case(
        "removals",
        {
            "storeconf.yaml": "stores: {a: {type: memory, ⟦SC802:max_size⟧: null}, ⟦SC802:b⟧: }\n",
            "storeconf.p.toml": 'unset = [⟦SC802:"stores.c"⟧]\n',
        },
        says=("hint: null, or an empty value, removes the value set by lower layers",),
    ),
]

WITHOUT = {"without_secrets": True}

PLACEHOLDERS = [
    Case(
        "placeholders for all",
        """
stores:
  a: {type: "${T}", anything: 1}
  b: {type: memory, middleware: {fallback: "${S}", ttl: {renew_on_get: "${R}"}}}
  c: {type: memory, middleware: {fallback: {store: "${file:nothing}"}}}
  d: {type: redis, url: "${U}", db: 3, namespace: x, tls: {ca_file: "${C}"}}
  e: {parent: b, namespace: "${N}"}
  f: {parent: b, namespace: "${N2}"}
  g: {parent: a}
default_factory: {parent: "${P}", max_stores: "${M}"}
""",
        options=WITHOUT,
    ),
    Case(
        "placeholders beside what is wrong",
        """
stores:
  a: {parent: ⟦SC601:nobody⟧, namespace: "${N}"}
  b: {type: redis, url: "${U}", namespace: x, password: "${file:nothing}", db: ⟦SC504:-1⟧}
  c: {type: memory, middleware: {fallback: ⟦SC601:nobody⟧, encrypt: {keys: ["${K}"], ⟦SC501:kyes⟧: 1}}}
  d: {type: redis, password: "⟦SC406:${PASSWORD}⟧://${A}", url: redis://h, namespace: y}
""",
        {"PASSWORD": "p@ss"},
        options=WITHOUT,
    ),
]


CASES = [*TEXTS, *INCOMPLETE, *FIELDS, *PLACES, *VARIABLES, *PLACEHOLDERS]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_exactly_what_is_marked_is_found(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, expected = case.examine(tmp_path, monkeypatch)
    text = render_text(report.diagnostics)
    assert sorted((each.code, place(each)) for each in report.diagnostics) == sorted(expected), text
    for words in case.says:
        assert words in text
    log = sarif.check(render(report.diagnostics, "sarif", layout="storeconf.yaml"))
    assert [each["ruleId"] for each in log["runs"][0]["results"]] == [each.code for each in report.diagnostics]


def test_notes_that_stand_in_variables_are_shown_in_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(each for each in PLACES if each.name.startswith("roots that collide"))
    report, _ = case.examine(tmp_path, monkeypatch)
    said = "'b' gets its url here (variable STORECONF__STORES__B__URL)"
    forms: tuple[Format, ...] = ("github", "sarif")
    for form in forms:
        assert said in render(report.diagnostics, form)


@pytest.mark.parametrize("each", ["{{parent: nobody{0}}}", "{{max_size: {0}}}", "{{use: s{0}x}}"])
def test_many_stores_in_error_take_no_longer_than_they_must(each: str) -> None:
    stores = "".join(f"  s{number}: {each.format(number)}\n" for number in range(1_500))
    known = "".join(f"  k{number}: {{type: memory}}\n" for number in range(1_500))
    source = {"stores": yaml.safe_load(stores + known)}
    before = time.process_time()
    report = check_layout(source, environ={}, catalog=Catalog.builtin())
    assert len(report.diagnostics) == 1_500
    assert time.process_time() - before < 4  # seconds; a tenth of it on a quiet machine, and quadratic many times more


def test_a_file_without_a_name() -> None:
    (found,) = check_layout("", environ={}).diagnostics
    assert (found.code, found.message, found.place) == ("SC101", "the file's name is empty", None)
