"""``${…}``: its grammar, where values come from, what is secret, and what may not go into a URL."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storeconf.catalog import Catalog
from storeconf.config.language import Reference, parse_references
from storeconf.config.tree import Placeholder, Text
from storeconf.diagnostics import Fault
from tests.config.assembling import Workplace, assemble, place, tainted, work

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storeconf.config.pipeline import Assembly
    from storeconf.diagnostics import Finding
    from storeconf.plugin import ResolveContext

__all__ = ["work"]


def given_texts(
    texts: Any,
    environ: Mapping[str, str] | None = None,
    *,
    catalog: Catalog | None = None,
    without_secrets: bool = False,
) -> Assembly:
    """A layout of one store, whose description is ``texts`` (or that has them as fields)."""
    fields = texts if isinstance(texts, dict) else {"description": texts}
    return assemble(
        {"stores": {"a": {"type": "redis", **fields}}},
        environ=environ or {},
        catalog=catalog or Catalog.builtin(),
        without_secrets=without_secrets,
    )


def value(text: str, environ: Mapping[str, str] | None = None, **kwargs: Any) -> Any:
    assembly = given_texts(text, environ, **kwargs)
    errors = [finding for finding in assembly.report.found if finding.severity == "error"]
    assert not errors, [str(problem) for problem in errors]
    return assembly.tree["stores"]["a"]["description"]


def fault(text: Any, environ: Mapping[str, str] | None = None, **kwargs: Any) -> Finding:
    problems = given_texts(text, environ, **kwargs).report.found
    assert len(problems) == 1, [str(problem) for problem in problems]
    return problems[0]


# ---------------------------------------------------------------------- the grammar


class TestGrammar:
    @pytest.mark.parametrize(
        ("text", "result"),
        [
            ("${A}", "1"),
            ("${env:A}", "1"),
            ("x${A}y${B}z", "x1y2z"),
            ("${A:-d}", "1"),
            ("${env:X:-d}", "d"),
            ("${X:-}", ""),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY}", ""),
            ("${X:-a:-b:?c}", "a:-b:?c"),
            ("${X:-redis://localhost:6379/0}", "redis://localhost:6379/0"),
            ("${X:-$}", "$"),
            ("${X:-$$}", "$"),
            ("${A:?m}", "1"),
            ("${file:-d}", "d"),
            ("${_x9}", "9"),
            ("$$", "$"),
            ("$${A}", "${A}"),
            ("$$${A}", "$1"),
            ("$$$${A}", "$${A}"),
            ("a$b", "a$b"),
            ("$A $(A) $", "$A $(A) $"),
            ("cost: 5$", "cost: 5$"),
            ("{A}", "{A}"),
            ("${A}}", "1}"),
        ],
    )
    def test_valid(self, text: str, result: str) -> None:
        assert value(text, {"A": "1", "B": "2", "EMPTY": "", "_x9": "9"}) == result

    @pytest.mark.parametrize(
        ("text", "start", "end", "hint"),
        [
            ("${", 0, 2, "$$"),
            ("ab${A", 2, 5, "$$"),
            ("${}", 0, 3, "${NAME}"),
            ("${ A }", 0, 6, "${A}"),
            ("${1A}", 0, 5, "${NAME}"),
            ("${A-B}", 0, 6, "${A:-…}"),
            ("${A?m}", 0, 6, "${A:?…}"),
            ("${A.b}", 0, 6, "${NAME}"),
            ("${A=b}", 0, 6, "${NAME}"),
            ("${env:}", 0, 7, "${NAME}"),
            ("${env:1}", 0, 8, "${NAME}"),
            ("${file:}", 0, 8, "${file:…}"),
            ("${A:-${B}}", 5, 9, None),
            ("${A${B}}", 3, 7, None),
            ("${A:-x\ny}", 0, 9, None),
            ("$$${", 2, 4, "$$"),
        ],
    )
    def test_invalid(self, text: str, start: int, end: int, hint: str | None) -> None:
        with pytest.raises(Fault) as caught:
            parse_references(text)
        assert caught.value.span == (start, end)
        assert (hint or "") in (caught.value.hint or "")
        problem = fault(text, {"A": "1", "B": "2"})
        assert (problem.code, problem.path) == ("SC401", "stores.a.description")

    @pytest.mark.parametrize(
        ("text", "meant"),
        [("${A:b}", "${A:-…}"), ("${A:+b}", ":-"), ("${A:=b}", ":-"), ("${A-redis://b}", "${A:-…}")],
    )
    def test_other_shells_operators_are_unknown_resolvers_with_a_hint(self, text: str, meant: str) -> None:
        problem = fault(text, {"A": "1"})
        assert problem.code == "SC701"
        assert problem.hint is not None
        assert meant in problem.hint

    @given(st.lists(st.sampled_from(["$", "{", "}", "A", ":", "-", "?", "\n", "x", "env", "file"]), max_size=12))
    def test_every_text_is_either_valid_or_refused(self, pieces: list[str]) -> None:
        text = "".join(pieces)
        spans: list[tuple[int, int]] = []
        try:
            parts = parse_references(text)
        except Fault as error:
            spans.append(error.span)
        else:
            spans += (part.span for part in parts if isinstance(part, Reference))
        for start, end in spans:
            assert text[start:end].startswith("${")

    @given(st.text(st.characters(exclude_characters="$"), max_size=20))
    def test_texts_without_a_dollar_are_themselves(self, text: str) -> None:
        assert value(text) == text

    @given(st.text("$ab{}", max_size=10))
    def test_escaping_every_dollar_gives_the_text(self, text: str) -> None:
        assert value(text.replace("$", "$$")) == text


# ---------------------------------------------------------------------- where it happens


class TestWhere:
    def test_in_strings_of_lists_and_mappings_but_never_in_keys(self) -> None:
        fields = {"cluster": ["${A}:1", "b:1", ["${A}"]], "tls": {"ca_file": "${A}", "${A}": "x"}, "db": 1}
        assert given_texts(fields, {"A": "1"}).tree["stores"]["a"] == {
            "type": "redis",
            "cluster": ["1:1", "b:1", ["1"]],
            "tls": {"ca_file": "1", "${A}": "x"},
            "db": 1,
        }

    def test_a_value_never_injects_structure(self) -> None:
        for text in ("[a, b]", "{a: b}", "a\nstores: {b: {type: memory}}", "${B}", "null", "true"):
            assert value("${A}", {"A": text, "B": "x"}) == text

    def test_results_are_not_looked_at_again(self) -> None:
        assert value("${A}", {"A": "${B}", "B": "x"}) == "${B}"
        assert value("-${A}-", {"A": "${B}$$", "B": "x"}) == "-${B}$$-"

    def test_only_what_survives_the_merge(self, work: Workplace) -> None:
        work.write(
            storeconf__yaml="""
                stores:
                  a: {type: redis, url: '${UNSET}', password: '${'}
                  b: {type: redis, url: '${UNSET}'}
                  c: {type: redis, url: '${UNSET}'}
                environments:
                  dev: {stores: {a: {type: memory}, b: null, c: {url: 'redis://c'}}}
                  prod: {stores: {a: {url: '${UNSET}'}}}
            """
        )
        assert work.tree(environment="dev")["stores"] == {
            "a": {"type": "memory"},
            "c": {"type": "redis", "url": "redis://c"},
        }

    def test_variables_and_overrides_are_literal(self, work: Workplace) -> None:
        work.write(storeconf__yaml="stores: {a: {type: redis, password: x}}\n")
        variables = {"STORECONF__STORES__A__PASSWORD": "${A}", "A": "1"}
        assert work.tree(environ=variables)["stores"]["a"]["password"] == "${A}"
        assert work.tree(overrides={"stores.a.password": "${A}"})["stores"]["a"]["password"] == "${A}"
        assert (
            work.tree(overrides={"stores": {"a": {"tls": {"ca_file": "${"}}}})["stores"]["a"]["tls"]["ca_file"] == "${"
        )

    def test_documents_are_not_changed(self) -> None:
        source = {"stores": {"a": {"type": "file", "path": "${A}", "x": ["${A}"]}}}
        tree = assemble(source, environ={"A": "1"}, catalog=Catalog.builtin()).tree
        assert tree["stores"]["a"] == {"type": "file", "path": "1", "x": ["1"]}
        assert source["stores"]["a"]["x"] == ["${A}"]

    def test_the_type(self) -> None:
        whole = value("${A}", {"A": "0123"})
        part = value("${A}4", {"A": "0123"})
        assert (whole, type(whole)) == ("0123", Text)
        assert (part, type(part)) == ("01234", str)
        assert type(value("${X:-5}")) is Text
        assert type(value("$$")) is str


# ---------------------------------------------------------------------- problems


class TestProblems:
    def test_unset_without_default(self) -> None:
        problem = fault("${REDIS_ULR}", {"REDIS_URL": "x", "OTHER": "y"})
        assert problem.code == "SC402"
        assert problem.message == "the variable REDIS_ULR is not set"
        assert problem.path == "stores.a.description"
        assert problem.hint is not None
        assert "REDIS_URL?" in problem.hint

    @pytest.mark.parametrize("environ", [{}, {"A": ""}])
    def test_required(self, environ: dict[str, str]) -> None:
        problem = fault("${A:?production needs A}", environ)
        assert problem.code == "SC404"
        assert problem.message == f"the variable A is {'empty' if environ else 'not set'}: production needs A"
        assert fault("${A:?}", environ).message == f"the variable A is {'empty' if environ else 'not set'}"

    def test_every_one_is_found_and_hides_no_other(self) -> None:
        assembly = given_texts({"url": "${A}${B}", "password": "${", "x": ["${C:?}", "${D}"]})
        codes = sorted(problem.code for problem in assembly.report.found)
        assert codes == ["SC401", "SC402", "SC402", "SC402", "SC404"]
        # What is known to be wrong is not checked again.
        assert type(assembly.tree["stores"]["a"]["url"]) is Placeholder

    @pytest.mark.parametrize(
        ("text", "line", "column", "end"),
        [
            ("a: ${X}", 1, 4, 8),
            ("a: xyz${X}", 1, 7, 11),
            ("a: 'x''y${X}z'", 1, 9, 13),
            (r'a: "\u00e9\n${X}"', 1, 13, 17),
            ("a: $$a$b-${X} # comment with $", 1, 10, 14),
            ("a: [1, '${X}']", 1, 9, 13),
            ("a: |\n  one\n  two ${X}\n", 3, 7, 11),
            ("a: >\n  one\n\n  two ${X}\n", 4, 7, 11),
            ("a: 'one\n  two\n  ${X}'", 3, 3, 7),
            ("a: ${X:-ok} ${X}", 1, 13, 17),
            ("a: ${A-b}", 1, 4, 10),
            ("a: x${A", 1, 5, 8),
        ],
    )
    def test_they_are_shown_at_the_very_character(
        self, work: Workplace, text: str, line: int, column: int, end: int
    ) -> None:
        indented = "\n".join(f"    {each}" for each in text.split("\n"))
        work.write(storeconf__yaml=f"stores:\n  s:\n    type: nope\n{indented}\n")
        problem = work.problem(environ={"ok": "x"})
        assert (problem.line, problem.column, problem.end_column) == (line + 3, column + 4, end + 4)
        assert (problem.file, problem.layer) == ("storeconf.yaml", "file")

    @pytest.mark.parametrize(
        ("name", "text", "column"),
        [
            ("a.toml", 'stores.s.a = "xy${X}"\n', 17),
            ("a.toml", "stores.s.a = 'xy${X}'\n", 17),
            ("a.json", '{"stores": {"s": {"a": "xy${X}"}}}\n', 27),
            ("a.json", '{"stores": {"s": {"a": "\\u0024{X}"}}}\n', 24),
        ],
    )
    def test_in_every_format(self, work: Workplace, name: str, text: str, column: int) -> None:
        work.file(name, text)
        assert place(work.problem(name)) == (name, 1, column)

    def test_in_a_shorthand_that_was_merged(self, work: Workplace) -> None:
        work.write(
            base__yaml="stores: {a: {type: memory, middleware: {ttl: '${X}'}}}\n",
            storeconf__yaml="extends: [base.yaml]\nstores: {a: {middleware: {ttl: {max: 1d}}}}\n",
        )
        problem = work.problem()
        assert (problem.path, place(problem)) == ("stores.a.middleware.ttl.default", ("base.yaml", 1, 47))

    def test_placeholders_without_secrets(self) -> None:
        fields = {
            "url": "${UNSET}",
            "description": "${UNSET:?must be set}",
            "password": "${file:/nonexistent/x}",
            "client_name": "x-${UNSET}",
            "username": "${UNSET:-u}",
            "namespace": "${EMPTY:?}",
        }
        assembly = given_texts(fields, {"EMPTY": ""}, without_secrets=True)
        assert not assembly.report.found
        kinds = {key: type(value) for key, value in assembly.tree["stores"]["a"].items()}
        assert kinds == {
            "type": str,
            "url": Placeholder,
            "description": Placeholder,
            "password": Placeholder,
            "client_name": Placeholder,
            "username": Text,
            "namespace": Placeholder,
        }
        assert fault("${", without_secrets=True).code == "SC401"


# ---------------------------------------------------------------------- files


class TestFiles:
    @pytest.mark.parametrize(
        ("content", "result"), [("x", "x"), ("x\n", "x"), ("x\n\n", "x\n"), ("x\r\n", "x"), (" x ", " x "), ("", "")]
    )
    def test_one_trailing_newline_is_cut(self, work: Workplace, content: str, result: str) -> None:
        (work.path / "secret").write_bytes(content.encode())
        assert value("${file:secret}") == result

    def test_relative_to_the_file_that_says_it(self, work: Workplace) -> None:
        work.file("conf/base.yaml", "stores: {a: {type: redis, password: '${file:secret}'}}\n")
        work.file("conf/secret", "deep\n")
        work.file("secret", "top\n")
        work.write(storeconf__yaml="extends: [conf/base.yaml]\nstores: {a: {username: '${file:secret}'}}\n")
        store = work.tree()["stores"]["a"]
        assert (store["password"], store["username"]) == ("deep", "top")
        work.file("conf/base.prod.yaml", "stores: {a: {password: '${file:../secret}'}}\n")
        assert work.tree(environment="prod")["stores"]["a"]["password"] == "top"

    def test_a_default_serves_for_a_missing_or_empty_one_alone(self, work: Workplace) -> None:
        work.file("empty", "\n")
        (work.path / "binary").write_bytes(b"\xff")
        assert value("${file:nothing:-d}") == "d"
        assert value("${file:nothing/deeper:-d}") == "d"
        assert value("${file:empty:-d}") == "d"
        assert fault("${file:binary:-d}").code == "SC403"
        assert fault("${file:.:-d}").code == "SC403"
        assert fault("${file:a\0b:-d}").code == "SC403"

    def test_a_missing_one(self, work: Workplace) -> None:
        problem = fault("${file:nothing}")
        assert problem.code == "SC403"
        assert problem.message == "the file 'nothing' does not exist"
        assert problem.hint == f"that is {str(work.path / 'nothing')!r}"
        assert fault("${file:nothing:?mount it}").message == "the file 'nothing' does not exist: mount it"

    def test_an_endless_one(self) -> None:
        assert fault("${file:/dev/zero}").code == "SC403"

    def test_they_are_secrets(self, work: Workplace) -> None:
        work.file("secret", "hush\n")
        assembly = given_texts(
            {"password": "${file:secret}", "username": "x-${file:secret}", "db": "${A}"}, {"A": "open"}
        )
        assert tainted(assembly.tree) == {"hush": "***", "x-hush": "x-***"}
        assert not tainted(given_texts("${file:nothing:-public}").tree)

    def test_what_a_file_holds_is_never_shown(self, work: Workplace) -> None:
        work.file("secret", "hu:sh\n")
        (work.path / "binary").write_bytes(b"geheim\xff")
        for text in ("redis://:${file:secret}@h", "${file:binary}"):
            problem = fault({"url": text})
            assert "hu:sh" not in repr(problem)
            assert "geheim" not in repr(problem)


# ---------------------------------------------------------------------- resolvers


class Vault:
    """A plugin's resolver."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ResolveContext]] = []

    def resolve(self, argument: str, context: ResolveContext) -> Any:
        self.asked.append((argument, context))
        if argument == "missing":
            raise KeyError(argument)
        if argument == "broken":
            raise OSError("the vault is sealed")
        return 5 if argument == "number" else "" if argument == "empty" else f"<{argument}>"


