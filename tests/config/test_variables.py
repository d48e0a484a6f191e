"""Variables: what they set, what they can't, and the problem of one that does not match any setting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from storeconf.catalog import Catalog
from storeconf.config.tree import Placeholder, Text
from storeconf.config.variables import iter_variables
from storeconf.plugin import Backend, Middleware, Settings
from tests.config.assembling import Workplace, assemble, tainted, work
from tests.config.settable import LAYOUT, layout, set_by, stores

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["layout", "work"]

# ---------------------------------------------------------------------- what they set


class TestFitting:
    @pytest.mark.parametrize(
        ("name", "value", "path"),
        [
            ("MAIN__URL", "redis://b", "main.url"),
            ("main__url", "redis://b", "main.url"),
            ("Main__Connect_Timeout", "3s", "main.connect_timeout"),
            ("RATE_LIMIT__NAMESPACE", "n", "rate-limit.namespace"),
            ("rate-limit__DESCRIPTION", "d", "rate-limit.description"),
            ("SAME__USE", "main", "same.use"),
            ("MANY__TLS__VERIFY", "none", "many.tls.verify"),
            ("MAIN__TLS__CA_FILE", "x.pem", "main.tls.ca_file"),
            ("WATCHED__SENTINEL__SERVICE", "t", "watched.sentinel.service"),
            ("WATCHED__SENTINEL__TLS__VERIFY", "none", "watched.sentinel.tls.verify"),
            ("MAIN__MIDDLEWARE__TTL__DEFAULT", "1d", "main.middleware.ttl.default"),
            ("MAIN__MIDDLEWARE__READ_ONLY", "true", "main.middleware.read_only"),
            ("RATE_LIMIT__MIDDLEWARE__ON_ERROR__REACT", "x", None),
            ("MAIN__MIDDLEWARE__RETRY__ATTEMPTS", "3", "main.middleware.retry.attempts"),
        ],
    )
    def test_any_field_of_any_store(self, layout: Workplace, name: str, value: str, path: str | None) -> None:
        if path is None:
            assert layout.problem(environ={f"STORECONF__STORES__{name}": value}).code == "SC301"
            return
        here = stores(layout, **{name: value})
        for step in path.split("."):
            here = here[step]
        assert here == (True if value == "true" else value)

    def test_texts_get_their_type_from_the_field(self, layout: Workplace) -> None:
        main = stores(layout, MAIN__PASSWORD="0123", MAIN__DB="0123")["main"]
        assert main["password"] == main["db"] == "0123"
        assert type(main["password"]) is type(main["db"]) is Text

    def test_values_are_literal(self, layout: Workplace) -> None:
        assert stores(layout, MAIN__PASSWORD="${HOME}$$")["main"]["password"] == "${HOME}$$"
        assert stores(layout, MANY__CLUSTER='["${HOME}:1"]')["many"]["cluster"] == ["${HOME}:1"]

    def test_empty_counts_as_unset(self, layout: Workplace) -> None:
        assert set_by(layout, STORES__MAIN__URL="", STORES__NOTHING__URL="", NONSENSE="") == layout.tree()
        assert layout.tree(environ={"STORECONF_ENVIRONMENT": ""}) == layout.tree()

    def test_the_default_factory(self, layout: Workplace) -> None:
        assert set_by(layout, DEFAULT_FACTORY="forbid")["default_factory"] == "forbid"
        assert set_by(layout, DEFAULT_FACTORY__PARENT="rate-limit")["default_factory"] == {"parent": "rate-limit"}
        assert set_by(layout, DEFAULT_FACTORY__MAX_STORES="5")["default_factory"] == {
            "parent": "main",
            "max_stores": "5",
        }
        assert set_by(layout, DEFAULT_FACTORY__TYPE="file", DEFAULT_FACTORY__PATH="p")["default_factory"] == {
            "type": "file",
            "path": "p",
        }
        assert set_by(layout, DEFAULT_FACTORY__MIDDLEWARE__TTL__MAX="1d")["default_factory"] == {
            "parent": "main",
            "middleware": {"ttl": {"max": "1d"}},
        }

    def test_a_section_that_is_not_there_yet(self, work: Workplace) -> None:
        work.write(storeconf__yaml="stores: {a: {type: memory}}\n")
        assert set_by(work, DEFAULT_FACTORY__PARENT="a")["default_factory"] == {"parent": "a"}
        assert set_by(work, DEFAULT_FACTORY__TYPE="memory", DEFAULT_FACTORY__MAX_ENTRIES="5")["default_factory"] == {
            "type": "memory",
            "max_entries": "5",
        }

    def test_a_layout_of_variables_alone(self, work: Workplace) -> None:
        variables = {"STORECONF__STORES__A__TYPE": "memory", "STORECONF__STORES__A__MAX_ENTRIES": "3"}
        assert work.tree({}, environ=variables) == {"stores": {"a": {"type": "memory", "max_entries": "3"}}}


class TestMiddleware:
    def test_a_scalar_is_the_main_setting(self, layout: Workplace) -> None:
        assert stores(layout, MAIN__MIDDLEWARE__TTL="14d")["main"]["middleware"]["ttl"] == {
            "max": "30d",
            "default": "14d",
        }
        assert stores(layout, MANY__MIDDLEWARE__TTL="14d")["many"]["middleware"]["ttl"] == "14d"

    def test_a_scalar_and_other_settings(self, layout: Workplace) -> None:
        found = stores(layout, MANY__MIDDLEWARE__TTL="14d", MANY__MIDDLEWARE__TTL__MAX="20d")["many"]["middleware"]
        assert found == {"ttl": {"default": "14d", "max": "20d"}}

    @pytest.mark.parametrize("text", ["false", "False", "FALSE"])
    def test_false_switches_off(self, layout: Workplace, text: str) -> None:
        assert stores(layout, MAIN__MIDDLEWARE__TTL=text)["main"]["middleware"]["ttl"] is False

    def test_several_settings_as_flow(self, layout: Workplace) -> None:
        middleware = stores(layout, RATE_LIMIT__MIDDLEWARE="{ttl: {default: 1d}, retry: false}")["rate-limit"][
            "middleware"
        ]
        assert middleware == {"ttl": {"default": "1d"}, "retry": False}
        middleware = stores(layout, MANY__MIDDLEWARE__ENCRYPT="[one, two]")["many"]["middleware"]
        assert middleware["encrypt"] in (["one", "two"], {"keys": ["one", "two"]}, "[one, two]")


class TestFlow:
    @pytest.mark.parametrize(
        "text", ['["x:1", "y:1"]', "[x:1, y:1]", " ['x:1',\n y:1] ", "[x:1, y:1, ]", "[x:1, # one\n y:1]"]
    )
    def test_lists(self, layout: Workplace, text: str) -> None:
        cluster = stores(layout, MANY__CLUSTER=text)["many"]["cluster"]
        assert cluster == ["x:1", "y:1"]
        assert {type(item) for item in cluster} == {Text}

    @pytest.mark.parametrize("text", ['{"verify": "none"}', "{verify: none}"])
    def test_mappings_are_merged(self, layout: Workplace, text: str) -> None:
        assert stores(layout, MANY__TLS=text)["many"]["tls"] == {"ca_file": "ca.pem", "verify": "none"}

    def test_a_field_that_also_takes_a_scalar(self, layout: Workplace) -> None:
        assert stores(layout, MANY__TLS="true")["many"]["tls"] == "true"

    def test_texts_stay_texts_where_a_text_is_wanted(self, layout: Workplace) -> None:
        for text in ("[a]", "{a: 1}", "{", "[1, 2"):
            assert stores(layout, MAIN__PASSWORD=text)["main"]["password"] == text

    @pytest.mark.parametrize("text", ["x:1,y:1", "- x:1", "[x:1", "{a: 1}", "[x:1], more: [y:1]", "[x:1]]"])
    def test_what_is_not_what_is_wanted(self, layout: Workplace, text: str) -> None:
        problem = layout.problem(environ={"STORECONF__STORES__MANY__CLUSTER": text})
        assert (problem.code, problem.variable) == ("SC305", "STORECONF__STORES__MANY__CLUSTER")
        assert problem.path == "stores.many.cluster"
        assert problem.hint == "write [first, second]"

    def test_a_whole_store(self, layout: Workplace) -> None:
        found = stores(layout, MAIN="{db: 3}", NEW='{"type": "memory", "max_entries": 5}')
        assert found["main"]["db"] == 3
        assert found["new"] == {"type": "memory", "max_entries": 5}

    def test_all_stores(self, layout: Workplace) -> None:
        found = set_by(layout, STORES="{new: {type: memory}}", STORES__NEW__MAX_ENTRIES="3")["stores"]
        assert found["new"] == {"type": "memory", "max_entries": "3"}
        assert "main" in found


class TestIndices:
    def test_an_index_replaces_or_appends_one(self, layout: Workplace) -> None:
        assert stores(layout, MANY__CLUSTER__0="x:1")["many"]["cluster"] == ["x:1", "b:1"]
        assert stores(layout, MANY__CLUSTER__2="x:1")["many"]["cluster"] == ["a:1", "b:1", "x:1"]
        found = stores(layout, MANY__CLUSTER__2="x:1", MANY__CLUSTER__3="y:1")["many"]["cluster"]
        assert found == ["a:1", "b:1", "x:1", "y:1"]

    def test_ten_and_more(self, layout: Workplace) -> None:
        names = {f"MANY__CLUSTER__{number}": f"n{number}:1" for number in range(12)}
        assert stores(layout, **names)["many"]["cluster"] == [f"n{number}:1" for number in range(12)]

    def test_beyond_that_is_an_error(self, layout: Workplace) -> None:
        problem = layout.problem(environ={"STORECONF__STORES__MANY__CLUSTER__3": "x:1"})
        assert problem.code == "SC301"
        assert "the index can be at most 2" in problem.message

    def test_the_first_of_a_new_list(self, layout: Workplace) -> None:
        assert stores(layout, MAIN__CLUSTER__0="x:1")["main"]["cluster"] == ["x:1"]

    def test_on_top_of_the_whole_list(self, layout: Workplace) -> None:
        found = stores(layout, MANY__CLUSTER="[x:1]", MANY__CLUSTER__0="y:1", MANY__CLUSTER__1="z:1")
        assert found["many"]["cluster"] == ["y:1", "z:1"]


class TestNewStores:
    @pytest.mark.parametrize(("key", "value"), [("TYPE", "memory"), ("PARENT", "main"), ("USE", "main")])
    def test_a_kind_creates_one(self, layout: Workplace, key: str, value: str) -> None:
        assert stores(layout, **{f"NEW_ONE__{key}": value})["new_one"] == {key.lower(): value}

    def test_other_variables_fit_its_kind(self, layout: Workplace) -> None:
        found = stores(layout, A_NEW__MAX_ENTRIES="3", A_NEW__TYPE="memory", A_NEW__MIDDLEWARE__TTL="1d")["a_new"]
        assert found == {"type": "memory", "max_entries": "3", "middleware": {"ttl": "1d"}}

    def test_nothing_else_does(self, layout: Workplace) -> None:
        problem = layout.problem(environ={"STORECONF__STORES__BRANDNEW__URL": "redis://x"})
        assert problem.code == "SC301"
        assert problem.hint is not None
        assert problem.hint.startswith("a variable creates a new store only by its TYPE, PARENT or USE")

    @pytest.mark.parametrize("name", ["_A", "A-", "A B", "Ä", ""])
    def test_its_name_keeps_the_rule(self, layout: Workplace, name: str) -> None:
        problem = layout.problem(environ={f"STORECONF__STORES__{name}__TYPE": "memory"})
        assert problem.code == "SC301"

    @pytest.mark.parametrize("name", ["MAINS", "RATELIMIT", "RATE_LMIT"])
    def test_one_that_is_almost_another_is_a_warning(self, layout: Workplace, name: str) -> None:
        problem = layout.problem(environ={f"STORECONF__STORES__{name}__PARENT": "main"})
        assert (problem.code, problem.severity) == ("SC806", "warning")
        assert problem.path == f"stores.{name.lower()}"

    def test_one_that_differs_in_a_number_is_none(self, work: Workplace) -> None:
        work.write(storeconf__yaml="stores: {cache1: {type: memory}}\n")
        assert "cache2" in stores(work, CACHE2__TYPE="memory")

    def test_a_store_that_an_override_declares(self, layout: Workplace) -> None:
        tree = layout.tree(
            environ={"STORECONF__STORES__NEW__MAX_ENTRIES": "3"}, overrides={"stores.new.type": "memory"}
        )
        assert tree["stores"]["new"] == {"max_entries": "3", "type": "memory"}

    def test_a_store_whose_kind_an_override_says(self, work: Workplace) -> None:
        work.write(storeconf__yaml="stores: {a: {description: d}}\n")
        tree = work.tree(environ={"STORECONF__STORES__A__MAX_ENTRIES": "3"}, overrides={"stores.a.type": "memory"})
        assert tree["stores"]["a"] == {"description": "d", "max_entries": "3", "type": "memory"}


class TestKinds:
    def test_the_fields_are_those_of_the_new_kind(self, layout: Workplace) -> None:
        found = stores(layout, MAIN__TYPE="memory", MAIN__MAX_ENTRIES="3")["main"]
        assert found == {
            "type": "memory",
            "max_entries": "3",
            "namespace": "shop",
            "middleware": {"ttl": {"max": "30d"}},
        }
        problem = layout.problem(
            environ={"STORECONF__STORES__MAIN__TYPE": "memory", "STORECONF__STORES__MAIN__DB": "3"}
        )
        assert (problem.code, problem.variable) == ("SC301", "STORECONF__STORES__MAIN__DB")
        assert "(type: memory)" in problem.message

    def test_a_child_and_an_alias_have_fields_of_their_own(self, layout: Workplace) -> None:
        for name, known in (("RATE_LIMIT", "namespace"), ("SAME", "description")):
            problem = layout.problem(environ={f"STORECONF__STORES__{name}__PASSWORD": "x"})
            assert problem.code == "SC301"
            assert problem.hint is not None
            assert known in problem.hint

    def test_a_kind_that_nobody_knows_takes_anything(self, work: Workplace) -> None:
        work.write(storeconf__yaml="stores: {a: {type: nope}}\n")
        found = stores(work, A__WHATEVER="1", A__URL_FILE__X="2", A__X__Y__0__Z="3", A__LIST="[1]")["a"]
        assert found == {"type": "nope", "whatever": "1", "url_file": {"x": "2"}, "x": {"y": [{"z": "3"}]}, "list": [1]}

    def test_a_kind_that_is_a_substitution(self, work: Workplace) -> None:
        work.write(storeconf__yaml="stores: {a: {type: '${KIND:-redis}', url: 'redis://a'}}\n")
        assert stores(work, A__CLUSTER="[x:1]")["a"] == {"type": "redis", "cluster": ["x:1"]}
        memory = {"KIND": "memory", "STORECONF__STORES__A__URL": "redis://b"}
        assert work.problem(environ=memory).code == "SC301"
        work.write(storeconf__yaml="stores: {a: {type: '${', url: 'redis://a'}}\n")
        assert work.problem(environ={"STORECONF__STORES__A__WHATEVER": "x"}).code == "SC401"

    def test_middleware_that_nobody_knows_takes_anything(self, work: Workplace) -> None:
        work.write(storeconf__yaml="stores: {a: {type: memory, middleware: {nope: {x: 1}}}}\n")
        found = stores(work, A__MIDDLEWARE__NOPE__Y="2")["a"]["middleware"]
        assert found == {"nope": {"x": 1, "y": "2"}}

    def test_exclusive_fields(self, layout: Workplace) -> None:
        assert stores(layout, MAIN__CLUSTER="[x:1]")["main"].keys() == {"type", "cluster", "namespace", "middleware"}
        variables = {"STORECONF__STORES__MAIN__CLUSTER": "[x:1]", "STORECONF__STORES__MAIN__URL": "redis://x"}
        problem = layout.problem(environ=variables)
        assert (problem.code, problem.variable) == ("SC510", "STORECONF__STORES__MAIN__CLUSTER")
        assert problem.notes[0].variable == "STORECONF__STORES__MAIN__URL"


# ---------------------------------------------------------------------- _FILE


class TestFiles:
    def test_the_value_is_read_from_the_file(self, layout: Workplace) -> None:
        layout.file("run/secret", "s3cr\u00e9t\n")
        assembly = layout.assemble(environ={"STORECONF__STORES__MAIN__PASSWORD_FILE": "run/secret"})
        assert not assembly.report.found
        assert assembly.tree["stores"]["main"]["password"] == "s3cr\u00e9t"
        assert tainted(assembly.tree) == {"s3cr\u00e9t": "***"}

    @pytest.mark.parametrize(
        ("content", "value"), [("x", "x"), ("x\n", "x"), ("x\n\n", "x\n"), ("x\r\n", "x"), (" x ", " x ")]
    )
    def test_without_one_trailing_newline(self, layout: Workplace, content: str, value: str) -> None:
        (layout.path / "secret").write_bytes(content.encode())
        assert stores(layout, MAIN__PASSWORD_FILE="secret")["main"]["password"] == value

    def test_a_field_of_that_very_name_goes_first(self, layout: Workplace) -> None:
        assert stores(layout, MANY__TLS__CA_FILE="other.pem")["many"]["tls"]["ca_file"] == "other.pem"
        layout.file("name", "third.pem")
        assert stores(layout, MANY__TLS__CA_FILE_FILE="name")["many"]["tls"]["ca_file"] == "third.pem"

    def test_both_is_an_error(self, layout: Workplace) -> None:
        layout.file("secret", "x")
        problem = layout.problem(
            environ={"STORECONF__STORES__MAIN__PASSWORD_FILE": "secret", "STORECONF__STORES__MAIN__PASSWORD": "y"}
        )
        assert problem.code == "SC306"
        assert "STORECONF__STORES__MAIN__PASSWORD and STORECONF__STORES__MAIN__PASSWORD_FILE" in problem.message

    @pytest.mark.parametrize(
        ("name", "words"), [("nothing", "does not exist"), (".", "can't be read"), ("binary", "is not UTF-8")]
    )
    def test_a_file_that_cant_be_read(self, layout: Workplace, name: str, words: str) -> None:
        (layout.path / "binary").write_bytes(b"\xff\xfe")
        problem = layout.problem(environ={"STORECONF__STORES__MAIN__PASSWORD_FILE": name})
        assert (problem.code, problem.variable) == ("SC307", "STORECONF__STORES__MAIN__PASSWORD_FILE")
        assert words in problem.message

    def test_a_missing_one_may_count_as_a_placeholder(self, layout: Workplace) -> None:
        variables = {"STORECONF__STORES__MAIN__PASSWORD_FILE": "nothing"}
        tree = layout.tree(environ=variables, without_secrets=True)
        assert type(tree["stores"]["main"]["password"]) is Placeholder

    def test_an_empty_one_counts_as_unset_with_a_warning(self, layout: Workplace) -> None:
        layout.file("secret", "\n")
        assembly = layout.assemble(environ={"STORECONF__STORES__MAIN__PASSWORD_FILE": "secret"})
        assert [(problem.code, problem.severity) for problem in assembly.report.found] == [("SC805", "warning")]
        assert "password" not in assembly.tree["stores"]["main"]

    def test_all_that_a_mapping_holds_is_secret(self, layout: Workplace) -> None:
        layout.file("tls", "{ca_file: one, verify: two}\n")
        assembly = layout.assemble(environ={"STORECONF__STORES__MANY__TLS_FILE": "tls"})
        assert tainted(assembly.tree["stores"]["many"]["tls"]) == {"one": "***", "two": "***"}

    def test_lists_and_kinds_too(self, layout: Workplace) -> None:
        layout.file("nodes", "[x:1, y:1]\n")
        layout.file("kind", "memory\n")
        found = stores(layout, MANY__CLUSTER_FILE="nodes", NEW__TYPE_FILE="kind")
        assert found["many"]["cluster"] == ["x:1", "y:1"]
        assert found["new"] == {"type": "memory"}


# ---------------------------------------------------------------------- what fits nothing


class TestMisfits:
    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            ("STORES__MIAN__URL", "STORES__MAIN__URL"),
            ("STORES__MAIN__ULR", "STORES__MAIN__URL"),
            ("STORE__MAIN__URL", "STORES__MAIN__URL"),
            ("MAIN__URL", "STORES__MAIN__URL"),
            ("STORES_MAIN_URL", "STORES__MAIN__URL"),
            ("STORES__MAIN_URL", "STORES__MAIN__URL"),
            ("STORES__MAIN__CONNECT__TIMEOUT", "STORES__MAIN__CONNECT_TIMEOUT"),
            ("STORES__MAIN__CONNECTTIMEOUT", "STORES__MAIN__CONNECT_TIMEOUT"),
            ("STORES__MAIN__PASWORD_FILE", "STORES__MAIN__PASSWORD_FILE"),
            ("STORES__RATE__LIMIT__NAMESPACE", "STORES__RATE_LIMIT__NAMESPACE"),
            ("STORES__MAIN__TTL__DEFAULT", "STORES__MAIN__MIDDLEWARE__TTL__DEFAULT"),
            ("STORES__MAIN__MIDDLEWARE__TTL__DEFALT", "STORES__MAIN__MIDDLEWARE__TTL__DEFAULT"),
            ("STORES__MAIN__MIDLEWARE__TTL__DEFAULT", "STORES__MAIN__MIDDLEWARE__TTL__DEFAULT"),
            ("STORES__MANY__TLS__CAFILE", "STORES__MANY__TLS__CA_FILE"),
            ("STORES__MAIN__MIDDLEWARE__TLT", "STORES__MAIN__MIDDLEWARE__TTL"),
            ("DEFAULT_FACTORY__PARNT", "DEFAULT_FACTORY__PARENT"),
            ("DEFAULTFACTORY__PARENT", "DEFAULT_FACTORY__PARENT"),
        ],
    )
    def test_the_nearest_variable_and_path_are_suggested(self, layout: Workplace, given: str, meant: str) -> None:
        problem = layout.problem(environ={f"STORECONF__{given}": "x"})
        assert (problem.code, problem.variable) == ("SC301", f"STORECONF__{given}")
        assert problem.hint == f"did you mean STORECONF__{meant}, which sets {problem.path}?"
        assert problem.path is not None
        plain = meant.removesuffix("_FILE") if given.endswith("PASWORD_FILE") else meant
        assert problem.path.replace("-", "_").replace(".", "__").upper() == plain

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "__",
            "STORES__",
            "XYZZY",
            "STORES__MAIN__XYZZY",
            "STORES__MAIN__URL__X",
            f"STORES__MANY__CLUSTER__{'9' * 5000}",
            "STORES__MANY__CLUSTER__²",
        ],
    )
    def test_what_is_near_nothing(self, layout: Workplace, name: str) -> None:
        problem = layout.problem(environ={f"STORECONF__{name}": "x"})
        assert problem.code in ("SC301", "SC305")

    def test_what_there_is_is_listed(self, layout: Workplace) -> None:
        assert layout.problem(environ={"STORECONF__XYZZY": "x"}).hint == "there is stores, default_factory"

    def test_the_value_is_never_shown(self, layout: Workplace) -> None:
        variables = {"STORECONF__STORES__MIAN__PASSWORD": "geheim", "STORECONF__STORES__MANY__CLUSTER": "geheim"}
        for problem in layout.assemble(environ=variables).report.found:
            assert "geheim" not in f"{problem} {problem!r}"

    def test_two_stores_that_fit_are_named(self, work: Workplace) -> None:
        work.write(storeconf__yaml="stores: {a-b: {type: memory}, a_b: {type: memory}, A-B: {type: memory}}\n")
        problem = work.problem(environ={"STORECONF__STORES__A_B__MAX_ENTRIES": "1"})
        assert (problem.code, problem.variable) == ("SC302", "STORECONF__STORES__A_B__MAX_ENTRIES")
        assert "'a-b' and 'a_b' and 'A-B'" in problem.message

    def test_two_variables_for_one_value(self, layout: Workplace) -> None:
        problem = layout.problem(environ={"STORECONF__STORES__MAIN__URL": "x", "STORECONF__STORES__main__URL": "y"})
        assert problem.code == "SC306"

    @pytest.mark.parametrize("name", ["VERSION", "EXTENDS", "UNSET", "ENVIRONMENTS__DEV__STORES__A__TYPE", "version"])
    def test_what_only_files_can_say(self, layout: Workplace, name: str) -> None:
        problem = layout.problem(environ={f"STORECONF__{name}": "1"})
        assert (problem.code, problem.variable) == ("SC303", f"STORECONF__{name}")

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("ENVIRONMENT", "STORECONF_ENV"),
            ("EVN", "STORECONF_ENV"),
            ("ENVY_OF_OTHERS", None),
            ("END", "STORECONF_ENV"),
            ("ENVS", "STORECONF_ENV"),
            ("FILES", "STORECONF_FILE"),
            ("DISABLE_PLUGIN", "STORECONF_DISABLE_PLUGINS"),
            ("STORES__MAIN__URL", "STORECONF__STORES__MAIN__URL"),
            ("STORES_MAIN_URL", "STORECONF__STORES__MAIN__URL"),
            ("STORES__MAIN__NONSENSE", "STORECONF__STORES__MAIN__NONSENSE"),
            ("DEFAULT_FACTORY__PARENT", "STORECONF__DEFAULT_FACTORY__PARENT"),
        ],
    )
    def test_one_underscore_is_an_error_near_to_a_right_one(
        self, layout: Workplace, name: str, meant: str | None
    ) -> None:
        problem = layout.problem(environ={f"STORECONF_{name}": "x"})
        if meant is None:
            assert (problem.code, problem.severity) == ("SC804", "warning")
        else:
            assert (problem.code, problem.severity, problem.variable) == ("SC304", "error", f"STORECONF_{name}")
            assert problem.hint is not None
            assert f"did you mean {meant}" in problem.hint

    @pytest.mark.parametrize(
        "name",
        ["PORT", "SERVICE_HOST", "SERVICE_PORT", "PORT_6379_TCP_ADDR", "ENV_SERVICE_HOST", "STORES_SERVICE_HOST"],
    )
    def test_what_others_set_is_a_warning(self, layout: Workplace, name: str) -> None:
        problem = layout.problem(environ={f"STORECONF_{name}": "x"})
        assert (problem.code, problem.severity) == ("SC804", "warning")

    def test_what_is_not_ours_is_nothing_to_us(self, layout: Workplace) -> None:
        variables = {"STORECONF": "x", "STORECONFX__STORES": "x", "storeconf__stores": "x", "STORECONF_FILE": "x"}
        assert layout.tree(environ={**variables, "STORECONF_DISABLE_PLUGINS": "1"}) == layout.tree()

    def test_all_are_found_at_once(self, layout: Workplace) -> None:
        variables = {f"STORECONF__STORES__X{number}__URL": "x" for number in range(20)}
        assert len(layout.assemble(environ=variables).report.found) == 20


# ---------------------------------------------------------------------- plugins


class Node(Settings):
    host: str
    port: int = 1


class OddBackend(Backend):
    type: Literal["odd"] = "odd"
    limits: dict[str, int] = Field(default_factory=dict)
    nodes: list[Node] = Field(default_factory=list)
    x_file: str = ""
    anything: Any = None


class OddMiddleware(Middleware):
    kind: ClassVar[str] = "odd-kind"
    shorthand_field: ClassVar[str | None] = "level"
    level: int = 0


class TestPlugins:
    @pytest.fixture
    def catalog(self) -> Catalog:
        return Catalog.builtin().with_backend("odd", OddBackend).with_middleware("odd-kind", OddMiddleware)

    @pytest.mark.parametrize(
        ("name", "value", "result"),
        [
            ("LIMITS__READS", "3", {"limits": {"reads": "3", "Writes": 1}}),
            ("LIMITS__WRITES", "3", {"limits": {"Writes": "3"}}),
            ("LIMITS", "{reads: 3}", {"limits": {"reads": 3, "Writes": 1}}),
            ("NODES__0__PORT", "3", {"nodes": [{"host": "a", "port": "3"}]}),
            ("NODES__1__HOST", "b", {"nodes": [{"host": "a"}, {"host": "b"}]}),
            ("NODES__1", "{host: b}", {"nodes": [{"host": "a"}, {"host": "b"}]}),
            ("X_FILE", "b", {"x_file": "b"}),
            ("ANYTHING", "b", {"anything": "b"}),
            ("ANYTHING", "[1]", {"anything": [1]}),
            ("MIDDLEWARE__ODD_KIND", "3", {"middleware": {"odd-kind": "3"}}),
            ("MIDDLEWARE__ODD_KIND__LEVEL", "3", {"middleware": {"odd-kind": {"level": "3"}}}),
        ],
    )
    def test_their_fields_are_like_ours(
        self, work: Workplace, catalog: Catalog, name: str, value: str, result: dict[str, Any]
    ) -> None:
        work.write(storeconf__yaml="stores: {a: {type: odd, limits: {Writes: 1}, nodes: [{host: a}]}}\n")
        tree = work.tree(environ={f"STORECONF__STORES__A__{name}": value}, catalog=catalog)
        before = work.tree(catalog=catalog)["stores"]["a"]
        assert tree["stores"]["a"] == before | result


# ---------------------------------------------------------------------- the list of all variables


def test_every_variable_that_could_override_something_does(layout: Workplace) -> None:
    tree = layout.tree()
    variables = list(iter_variables(tree, Catalog.builtin()))
    names = {variable.name for variable in variables}
    assert {
        "STORECONF__STORES__MAIN__URL",
        "STORECONF__STORES__MANY__CLUSTER__1",
        "STORECONF__STORES__MANY__TLS__CA_FILE",
        "STORECONF__STORES__RATE_LIMIT__NAMESPACE",
        "STORECONF__STORES__SAME__USE",
        "STORECONF__STORES__MAIN__MIDDLEWARE__TTL__DEFAULT",
        "STORECONF__DEFAULT_FACTORY",
        "STORECONF__DEFAULT_FACTORY__MAX_STORES",
    } <= names
    assert len(names) == len(variables)
    secrets = {variable.path[-1] for variable in variables if variable.secret}
    assert "password" in secrets
    for variable in variables:
        value = "[]" if variable.path[-1] in ("cluster", "nodes") else "{}"
        assembly = layout.assemble(environ={variable.name: value})
        assert {problem.code for problem in assembly.report.found} <= {"SC510", "SC305"}, variable
        if not assembly.report.found:
            origin = assembly.history.of(variable.path)
            assert origin is not None
            assert origin.variable == variable.name


SEGMENTS = ("STORES", "MAIN", "MANY", "URL", "TLS", "0", "MIDDLEWARE", "TTL", "TYPE", "X_FILE", "_", "")


@settings(max_examples=200)
@given(
    st.dictionaries(
        st.lists(
            st.sampled_from(
                ["STORES", "MAIN", "MANY", "URL", "TLS", "0", "MIDDLEWARE", "TTL", "TYPE", "X_FILE", "_", ""]
            ),
            max_size=5,
        ).map(lambda segments: "STORECONF__" + "__".join(segments))
        | st.text("ABC_", max_size=5).map(lambda rest: f"STORECONF_{rest}"),
        st.sampled_from(["x", "[", "[a]", "{a: 1}", "{a: {b: [1]}}", "forbid", "\x00", "\ud800", "null"]),
        max_size=4,
    )
)
def test_no_variable_does_more_than_be_a_problem(variables: dict[str, str]) -> None:
    source = {
        "stores": {
            "main": {"type": "redis", "url": "u", "middleware": {"ttl": 1}},
            "many": {"type": "redis", "cluster": ["a:1"], "tls": {"verify": "none"}},
        }
    }
    assembly = assemble(source, environ=variables, catalog=Catalog.builtin())
    for problem in assembly.report.found:
        assert problem.variable in variables


def test_the_file_of_a_variable_is_relative_to_the_working_directory(layout: Workplace, tmp_path: Path) -> None:
    layout.file("deploy/layout.yaml", LAYOUT)
    layout.file("secret", "hush")
    environ = {"STORECONF__STORES__MAIN__PASSWORD_FILE": "secret"}
    assert layout.tree("deploy/layout.yaml", environ=environ)["stores"]["main"]["password"] == "hush"
