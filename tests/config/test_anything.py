"""Whatever a layout says, reading it ends in a layout or in located problems, never in another error."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeconf.catalog import BUILT_IN, Catalog
from storeconf.config.fields import fields_of
from storeconf.diagnostics.render import FORMATS, render
from storeconf.errors import PluginError
from storeconf.layout import check_layout
from tests.config.documents import LEAVES, render_json, render_toml, render_yaml

if TYPE_CHECKING:
    from storeconf.config.language import Format
    from storeconf.layout import CheckResult

RENDERERS: dict[Format, Any] = {"yaml": render_yaml, "toml": render_toml, "json": render_json}


def fields() -> list[str]:
    """Every field of every kind."""
    names: set[str] = set()
    for part in BUILT_IN:
        for name in BUILT_IN[part]:
            try:
                model = getattr(Catalog.builtin(), part)(name)
            except PluginError:
                continue
            names.update(fields_of(model).expects)
    return sorted(names | {"parent", "use", "type", "namespace", "description", "middleware", "max_stores"})


STORES = ("a", "b", "c", "a__b", "a-")
WORDS = st.sampled_from(
    [
        *(
            *STORES,
            *BUILT_IN["backend"],
            *BUILT_IN["middleware"],
            "forbid",
            "miss",
            "14d",
            "64KiB",
            "redis://h",
            "0750",
        ),
        *("${X}", "${", "${file:nothing}", "redis://u:${X}@h", "$$", "h:1", "", " ", "\x00", "é", "true", "1"),
        *("stores.a.tls", "stores", "stores.a", "default_factory"),
    ]
)
VALUES: st.SearchStrategy[Any] = st.deferred(
    lambda: WORDS | LEAVES | st.none() | st.lists(VALUES, max_size=3) | MAPPINGS
)
MAPPINGS: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from([*fields(), *BUILT_IN["middleware"], "zzz"]), VALUES, max_size=5
)
LINKS = st.dictionaries(st.sampled_from([*BUILT_IN["middleware"], "zzz"]), VALUES, max_size=3) | VALUES


@st.composite
def stores(draw: st.DrawFn) -> Any:
    """A store that is more or less like one."""
    store = draw(MAPPINGS)
    kind = draw(st.sampled_from(["type", "type", "parent", "use", None]))
    if kind is not None:
        store[kind] = draw(st.sampled_from([*BUILT_IN["backend"]] if kind == "type" else STORES) | VALUES)
    if draw(st.booleans()):
        store["middleware"] = draw(LINKS)
    return store


LAYOUTS = st.fixed_dictionaries(
    {},
    optional={
        "stores": st.dictionaries(st.sampled_from(STORES), stores() | VALUES, max_size=4) | VALUES,
        "default_factory": stores() | VALUES,
        "version": st.just(1) | VALUES,
        "unset": st.lists(st.sampled_from(["stores.a", "stores.b.middleware.ttl", "version", "x", ""])) | VALUES,
        "extends": VALUES,
        "zzz": VALUES,
    },
)


def without_nulls(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: without_nulls(each) for key, each in tree.items() if each is not None}
    return [without_nulls(each) for each in tree if each is not None] if isinstance(tree, list) else tree


def check(report: CheckResult) -> None:
    failed = any(each.severity == "error" for each in report.diagnostics)
    assert failed or report.layouts
    for each in report.diagnostics:
        placed = each.file is not None or each.variable is not None or each.layer is not None
        assert placed or each.code == "SC206", each  # the environment is an argument
    for form in FORMATS:
        assert "Traceback" not in render(report.diagnostics, form)
    for layout in report.layouts.values():
        layout.dump()
        layout.plan()


@pytest.mark.parametrize("form", RENDERERS)
@settings(max_examples=60)
@given(
    layout=LAYOUTS,
    sections=st.dictionaries(st.sampled_from(["production", "a__b"]), LAYOUTS | VALUES, max_size=2) | VALUES,
    environ=st.dictionaries(
        st.tuples(st.sampled_from(STORES), st.sampled_from([*fields(), "MIDDLEWARE__TTL", "ZZZ"])).map(
            lambda names: f"STORECONF__STORES__{'__'.join(names)}".upper()
        ),
        WORDS.filter(lambda text: "\x00" not in text),
        max_size=3,
    ),
    without_secrets=st.booleans(),
    source=st.integers(0, 2**32).map(random.Random),
)
def test_any_file(
    form: Format,
    layout: dict[str, Any],
    sections: Any,
    environ: dict[str, str],
    without_secrets: bool,
    source: random.Random,
) -> None:
    tree = {**layout, "environments": sections}
    text = RENDERERS[form](without_nulls(tree) if form == "toml" else tree, source)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"a.{form}"
        path.write_text(text, encoding="utf-8")
        given_ = {"environ": environ, "catalog": Catalog.builtin(), "without_secrets": without_secrets}
        check(check_layout(path, all_environments=True, **given_))  # type: ignore[arg-type]  # three kinds of values
        check(check_layout(path, environment="production", **given_))  # type: ignore[arg-type]  # likewise


@settings(max_examples=60)
@given(layout=LAYOUTS, overrides=LAYOUTS | st.dictionaries(WORDS, VALUES, max_size=3))
def test_any_mapping(layout: dict[str, Any], overrides: dict[str, Any]) -> None:
    check(check_layout(layout, overrides=overrides, environ={}, catalog=Catalog.builtin()))