class TestResolvers:
    @pytest.fixture
    def vault(self) -> Vault:
        return Vault()

    @pytest.fixture
    def catalog(self, vault: Vault) -> Catalog:
        return Catalog.builtin().with_resolver("vault", vault)

    def test_they_get_the_argument_and_where_it_was_said(self, work: Workplace, vault: Vault, catalog: Catalog) -> None:
        work.file("conf/a.yaml", "stores: {a: {type: redis, password: '${vault:kv/a:b#c}'}}\nenvironments: {dev: {}}\n")
        assembly = work.assemble("conf/a.yaml", "dev", environ={"A": "1"}, catalog=catalog)
        assert assembly.tree["stores"]["a"]["password"] == "<kv/a:b#c>"
        ((argument, context),) = vault.asked
        assert argument == "kv/a:b#c"
        assert context.environ == {"A": "1"}
        assert context.environment == "dev"
        assert os.path.samefile(context.directory, work.path / "conf")

    def test_results_are_secrets(self, catalog: Catalog) -> None:
        assembly = given_texts("x${vault:a}", catalog=catalog)
        assert tainted(assembly.tree) == {"x<a>": "x***"}

    def test_not_there(self, catalog: Catalog) -> None:
        assert value("${vault:missing:-d}", catalog=catalog) == "d"
        assert value("${vault:empty:-d}", catalog=catalog) == "d"
        assert fault("${vault:missing}", catalog=catalog).code == "SC402"
        assert fault("${vault:missing:?ask ops}", catalog=catalog).message == "there is no vault:missing: ask ops"

    def test_failures_are_not_made_good_by_a_default(self, catalog: Catalog) -> None:
        problem = fault("${vault:broken:-d}", catalog=catalog)
        assert problem.code == "SC405"
        assert "the vault is sealed" in problem.message
        assert fault("${vault:number}", catalog=catalog).code == "SC405"

    def test_without_secrets_they_are_not_asked(self, vault: Vault, catalog: Catalog) -> None:
        assert type(value("${vault:broken}", catalog=catalog, without_secrets=True)) is Placeholder
        assert not vault.asked

    def test_an_unknown_one(self) -> None:
        problem = fault("${valt:x}", catalog=Catalog.builtin().with_resolver("vault", Vault()))
        assert problem.code == "SC701"
        assert problem.hint is not None
        assert "vault" in problem.hint
        assert fault("${valt:x}", without_secrets=True).code == "SC701"


