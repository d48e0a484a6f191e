"""Environments, their overlays, and what a layer removes."""

from __future__ import annotations

import pytest

from storeconf.catalog import Catalog
from tests.config.assembling import Workplace, assemble, events, place, work
from tests.config.sized import MEMORY, size, sized

__all__ = ["work"]


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
