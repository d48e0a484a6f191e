"""Which layers there are, and in which order they apply."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeconf.catalog import Catalog
from storeconf.layout import check_layout
from tests.config.assembling import Workplace, assemble, place, work
from tests.config.sized import MEMORY, size, sized

__all__ = ["work"]

# ---------------------------------------------------------------------- the top level


def test_what_the_top_level_holds(work: Workplace) -> None:
    work.write(
        storeconf__yaml="""
            version: 1
            $schema: https://example.com/schema.json
            x-limits: &limits {max_entries: 5}
            extends: []
            unset: []
            environments: {}
            stores: {a: {type: memory, <<: *limits}}
            default_factory: forbid
            colour: red
        """
    )
    assert work.tree() == {
        "version": 1,
        "stores": {"a": {"type": "memory", "max_entries": 5}},
        "default_factory": "forbid",
        "colour": "red",  # for validation to complain of
    }


def test_an_origin_points_at_the_anchor(work: Workplace) -> None:
    work.write(storeconf__yaml="x-l: &l {max_entries: 5}\nstores:\n  a: {type: memory, <<: *l}\n")
    assert place(work.assemble().history.place(("stores", "a", "max_entries"))) == ("storeconf.yaml", 1, 23)


def test_yaml_toml_json_and_pyproject_say_the_same(work: Workplace) -> None:
    work.file("a.yaml", "version: 1\nstores: {a: {type: redis, cluster: ['x:1'], tls: {verify: none}}}\n")
    toml = 'version = 1\n[stores.a]\ntype = "redis"\ncluster = ["x:1"]\ntls.verify = "none"\n'
    work.file("a.toml", toml)
    work.file(
        "pyproject.toml", toml.replace("version", "[tool.storeconf]\nversion").replace("[st", "[tool.storeconf.st")
    )
    work.file(
        "a.json", '{"version": 1, "stores": {"a": {"type": "redis", "cluster": ["x:1"], "tls": {"verify": "none"}}}}'
    )
    trees = [work.tree(name) for name in ("a.yaml", "a.toml", "a.json", "pyproject.toml")]
    assert trees == trees[:1] * 4


def test_an_empty_file_is_an_empty_layout(work: Workplace) -> None:
    work.write(storeconf__yaml="# nothing yet\n")
    assert work.tree() == {}


@pytest.mark.parametrize(
    ("text", "code"),
    [("stores: [", "SC107"), ("[]", "SC117"), ("a: 1\na: 2", "SC108"), ("\x00", "SC106")],
)
def test_a_file_that_cant_be_read_is_a_problem_and_makes_the_layout_incomplete(
    work: Workplace, text: str, code: str
) -> None:
    work.write(storeconf__yaml=text)
    assembly = work.assemble()
    assert [problem.code for problem in assembly.report.found] == [code]
    assert not assembly.report.complete
    assert assembly.tree == {}


def test_a_missing_file_and_a_directory(work: Workplace) -> None:
    assert work.problem("nothing.yaml").code == "SC101"
    work.file("d/storeconf.yaml", MEMORY)
    assert work.problem("d").code == "SC102"


@pytest.mark.parametrize("name", ["a\0b.yaml", "a\ud800b.yaml", "", "."])
def test_names_that_no_file_can_have(work: Workplace, name: str) -> None:
    assert work.problem(name).code in ("SC101", "SC102")
    work.problem({"extends": [name]})
    work.problem(None, environ={"STORECONF_FILE": name})


def test_nothing_shows_what_a_layout_holds(work: Workplace) -> None:
    source = {"stores": {"a": {"type": "redis", "password": "geheim"}}}
    assert "geheim" not in repr(work.assemble(source, environ={"STORECONF__STORES__A__PASSWORD": "geheim"}))


def test_a_lower_layers_version_is_checked_too(work: Workplace) -> None:
    work.write(base__yaml="version: 2\n", storeconf__yaml="version: 1\nextends: [base.yaml]\n")
    problem = work.problem()
    assert problem.code == "SC505"
    assert place(problem) == ("base.yaml", 1, 10)


# ---------------------------------------------------------------------- extends


class TestExtends:
    def test_what_extends_lies_above_what_is_extended(self, work: Workplace) -> None:
        work.write(base__yaml=sized(1), storeconf__yaml=sized(2, "extends: [base.yaml]"))
        assert size(work.tree()) == 2

    def test_later_entries_lie_above_earlier_ones(self, work: Workplace) -> None:
        work.write(a__yaml=sized(1), b__yaml=sized(2), storeconf__yaml="extends: [a.yaml, b.yaml]\n")
        assert size(work.tree()) == 2

    def test_depth_first_and_each_once(self, work: Workplace) -> None:
        # base comes before a, for a extends it first; b's naming it again changes nothing.
        work.write(
            base__yaml=sized(1),
            a__yaml=sized(2, "extends: [base.yaml]"),
            b__yaml="extends: [base.yaml]\n",
            storeconf__yaml="extends: [a.yaml, b.yaml]\n",
        )
        assembly = work.assemble()
        assert assembly.files == ("storeconf.yaml", "a.yaml", "base.yaml", "b.yaml")
        assert size(assembly.tree) == 2

    def test_a_link_to_a_file_is_that_file(self, work: Workplace) -> None:
        work.write(base__yaml=sized(1), a__yaml=sized(2), storeconf__yaml="extends: [base.yaml, a.yaml, link.yaml]\n")
        (work.path / "link.yaml").symlink_to("base.yaml")
        assert size(work.tree()) == 2

    def test_paths_are_relative_to_the_file_that_names_them(self, work: Workplace) -> None:
        work.file("base.yaml", "extends: [sub/other.yaml]\n" + sized(1))
        work.file("sub/other.yaml", "stores: {b: {type: memory}}\n")
        work.file("deploy/storeconf.yaml", "extends: [../base.yaml]\n")
        assembly = work.assemble("deploy/storeconf.yaml")
        assert assembly.files == ("deploy/storeconf.yaml", "base.yaml", os.path.join("sub", "other.yaml"))
        assert list(assembly.tree["stores"]) == ["b", "a"]

    def test_all_formats_mix(self, work: Workplace) -> None:
        work.write(
            a__toml='[stores.a]\ntype = "memory"\n',
            b__json='{"stores": {"b": {"type": "memory"}}}',
            storeconf__yaml="extends: [a.toml, b.json]",
        )
        assert list(work.tree()["stores"]) == ["a", "b"]

    def test_paths_are_literal(self, work: Workplace) -> None:
        work.file("${HOME}.yaml", MEMORY)
        work.write(storeconf__yaml="extends: ['${HOME}.yaml', '*.yaml']\n")
        problem = work.problem(environ={"HOME": "base"})
        assert problem.code == "SC203"
        assert "'*.yaml'" in problem.message

    def test_a_missing_file_is_shown_where_it_is_extended(self, work: Workplace) -> None:
        work.write(storeconf__yaml="extends:\n  - base.yaml\n" + MEMORY)
        problem = work.problem()
        assert problem.code == "SC203"
        assert (*place(problem), problem.end_column) == ("storeconf.yaml", 2, 5, 14)
        assert problem.path == "extends.0"

    def test_links_that_lead_in_a_circle(self, work: Workplace) -> None:
        (work.path / "loop.yaml").symlink_to("loop.yaml")
        work.write(storeconf__yaml="extends: [loop.yaml]\n")
        problem = work.problem()
        assert problem.code == "SC203"
        assert "can't be read" in problem.message

    def test_a_substitution_is_told_that_paths_are_literal(self, work: Workplace) -> None:
        work.write(storeconf__yaml="extends: ['${BASE}.yaml']\n")
        hint = work.problem(environ={"BASE": "base"}).hint
        assert hint is not None
        assert "literal" in hint

    def test_all_that_is_wrong_is_found(self, work: Workplace) -> None:
        work.write(storeconf__yaml="extends: [a.yaml, 3, '', base.yaml, b.yaml]\n", base__yaml="stores: [")
        assembly = work.assemble()
        assert sorted(problem.code for problem in assembly.report.found) == [
            "SC107",
            "SC203",
            "SC203",
            "SC205",
            "SC205",
        ]
        assert not assembly.report.complete

    def test_a_circle_shows_every_step_with_its_place(self, work: Workplace) -> None:
        work.write(
            storeconf__yaml="extends: [a.yaml]\n",
            a__yaml="\nextends: [b.yaml]\n",
            b__yaml="\n\nextends: [a.yaml]\n",
        )
        problem = work.problem()
        assert problem.code == "SC204"
        assert place(problem) == ("b.yaml", 3, 11)
        assert "a.yaml → b.yaml → a.yaml" in problem.message
        assert [(note.message, note.file, note.line, note.column) for note in problem.notes] == [
            ("a.yaml extends b.yaml", "a.yaml", 2, 11),
            ("b.yaml extends a.yaml", "b.yaml", 3, 11),
        ]

    def test_a_file_that_extends_itself(self, work: Workplace) -> None:
        work.write(storeconf__yaml="extends: [storeconf.yaml]\n" + MEMORY)
        problem = work.problem()
        assert problem.code == "SC204"
        assert "storeconf.yaml → storeconf.yaml" in problem.message

    def test_a_text_is_no_list(self, work: Workplace) -> None:
        work.write(storeconf__yaml="extends: base.yaml\n")
        problem = work.problem()
        assert (problem.code, place(problem)) == ("SC205", ("storeconf.yaml", 1, 10))
        assert problem.hint == "write [base.yaml]"

    def test_an_endless_chain_ends(self, work: Workplace) -> None:
        for number in range(102):
            work.file(f"{number}.yaml", f"extends: [{number + 1}.yaml]\n")
        problem = work.problem("0.yaml")
        assert (problem.code, problem.file) == ("SC205", "99.yaml")

    def test_a_mapping_extends_relative_to_the_working_directory(self, work: Workplace) -> None:
        work.write(base__yaml=sized(1))
        assert size(work.tree({"extends": ["base.yaml"]})) == 1
        problem = work.problem({"extends": ["nothing.yaml"]})
        assert (problem.code, problem.layer, problem.file) == ("SC203", "mapping", None)


# ---------------------------------------------------------------------- environments and overlays


# ---------------------------------------------------------------------- what merging finds


class TestFindings:
    def test_a_removal_that_removes_nothing_is_a_warning(self, work: Workplace) -> None:
        work.write(
            storeconf__yaml="""\
                unset: [stores.b]
                stores:
                  a: {type: redis, url: 'redis://a', tls: {verify: none}, db: null}
            """,
            storeconf__dev__yaml="""\
                stores:
                  a:
                    cluster: null
                    tls: {ca_file: null, verify: null}
                default_factory: null
            """,
        )
        assembly = work.assemble(environment="dev", overrides={"stores.a.retries": None})
        found = {(problem.path, place(problem), problem.layer) for problem in assembly.report.found}
        assert {problem.code for problem in assembly.report.found} == {"SC802"}
        assert {problem.severity for problem in assembly.report.found} == {"warning"}
        assert found == {
            ("stores.b", ("storeconf.yaml", 1, 9), "file"),
            ("stores.a.db", ("storeconf.yaml", 3, 59), "file"),
            ("stores.a.cluster", ("storeconf.dev.yaml", 3, 5), "overlay"),
            ("stores.a.tls.ca_file", ("storeconf.dev.yaml", 4, 11), "overlay"),
            ("default_factory", ("storeconf.dev.yaml", 5, 1), "overlay"),
            ("stores.a.retries", (None, None, None), "override"),
        }
        assert assembly.tree == {"stores": {"a": {"type": "redis", "url": "redis://a", "tls": {}}}}

    def test_a_removal_of_what_a_change_of_kind_drops_is_no_futile_one(self, work: Workplace) -> None:
        work.write(
            storeconf__yaml="stores: {a: {type: redis, url: 'redis://a'}}\n",
            storeconf__dev__yaml="stores: {a: {type: memory, url: null}}\n",
        )
        assert work.tree(environment="dev") == {"stores": {"a": {"type": "memory"}}}

    def test_exclusive_fields_of_one_layer_are_an_error(self, work: Workplace) -> None:
        work.write(
            storeconf__yaml="stores:\n  a:\n    type: redis\n    url: redis://a\n    cluster: ['x:1']\n",
        )
        problem = work.problem()
        assert (problem.code, place(problem)) == ("SC510", ("storeconf.yaml", 5, 5))
        assert [(note.line, note.column) for note in problem.notes] == [(4, 5)]
        # A higher layer settles it.
        work.file("storeconf.dev.yaml", "stores: {a: {sentinel: {service: s}}}\n")
        assert work.tree(environment="dev")["stores"]["a"] == {"type": "redis", "sentinel": {"service": "s"}}

    @pytest.mark.parametrize(
        ("low", "high", "found"),
        [
            ("stores: [a]", "stores: {a: {type: memory}}", ("base.yaml", 1, 9)),
            ("stores: {a: redis}", "stores: {a: {type: memory}}", ("base.yaml", 1, 13)),
        ],
    )
    def test_what_should_be_a_mapping_and_is_overridden_by_one_is_an_error(
        self, work: Workplace, low: str, high: str, found: tuple[str, int, int]
    ) -> None:
        work.write(base__yaml=low + "\n", storeconf__yaml=high + "\nextends: [base.yaml]\n")
        problem = work.problem()
        assert (problem.code, place(problem)) == ("SC211", found)

    @pytest.mark.parametrize("high", ["stores: {a: [1]}", "stores: {a: redis}", "stores: 3"])
    def test_a_shape_that_holds_in_the_end_is_left_to_validation(self, work: Workplace, high: str) -> None:
        work.write(base__yaml="stores: {a: {type: memory}}\n", storeconf__yaml=f"extends: [base.yaml]\n{high}\n")
        assert not work.assemble().report.found
        (problem,) = check_layout().diagnostics
        assert (problem.code, problem.line) == ("SC503", 2)

    def test_a_wrong_shape_below_two_others_is_told_beside_them(self, work: Workplace) -> None:
        work.write(
            storeconf__yaml="stores: {a: redis}\nenvironments: {dev: {stores: {a: {type: redis}}}}\n",
            storeconf__dev__yaml="stores: {a: valkey}\n",
        )
        problem = work.problem(environment="dev")
        assert (problem.code, place(problem)) == ("SC211", ("storeconf.yaml", 1, 13))


# ---------------------------------------------------------------------- mappings as sources


class TestMappings:
    def test_what_a_program_gives_becomes_plain_data(self, work: Workplace) -> None:
        class Kind(str):
            __slots__ = ()

        source = {"stores": {"a": {"type": Kind("file"), "path": Path("var") / "x", "n": (1, 2)}}}
        tree = work.tree(source)
        assert tree == {"stores": {"a": {"type": "file", "path": os.path.join("var", "x"), "n": [1, 2]}}}
        assert type(tree["stores"]["a"]["type"]) is str
        source["stores"]["a"]["n"] = ()
        assert tree["stores"]["a"]["n"] == [1, 2]

    def test_keys_must_be_texts(self, work: Workplace) -> None:
        problem = work.problem({"stores": {1: {"type": "memory"}}})
        assert (problem.code, problem.path, problem.layer) == ("SC212", "stores.1", "mapping")

    def test_a_mapping_that_holds_itself(self, work: Workplace) -> None:
        source: dict[str, Any] = {}
        source["stores"] = source
        assert {problem.code for problem in work.assemble(source).report.found} == {"SC212"}

    @pytest.mark.parametrize("source", [3, b"storeconf.yaml", ["storeconf.yaml"]])
    def test_other_sources_are_the_callers_mistake(self, work: Workplace, source: Any) -> None:
        with pytest.raises(TypeError):
            work.assemble(source)

    def test_a_path_may_be_an_object(self, work: Workplace) -> None:
        work.write(storeconf__yaml=MEMORY)
        assert work.tree(work.path / "storeconf.yaml") == work.tree("storeconf.yaml")


# ---------------------------------------------------------------------- anything at all

KEYS = st.sampled_from(
    [
        "version",
        "stores",
        "default_factory",
        "environments",
        "extends",
        "unset",
        "x-a",
        "$schema",
        "dev",
        "a",
        "b",
        "type",
        "parent",
        "use",
        "url",
        "cluster",
        "tls",
        "middleware",
        "ttl",
        "default",
        "description",
        "namespace",
        "",
    ]
)
TEXTS = ["redis", "memory", "forbid", "a", "stores.a", "stores.a.tls", "${X}", "${X:-y}", "${", "${file:x}"]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(0, 2),
    st.sampled_from(TEXTS),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200)
@given(st.dictionaries(KEYS, ANYTHING, max_size=5), st.dictionaries(KEYS, ANYTHING, max_size=3), st.booleans())
def test_whatever_the_layers_hold_there_is_a_tree_and_problems(
    source: dict[str, Any], overrides: dict[str, Any], chosen: bool
) -> None:
    assembly = assemble(
        source,
        environment="dev" if chosen else None,
        overrides=overrides,
        environ={"STORECONF__STORES__A__TLS__VERIFY": "none", "STORECONF__STORES__A__MIDDLEWARE__TTL": "1"},
        catalog=Catalog.builtin(),
    )

    def look(path: tuple[str | int, ...], node: Any) -> None:
        if path and node is not None:
            assert assembly.history.of(path) is not None
            assert assembly.history.place(path, key=True)["layer"]
        assert node is not None or isinstance(path[-1], int)  # an item that is null is left to validation
        inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for step, inner in inside:
            look((*path, step), inner)

    look((), assembly.tree)