# ---------------------------------------------------------------------- URLs


class TestUrls:
    @pytest.mark.parametrize("character", list("@/:?#%[] "))
    def test_what_has_a_meaning_there_may_not_come_from_a_value(self, character: str) -> None:
        secret = f"se{character}cret"
        problem = fault({"url": "redis://user:${PASSWORD}@host/0"}, {"PASSWORD": secret})
        assert problem.code == "SC406"
        assert problem.hint is not None
        assert "username" in problem.hint
        assert "password" in problem.hint
        for part in ("se", "cret", secret):
            assert part not in problem.message.replace("PASSWORD", "").split()
        assert secret not in repr(problem)

    def test_everything_else_may(self) -> None:
        url = given_texts({"url": "redis://${USER}:${PASSWORD}@${HOST}:${PORT}/${DB:-0}"}, {
            "USER": "u-1", "PASSWORD": "a$b!&='\"ü", "HOST": "h.example", "PORT": "6379",
        }).tree["stores"]["a"]["url"]  # fmt: skip
        assert url == "redis://u-1:a$b!&='\"ü@h.example:6379/0"

    def test_the_whole_url_is_taken_as_one(self) -> None:
        url = "redis://u:p%20@[::1]:6379/0?a=b#c"
        found = given_texts({"url": "${URL}"}, {"URL": url}).tree["stores"]["a"]["url"]
        assert (found, type(found)) == (url, Text)

    def test_defaults_and_files_too(self, work: Workplace) -> None:
        work.file("secret", "a@b")
        assert fault({"url": "redis://${X:-a:1}/0"}).code == "SC406"
        assert fault({"url": "redis://:${file:secret}@h"}).code == "SC406"

    def test_a_url_that_is_all_substitutions(self) -> None:
        assert fault({"url": "${BASE}${DB}"}, {"BASE": "redis://h/", "DB": "0"}).code == "SC406"

    def test_urls_in_other_fields(self) -> None:
        assert fault({"endpoint": "https://${HOST}/x"}, {"HOST": "a/b"}).code == "SC406"
        assert not given_texts({"path": "/var/${DIR}"}, {"DIR": "a/b"}).report.found
