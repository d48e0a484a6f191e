"""Which layers there are, in which order they lie, and where everything in them came from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeconf.catalog import Catalog
from storeconf.layout import check_layout
from tests.config.assembling import Workplace, assemble, events, place, work

if TYPE_CHECKING:
    from storeconf.config.pipeline import Assembly

__all__ = ["work"]

MEMORY = "stores: {a: {type: memory}}\n"


def size(assembly_tree: dict[str, Any], name: str = "a") -> Any:
    return assembly_tree["stores"][name].get("max_entries")


def sized(number: int, more: str = "") -> str:
    return f"{more}\nstores: {{a: {{type: memory, max_entries: {number}}}}}\n"


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


class TestEnvironments:
    def test_what_is_said_for_an_environment_beats_what_is_said_in_general(self, work: Workplace) -> None:
        work.write(
            base__yaml="environments: {dev: {stores: {a: {max_entries: 9}}}}\n" + sized(1),
            storeconf__yaml=sized(2, "extends: [base.yaml]"),
        )
        assert size(work.tree(environment="dev")) == 9

    def test_sections_lie_in_the_order_of_the_files(self, work: Workplace) -> None:
        section = "environments: {{dev: {{stores: {{a: {{max_entries: {}}}}}}}}}\n"
        work.write(base__yaml=section.format(8) + MEMORY, storeconf__yaml="extends: [base.yaml]\n" + section.format(9))
        assert size(work.tree(environment="dev")) == 9

    def test_overlays_beat_sections_and_lie_in_the_order_of_the_files(self, work: Workplace) -> None:
        work.write(
            base__yaml=MEMORY,
            base__dev__yaml=sized(5),
            storeconf__yaml="extends: [base.yaml]\nenvironments: {dev: {stores: {a: {max_entries: 9}}}}\n",
        )
        assert size(work.tree(environment="dev")) == 5
        work.file("storeconf.dev.toml", "stores.a.max_entries = 6\n")
        assert size(work.tree(environment="dev")) == 6

    def test_the_order_of_all_layers(self, work: Workplace) -> None:
        work.write(
            base__yaml=sized(1, "environments: {dev: {stores: {a: {max_entries: 3}}}}"),
            base__dev__yaml=sized(5),
            storeconf__yaml="""
                extends: [base.yaml]
                stores: {a: {max_entries: 2}}
                environments: {dev: {stores: {a: {max_entries: 4}}}}
            """,
            storeconf__dev__json='{"stores": {"a": {"max_entries": 6}}}',
        )
        assembly = work.assemble(
            environment="dev",
            environ={"STORECONF__STORES__A__MAX_ENTRIES": "7"},
            overrides={"stores.a.max_entries": 8},
        )
        assert events(assembly.history.of(("stores", "a", "max_entries"))) == [
            ("override", "override", 8),
            ("variable", "$STORECONF__STORES__A__MAX_ENTRIES", "7"),
            ("overlay", "storeconf.dev.json:1:34", 6),
            ("overlay", "base.dev.yaml:2:41", 5),
            ("environment", "storeconf.yaml:4:48", 4),
            ("environment", "base.yaml:1:48", 3),
            ("file", "storeconf.yaml:3:27", 2),
            ("file", "base.yaml:2:41", 1),
        ]

    def test_other_environments_are_left_alone(self, work: Workplace) -> None:
        work.write(
            storeconf__yaml=sized(1, "environments: {dev: {stores: {a: {max_entries: 2}}}, prod: }"),
            storeconf__test__yaml=sized(3),
        )
        assert size(work.tree(environment="prod")) == 1

    def test_known_are_sections_and_overlays(self, work: Workplace) -> None:
        work.write(
            base__yaml=MEMORY,
            base__staging__toml="",
            storeconf__yaml="extends: [base.yaml]\nenvironments: {dev: {}, prod: }\n",
            storeconf__test__yaml="",
            storeconf__test__more__yaml="",
            storeconf__md="",
            other__qa__yaml="",
        )
        assert work.assemble(environment="dev").environments == ("staging", "dev", "prod", "test")
        for environment in ("staging", "prod", "test"):
            assert work.tree(environment=environment) == {"stores": {"a": {"type": "memory"}}}

    def test_an_unknown_one_is_an_error_that_lists_the_known(self, work: Workplace) -> None:
        work.write(storeconf__yaml=MEMORY + "environments: {production: {}}\n", storeconf__test__yaml="")
        problem = work.problem(environment="prodution")
        assert problem.code == "SC206"
        assert problem.hint == "did you mean 'production'? There are production, test"
        assert work.problem(environment="qa").hint == "there are production, test"
        work.file("plain.yaml", MEMORY)
        assert work.problem("plain.yaml", environment="qa").code == "SC206"

    def test_the_argument_then_the_variable_then_none(self, work: Workplace) -> None:
        work.write(storeconf__yaml=MEMORY + "environments: {dev: {}, prod: {}}\n")
        assert work.assemble(environ={"STORECONF_ENV": "dev"}).environment == "dev"
        assert work.assemble(environment="prod", environ={"STORECONF_ENV": "dev"}).environment == "prod"
        assert work.assemble(environ={"STORECONF_ENV": ""}).environment is None
        problem = work.problem(environ={"STORECONF_ENV": "qa"})
        assert (problem.code, problem.variable) == ("SC206", "STORECONF_ENV")

    def test_declared_but_not_chosen_is_a_warning(self, work: Workplace) -> None:
        work.write(storeconf__yaml=MEMORY + "environments: {dev: {}}\n")
        problem = work.problem()
        assert (problem.code, problem.severity, place(problem)) == ("SC803", "warning", ("storeconf.yaml", 2, 1))
        work.write(top__yaml="extends: [storeconf.yaml]\n", plain__yaml=MEMORY, plain__dev__yaml="")
        assert place(work.problem("top.yaml")) == ("storeconf.yaml", 2, 1)
        assert place(work.problem("plain.yaml")) == ("plain.yaml", None, None)

    def test_the_process_has_variables_unless_others_are_given(
        self, work: Workplace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        work.write(storeconf__yaml=MEMORY + "environments: {dev: {}}\n")
        monkeypatch.setenv("STORECONF_ENV", "dev")
        assert assemble("storeconf.yaml", catalog=Catalog.builtin()).environment == "dev"
        assert assemble("storeconf.yaml", catalog=Catalog.builtin(), environ={}).environment is None

    @pytest.mark.parametrize("key", ["version: 2", "extends: [a.yaml]", "environments: {}"])
    def test_sections_hold_no_keys_of_a_whole_file(self, work: Workplace, key: str) -> None:
        work.write(storeconf__yaml=f"environments:\n  dev:\n    {key}\n")
        problem = work.problem(environment="dev")
        assert (problem.code, place(problem), problem.layer) == ("SC208", ("storeconf.yaml", 3, 5), "environment")
        assert problem.path == f"environments.dev.{key.partition(':')[0]}"

    @pytest.mark.parametrize("key", ["extends: [a.yaml]", "environments: {}"])
    def test_overlays_hold_neither_extends_nor_environments(self, work: Workplace, key: str) -> None:
        work.write(storeconf__yaml=MEMORY, storeconf__dev__yaml=f"version: 1\nx-a: 1\n$schema: s\n{key}\n")
        problem = work.problem(environment="dev")
        assert (problem.code, place(problem), problem.layer) == ("SC208", ("storeconf.dev.yaml", 4, 1), "overlay")

    def test_two_overlays_of_different_formats(self, work: Workplace) -> None:
        work.write(storeconf__yaml=MEMORY, storeconf__dev__yaml="", storeconf__dev__toml="")
        problem = work.problem(environment="dev")
        assert problem.code == "SC209"
        assert "storeconf.dev.toml and storeconf.dev.yaml" in problem.message

    def test_an_overlay_that_two_files_share_is_one_layer(self, work: Workplace) -> None:
        work.write(
            base__yaml=MEMORY,
            base__json="{}",
            base__dev__yaml=sized(5),
            storeconf__yaml="extends: [base.yaml, base.json]",
        )
        assembly = work.assemble(environment="dev")
        assert assembly.files == ("storeconf.yaml", "base.yaml", "base.json", "base.dev.yaml")

    def test_what_is_wrong_with_environments(self, work: Workplace) -> None:
        work.write(storeconf__yaml="environments: [dev]\n")
        assert (work.problem().code, place(work.problem())) == ("SC207", ("storeconf.yaml", 1, 15))
        work.write(storeconf__yaml="environments:\n  dev: 3\n  a__b: {}\n  c-: {}\n")
        assembly = work.assemble(environment="dev")
        assert [(problem.code, place(problem)) for problem in assembly.report.found] == [
            ("SC207", ("storeconf.yaml", 2, 8)),
            ("SC509", ("storeconf.yaml", 3, 3)),
            ("SC509", ("storeconf.yaml", 4, 3)),
        ]

    def test_a_mapping_has_sections_and_no_siblings(self, work: Workplace) -> None:
        work.write(storeconf__dev__yaml=sized(9))
        source = {
            "stores": {"a": {"type": "memory"}},
            "environments": {"dev": {"stores": {"a": {"max_entries": 3}}}},
        }
        assembly = work.assemble(source, "dev")
        assert size(assembly.tree) == 3
        assert assembly.environments == ("dev",)
        assert events(assembly.history.of(("stores", "a", "max_entries"))) == [("environment", "environment", 3)]
        assert events(assembly.history.of(("stores", "a", "type"))) == [("mapping", "mapping", "memory")]


# ---------------------------------------------------------------------- unset


class TestUnset:
    def test_it_is_tomls_null(self, work: Workplace) -> None:
        work.write(storeconf__yaml="stores: {main: {type: redis, url: 'redis://a', tls: {verify: none}, db: 1}}\n")
        work.file("storeconf.y.yaml", "stores: {main: {tls: null, db: 2}}\n")
        work.file("storeconf.t.toml", 'unset = ["stores.main.tls"]\nstores.main.db = 2\n')
        assert work.tree(environment="y") == work.tree(environment="t")
        assert work.tree(environment="t")["stores"]["main"] == {"type": "redis", "url": "redis://a", "db": 2}

    def test_it_is_applied_before_the_layers_other_values(self, work: Workplace) -> None:
        work.write(storeconf__yaml="stores: {main: {type: redis, tls: {verify: none, ca_file: a}}}\n")
        work.file("storeconf.t.toml", 'unset = ["stores.main.tls"]\nstores.main.tls.ca_file = "b"\n')
        assert work.tree(environment="t")["stores"]["main"]["tls"] == {"ca_file": "b"}

    def test_a_whole_store_is_made_anew(self, work: Workplace) -> None:
        work.write(storeconf__yaml="stores: {main: {type: memory, max_entries: 3}}\n")
        work.file("storeconf.t.toml", 'unset = ["stores.main"]\nstores.main.type = "memory"\n')
        assert work.tree(environment="t")["stores"] == {"main": {"type": "memory"}}

    def test_a_kind_is_unset_as_null_unsets_it(self, work: Workplace) -> None:
        work.write(storeconf__yaml="stores: {main: {type: memory, middleware: {ttl: 1}}, b: {type: memory}}\n")
        work.file("storeconf.t.toml", 'unset = ["stores.main.type"]\nstores.main.use = "b"\n')
        work.file("storeconf.y.yaml", "stores: {main: {type: null, use: b}}\n")
        assert work.tree(environment="t") == work.tree(environment="y")
        assert work.tree(environment="t")["stores"]["main"] == {"use": "b"}

    def test_together_with_a_shorthand(self, work: Workplace) -> None:
        work.write(storeconf__yaml="stores: {a: {type: memory, middleware: {ttl: {default: 2d, max: 3d}}}}\n")
        work.file("storeconf.w.toml", 'unset = ["stores.a.middleware.ttl"]\nstores.a.middleware.ttl = "1d"\n')
        work.file("storeconf.m.toml", 'unset = ["stores.a.middleware.ttl.max"]\nstores.a.middleware.ttl = "1d"\n')
        for environment in ("w", "m"):
            assert work.tree(environment=environment)["stores"]["a"]["middleware"] == {"ttl": {"default": "1d"}}
        assert events(work.assemble(environment="w").history.of(("stores", "a", "middleware", "ttl", "max"))) == [
            ("overlay", "storeconf.w.toml:1:10", ...),
            ("file", "storeconf.yaml:1:65", "3d"),
        ]

    def test_of_a_setting_of_what_is_switched_off(self, work: Workplace) -> None:
        work.write(storeconf__yaml="stores: {a: {type: memory, middleware: {ttl: false}}}\n")
        work.file("storeconf.dev.toml", 'unset = ["stores.a.middleware.ttl.max"]\n')
        problem = work.problem(environment="dev")
        assert (problem.code, problem.path) == ("SC802", "stores.a.middleware.ttl.max")

    def test_of_all_stores(self, work: Workplace) -> None:
        work.write(storeconf__yaml="stores: {a: {type: memory}, b: {type: memory}}\n")
        work.file("storeconf.dev.toml", 'unset = ["stores"]\nstores.b.type = "file"\n')
        assembly = work.assemble(environment="dev")
        assert assembly.tree == {"stores": {"b": {"type": "file"}}}
        assert events(assembly.history.of(("stores", "a", "type")))[0] == (
            "overlay",
            "storeconf.dev.toml:1:10",
            ...,
        )
        assert place(assembly.history.place(("stores", "b"))) == ("storeconf.dev.toml", 2, 8)

    def test_any_layer_may_hold_it(self, work: Workplace) -> None:
        text = "stores: {a: {type: memory, max_entries: 3}}\n"
        work.write(base__yaml=text, storeconf__yaml="extends: [base.yaml]\nunset: [stores.a.max_entries]\n")
        assert work.tree() == {"stores": {"a": {"type": "memory"}}}
        work.write(storeconf__yaml=text + "environments: {dev: {unset: [stores.a.max_entries]}}\n")
        assert work.tree(environment="dev") == {"stores": {"a": {"type": "memory"}}}
        source = {"extends": ["base.yaml"], "unset": ["stores.a.max_entries"]}
        assert work.tree(source) == {"stores": {"a": {"type": "memory"}}}

    def test_an_origin_tells_of_the_removal(self, work: Workplace) -> None:
        work.write(base__yaml=sized(3), storeconf__yaml="extends: [base.yaml]\nunset: [stores.a.max_entries]\n")
        assert events(work.assemble().history.of(("stores", "a", "max_entries"))) == [
            ("file", "storeconf.yaml:2:9", ...),
            ("file", "base.yaml:2:41", 3),
        ]

    @pytest.mark.parametrize(
        ("entries", "column"),
        [("stores.a", 8), ("[stores.a, 3]", 19), ("[stores..a]", 9), ("[version]", 9), ("[environments.dev]", 9)],
    )
    def test_what_is_wrong_with_it(self, work: Workplace, entries: str, column: int) -> None:
        work.write(base__yaml=MEMORY, storeconf__yaml=f"unset: {entries}\nextends: [base.yaml]\n")
        problem = work.problem()
        assert (problem.code, place(problem)) == ("SC210", ("storeconf.yaml", 1, column))


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


# ---------------------------------------------------------------------- origins


class TestOrigins:
    def test_a_change_of_kind_removes(self, work: Workplace) -> None:
        work.write(
            storeconf__yaml="stores: {a: {type: redis, url: 'redis://a', namespace: n}}\n",
            storeconf__dev__yaml="stores: {a: {type: memory}}\n",
        )
        assembly = work.assemble(environment="dev")
        assert events(assembly.history.of(("stores", "a", "url"))) == [
            ("overlay", "storeconf.dev.yaml:1:20", ...),
            ("file", "storeconf.yaml:1:32", "redis://a"),
        ]
        assert events(assembly.history.of(("stores", "a", "namespace"))) == [("file", "storeconf.yaml:1:56", "n")]
        assert events(assembly.history.of(("stores", "a", "type"))) == [
            ("overlay", "storeconf.dev.yaml:1:20", "memory"),
            ("file", "storeconf.yaml:1:20", "redis"),
        ]

    def test_an_exclusive_field_removes(self, work: Workplace) -> None:
        work.write(
            storeconf__yaml="stores: {a: {type: redis, url: 'redis://a'}}\n",
            storeconf__dev__yaml="stores: {a: {cluster: ['x:1']}}\n",
        )
        assert events(work.assemble(environment="dev").history.of(("stores", "a", "url"))) == [
            ("overlay", "storeconf.dev.yaml:1:23", ...),
            ("file", "storeconf.yaml:1:32", "redis://a"),
        ]

    def test_null_and_a_scalar_remove(self, work: Workplace) -> None:
        work.write(
            storeconf__yaml="""\
                stores: {a: {type: redis, tls: {verify: none}}, b: {type: memory}}
                default_factory: {use: a}
            """,
            storeconf__dev__yaml="stores: {a: {tls: true}, b: null}\ndefault_factory: forbid\n",
        )
        assembly = work.assemble(environment="dev")
        assert events(assembly.history.of(("stores", "a", "tls", "verify"))) == [
            ("overlay", "storeconf.dev.yaml:1:19", ...),
            ("file", "storeconf.yaml:1:41", "none"),
        ]
        assert events(assembly.history.of(("stores", "b", "type")))[0] == (
            "overlay",
            "storeconf.dev.yaml:1:26",
            ...,
        )
        assert events(assembly.history.of(("default_factory", "use")))[0] == (
            "overlay",
            "storeconf.dev.yaml:2:18",
            ...,
        )

    def test_a_shorthand_sets_the_main_setting(self, work: Workplace) -> None:
        work.write(
            storeconf__yaml="stores: {a: {type: memory, middleware: {ttl: {default: 1d, max: 2d}}}}\n",
            storeconf__dev__yaml="stores: {a: {middleware: {ttl: 7d}}}\n",
        )
        assembly = work.assemble(environment="dev")
        path = ("stores", "a", "middleware", "ttl", "default")
        assert events(assembly.history.of(path)) == [
            ("overlay", "storeconf.dev.yaml:1:32", "7d"),
            ("file", "storeconf.yaml:1:56", "1d"),
        ]
        assert place(assembly.history.place(path)) == ("storeconf.dev.yaml", 1, 32)
        assert place(assembly.history.place((*path[:-1], "max"))) == ("storeconf.yaml", 1, 65)

    def test_a_shorthand_is_removed(self, work: Workplace) -> None:
        work.write(
            storeconf__yaml="stores: {a: {type: memory, middleware: {ttl: 1d}}}\n",
            storeconf__dev__yaml="stores: {a: {middleware: {ttl: {default: null, max: 2d}}}}\n",
        )
        assert events(work.assemble(environment="dev").history.of(("stores", "a", "middleware", "ttl", "default"))) == [
            ("overlay", "storeconf.dev.yaml:1:33", ...),
            ("file", "storeconf.yaml:1:46", "1d"),
        ]

    def test_items_of_lists(self, work: Workplace) -> None:
        work.write(storeconf__yaml="stores: {a: {type: redis, cluster: ['x:1', 'y:1']}}\n")
        assembly = work.assemble(environ={"STORECONF__STORES__A__CLUSTER__1": "z:1"})
        assert assembly.tree["stores"]["a"]["cluster"] == ["x:1", "z:1"]
        assert events(assembly.history.of(("stores", "a", "cluster", 0))) == [("file", "storeconf.yaml:1:37", "x:1")]
        assert events(assembly.history.of(("stores", "a", "cluster", 1))) == [
            ("variable", "$STORECONF__STORES__A__CLUSTER__1", "z:1"),
            ("file", "storeconf.yaml:1:44", "y:1"),
        ]
        assert events(assembly.history.of(("stores", "a", "cluster"))) == [
            ("variable", "$STORECONF__STORES__A__CLUSTER__1", ["x:1", "z:1"]),
            ("file", "storeconf.yaml:1:36", ["x:1", "y:1"]),
        ]

    def test_values_are_masked_by_who_knows_what_is_secret(self, work: Workplace) -> None:
        work.write(storeconf__yaml="stores: {a: {type: redis, password: geheim}}\n", secret="hush\n")
        assembly = work.assemble(environ={"STORECONF__STORES__A__PASSWORD_FILE": "secret"})
        path = ("stores", "a", "password")
        masked = assembly.history.of(path, lambda path, value: f"<{path[-1]}>")
        assert events(masked) == [
            ("variable", "$STORECONF__STORES__A__PASSWORD_FILE", "***"),
            ("file", "storeconf.yaml:1:37", "<password>"),
        ]

    def test_nobody_said_anything(self, work: Workplace) -> None:
        work.write(storeconf__yaml=MEMORY)
        assembly = work.assemble()
        assert assembly.history.of(("stores", "a", "max_size")) is None
        assert assembly.history.of(("stores", "b")) is None
        assert assembly.history.of(("default_factory", "use")) is None
        assert assembly.history.of(()) is None

    def test_the_place_of_a_mapping_is_its_first(self, work: Workplace) -> None:
        work.write(
            base__yaml="stores:\n  a: {type: redis}\n  b: {type: redis, db: 1}\n",
            storeconf__yaml="extends: [base.yaml]\nstores:\n  a: {db: 1}\n  b: {type: memory}\n",
        )
        assembly = work.assemble()
        assert place(assembly.history.place(("stores", "a"), key=True)) == ("base.yaml", 2, 3)
        assert place(assembly.history.place(("stores", "b"), key=True)) == ("storeconf.yaml", 4, 3)
        # What is not there stands where it would have to: in the nearest mapping that is.
        assert place(assembly.history.place(("stores", "a", "url"))) == ("base.yaml", 2, 3)
        assert place(assembly.history.place(("stores", "c", "url"))) == ("base.yaml", 1, 1)

    def test_relative_paths(self, work: Workplace) -> None:
        work.file("conf/base.yaml", "stores: {a: {type: file, path: x}, b: {type: file, path: x}}\n")
        work.write(storeconf__yaml="extends: [conf/base.yaml]\nstores: {b: {path: y}}\n")
        work.file("deploy/storeconf.yaml", "extends: [../storeconf.yaml]\n")
        assembly = work.assemble("deploy/storeconf.yaml", environ={"STORECONF__STORES__C__TYPE": "file"})
        assert directory(assembly, "a", "path").resolve() == (work.path / "conf").resolve()
        assert directory(assembly, "b", "path").resolve() == work.path.resolve()
        assert directory(assembly, "c", "type") == Path.cwd()
        source = {"stores": {"a": {"type": "file", "path": "x"}}}
        assert directory(work.assemble(source), "a", "path") == Path.cwd()


def directory(assembly: Assembly, *path: str) -> Path:
    """What relative paths in a store are relative to."""
    layer = assembly.history.layer(("stores", *path))
    assert layer is not None
    return layer.directory


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


@settings(max_examples=200, deadline=None)
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
