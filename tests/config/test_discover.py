"""Which file is the layout when none is named, and what is left to read where there is no working directory."""

from __future__ import annotations

import pytest

from storeconf import ConfigError, read_layout
from tests.config.assembling import Workplace, work

__all__ = ["work"]

YAML = "stores: {a: {type: memory}}\n"
TEXTS = {
    "storeconf.yaml": YAML,
    "storeconf.yml": YAML,
    "storeconf.toml": 'stores.a.type = "memory"\n',
    "storeconf.json": '{"stores": {"a": {"type": "memory"}}}',
    "pyproject.toml": '[project]\nname = "x"\n[tool.storeconf]\nstores.a.type = "memory"\n',
}


@pytest.mark.parametrize("name", list(TEXTS))
def test_in_the_working_directory(work: Workplace, name: str) -> None:
    work.file(name, TEXTS[name])
    assembly = work.assemble(None)
    assert not assembly.report.found
    assert assembly.files == (name,)
    assert assembly.tree == {"stores": {"a": {"type": "memory"}}}


def test_not_above_it(work: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    work.file("storeconf.yaml", YAML)
    (work.path / "below").mkdir()
    monkeypatch.chdir(work.path / "below")
    assert work.problem(None).code == "SC201"


def test_the_variable_goes_first(work: Workplace) -> None:
    work.file("storeconf.yaml", "stores: {wrong: {type: memory}}\n")
    work.file("conf/any.yaml", YAML)
    assert work.assemble(None, environ={"STORECONF_FILE": "conf/any.yaml"}).files == ("conf/any.yaml",)
    absolute = str(work.path / "conf" / "any.yaml")
    assert work.assemble(None, environ={"STORECONF_FILE": absolute}).files == (absolute,)
    assert work.assemble(None, environ={"STORECONF_FILE": ""}).files == ("storeconf.yaml",)


def test_a_source_that_is_named_goes_before_the_variable(work: Workplace) -> None:
    work.write(storeconf__yaml=YAML)
    assert work.assemble("storeconf.yaml", environ={"STORECONF_FILE": "nothing.yaml"}).files == ("storeconf.yaml",)


@pytest.mark.parametrize("name", ["nothing.yaml", "a\0b"])
def test_the_variable_names_nothing(work: Workplace, name: str) -> None:
    problem = work.problem(None, environ={"STORECONF_FILE": name})
    assert (problem.code, problem.variable) == ("SC101", "STORECONF_FILE")
    assert repr(name) in problem.message


@pytest.mark.parametrize("others", [["storeconf.yml"], ["storeconf.toml", "pyproject.toml"]])
def test_two_hits_are_an_error(work: Workplace, others: list[str]) -> None:
    for name in ("storeconf.yaml", *others):
        work.file(name, TEXTS[name])
    assembly = work.assemble(None)
    assert [problem.code for problem in assembly.report.found] == ["SC202"]
    assert not assembly.report.complete
    for name in ("storeconf.yaml", *others):
        assert name in assembly.report.found[0].message


def test_no_hit_says_what_was_looked_for(work: Workplace) -> None:
    problem = work.problem(None)
    assert problem.code == "SC201"
    for name in (*TEXTS, "[tool.storeconf]", "STORECONF_FILE", str(work.path)):
        assert name in problem.message


@pytest.mark.parametrize(
    "text",
    ['[tool.other]\nx = "storeconf"\n', '[project]\nname = "storeconf"\n', "[project\nname = storeconf\n", "\x00", ""],
)
def test_other_peoples_pyproject_does_not_count(work: Workplace, text: str) -> None:
    work.file("pyproject.toml", text)
    assert work.problem(None).code == "SC201"
    work.file("storeconf.yaml", YAML)
    assert work.tree(None) == {"stores": {"a": {"type": "memory"}}}


def test_our_pyproject_that_is_broken_does(work: Workplace) -> None:
    work.file("pyproject.toml", "[tool.storeconf]\nstores = {\n")
    problem = work.problem(None)
    assert (problem.code, problem.file) == ("SC107", "pyproject.toml")


def test_a_directory_of_that_name_does_not_count(work: Workplace) -> None:
    (work.path / "storeconf.yaml").mkdir()
    (work.path / "pyproject.toml").mkdir()
    assert work.problem(None).code == "SC201"


def test_a_link_that_leads_nowhere_is_found_and_reported(work: Workplace) -> None:
    (work.path / "storeconf.yaml").symlink_to("nothing")
    problem = work.problem(None)
    assert (problem.code, problem.file) == ("SC101", "storeconf.yaml")


# ---------------------------------------------------------------------- without a working directory


@pytest.fixture
def gone(work: Workplace, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A working directory that was deleted meanwhile, below one that was not."""
    directory = work.path / "gone"
    directory.mkdir()
    monkeypatch.chdir(directory)
    directory.rmdir()
    return work


def test_a_deleted_working_directory_holds_no_layout(gone: Workplace) -> None:
    assert gone.problem(None).code == "SC201"
    assert gone.problem("storeconf.yaml").code == "SC101"
    assert gone.problem(None, environ={"STORECONF_FILE": "storeconf.yaml"}).code == "SC101"


def test_what_needs_no_working_directory_is_read_without_one(gone: Workplace) -> None:
    file = gone.file("storeconf.yaml", "stores: {a: {type: memory}, f: {type: file, path: var}}\n")
    layout = read_layout(file, environ={"STORECONF__STORES__A__MAX_ENTRIES": "3"}, overrides={"stores.b.use": "a"})
    assert list(layout.stores) == ["a", "f", "b"]
    assert layout.dump()["stores"]["f"]["path"] == str(gone.path / "var")
    assert list(read_layout({"stores": {"a": {"type": "memory"}}}, environ={}).stores) == ["a"]


def test_a_path_relative_to_a_deleted_working_directory_is_an_error(gone: Workplace) -> None:
    with pytest.raises(ConfigError) as caught:
        read_layout({"stores": {"f": {"type": "file", "path": "var"}}}, environ={})
    (problem,) = caught.value.diagnostics
    assert (problem.code, problem.path) == ("SC504", "stores.f.path")
    assert "does not exist any more" in problem.message
