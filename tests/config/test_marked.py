"""Broken layouts: exactly what is marked is found, each problem once, and at the very node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from storeconf._render import render_text
from tests.config.marked import Case, place

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = [
    Case("tab", "stores:\n⟦SC107:\t⟧main: {type: memory}\n"),
    Case("root scalar", "⟦SC117:memory⟧\n"),
    Case("root list in JSON", {"storeconf.json": "⟦SC117:[]⟧\n"}),
    Case("half a character", {"storeconf.json": '{"x-a": ⟦SC106:"\\ud800"⟧}\n'}),
    Case("a date", {"storeconf.toml": "x-a = ⟦SC116:2026-01-01⟧\n"}),
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
        "an extended directory",
        {"storeconf.yaml": "extends: [sub]\nstores: {a: {type: memory, ⟦SC501:b⟧: 1}}\n", "sub/x": ""},
        also=(("SC102", "sub"),),
        says=("it is extended here\n --> storeconf.yaml:1:11",),
    ),
]


@pytest.mark.parametrize("case", [*TEXTS, *INCOMPLETE], ids=str)
def test_exactly_what_is_marked_is_found(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, expected = case.examine(tmp_path, monkeypatch)
    text = render_text(report.diagnostics)
    assert sorted((each.code, place(each)) for each in report.diagnostics) == sorted(expected), text
    for words in case.says:
        assert words in text
