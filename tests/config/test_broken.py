"""A law: break one node of a layout, in whatever way and format, and the one diagnostic points at that very node."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from storeconf.catalog import Catalog
from storeconf.config.document import parse
from storeconf.config.tree import lookup
from storeconf.layout import check_layout
from tests.config.documents import render_json, render_toml, render_yaml
from tests.config.layouts import breaks_of, broken, layouts

if TYPE_CHECKING:
    from storeconf.config.language import Format

RENDERERS: dict[Format, Any] = {"yaml": render_yaml, "toml": render_toml, "json": render_json}


@pytest.mark.parametrize("form", RENDERERS)
@settings(max_examples=60)
@given(data=st.data(), source=st.integers(0, 2**32).map(random.Random))
def test_the_diagnostic_points_at_the_broken_node(form: Format, data: st.DataObject, source: random.Random) -> None:
    layout = data.draw(layouts())
    changes = breaks_of(layout)
    code = data.draw(st.sampled_from(sorted({each.code for each in changes})))
    change = data.draw(st.sampled_from([each for each in changes if each.code == code]))
    event(code)
    tree = broken(layout, change)
    environment = None
    if change.path[0] != "version" and data.draw(st.booleans()):
        environment = "production"
        version = tree.pop("version", 1)
        tree = {"version": version, "environments": {environment: tree}}
    text = RENDERERS[form](tree, source)
    document = parse(text.encode(), form, f"a.{form}")
    prefix = () if environment is None else ("environments", environment)
    expected = document.location((*prefix, *change.where(lookup(document.value, prefix))), key=change.key)
    assert expected is not None
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"a.{form}"
        path.write_text(text, encoding="utf-8")
        report = check_layout(path, environment=environment, environ={}, catalog=Catalog.builtin())
    shown = [str(each) for each in report.diagnostics]
    errors = [each for each in report.diagnostics if each.severity == "error"]  # what is there may be unwise as well
    assert [each.code for each in errors] == [change.code], (shown, text)
    (found,) = errors
    where = (found.line, found.column, found.end_line, found.end_column)
    assert where == (expected.line, expected.column, expected.end_line, expected.end_column), (shown, text)
    assert found.environments == (() if environment is None else (environment,))


@settings(max_examples=40)
@given(layout=layouts(), source=st.integers(0, 2**32).map(random.Random))
def test_what_is_not_broken_is_the_same_layout_in_every_format(layout: dict[str, Any], source: random.Random) -> None:
    with tempfile.TemporaryDirectory() as name:
        found = []
        for form, renderer in RENDERERS.items():
            path = Path(name) / f"a.{form}"
            path.write_text(renderer(layout, source), encoding="utf-8")
            report = check_layout(path, environ={}, catalog=Catalog.builtin())
            assert report.layout is not None, [str(each) for each in report.diagnostics]
            found.append(report.layout)
        assert found[0] == found[1] == found[2]
