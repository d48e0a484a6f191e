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


@pytest.mark.parametrize("case", TEXTS, ids=str)
def test_exactly_what_is_marked_is_found(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, expected = case.examine(tmp_path, monkeypatch)
    text = render_text(report.diagnostics)
    assert sorted((each.code, place(each)) for each in report.diagnostics) == sorted(expected), text
    for words in case.says:
        assert words in text
