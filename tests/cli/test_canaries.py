"""Random secrets in every way in, random faults around them, and no part of a secret in anything that is printed."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from storeconf.config import dump
from storeconf.config.dump import toml_lines
from storeconf.config.secrets import Redactor
from storeconf.diagnostics import Diagnostic, Finding
from storeconf.layout import check_layout
from storeconf.plugin import Settings
from tests.cli.running import run

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator


WINDOW = 4
"""So many characters of a secret in a row may not be shown."""

PLUGIN = """
from dataclasses import dataclass
from typing import Literal, Optional, Union

import pydantic

import storeconf



@dataclass(frozen=True)
class Pair:
    phrase: pydantic.SecretStr
    user: str = ""


class Inner(storeconf.Settings):
    token: Optional[pydantic.Secret[str]] = None


class Other(storeconf.Settings):
    name: str = ""


class BoxStore(storeconf.MemoryStore):
    def __init__(self, phrase):
        super().__init__()
        self.phrase = phrase

    async def ping(self):
        raise storeconf.StoreUnavailableError(f"can't connect: box://app:{self.phrase}@db")


class Box(storeconf.Backend):
    type: Literal["box"] = "box"
    phrase: Optional[storeconf.Secret] = None
    token: Optional[pydantic.Secret[str]] = None
    words: tuple[str, storeconf.Secret] = ("", pydantic.SecretStr(""))
    pair: Optional[Pair] = None
    inner: list[Inner] = []
    either: Union[Inner, Other, None] = None
    named: dict[str, storeconf.Secret] = {}
    size: int = 0

    @pydantic.model_validator(mode="after")
    def _check(self):
        if self.size < 0 and self.phrase is not None:
            raise ValueError(f"{self.phrase.get_secret_value()} does not fit")
        return self

    def build(self, context):
        return BoxStore(self.phrase.get_secret_value() if self.phrase else "")


class Vault:
    api_version = 1

    def resolve(self, argument, context):
        with open("vault.txt") as file:
            return file.read()
"""

# Letters and digits in turn are like nothing that storeconf prints of its own.
CANARIES = st.lists(
    st.tuples(st.sampled_from("kqvwxz"), st.sampled_from("2345679")).map("".join), min_size=5, max_size=9
).map("".join)


@dataclass
class Case:
    """A layout with planted secrets, its variables and what is set on the command line."""

    stores: dict[str, dict[str, Any]] = field(default_factory=dict)
    section: dict[str, dict[str, Any]] = field(default_factory=dict)
    overlay: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    canaries: list[str] = field(default_factory=list)


PLACES: dict[str, tuple[str, ...]] = {
    "url": ("server", "url"),
    "password": ("login", "password"),
    "sentinel": ("watched", "sentinel", "password"),
    "keys": ("coded", "middleware", "encrypt", "keys", "0"),
    "phrase": ("box", "phrase"),
    "token": ("box", "token"),
    "words": ("box", "words", "1"),
    "pair": ("box", "pair", "phrase"),
    "inner": ("box", "inner", "0", "token"),
    "either": ("box", "either", "token"),
    "named": ("box", "named", "any"),
}

OPEN = {"name": ("login", "client_name"), "namespace": ("tokens", "namespace")}
"""Fields that hold secrets only if these come from a file or a resolver."""

BASE: dict[str, dict[str, Any]] = {
    "server": {
        "type": "redis",
        "url": "redis://127.0.0.1:1",
        "namespace": "a",
        "retries": 0,
        "connect_timeout": "50ms",
    },
    "login": {
        "type": "valkey",
        "url": "valkey://127.0.0.1:1",
        "namespace": "b",
        "retries": 0,
        "connect_timeout": "50ms",
    },
    "watched": {
        "type": "redis",
        "sentinel": {"nodes": ["127.0.0.1:1"], "service": "s"},
        "namespace": "c",
        "retries": 0,
        "connect_timeout": "50ms",
    },
    "coded": {"type": "memory", "middleware": {"encrypt": {"keys": ["a-key-that-everybody-knows-0123456789"]}}},
    "box": {"type": "box", "words": ["a", "b"], "inner": [{}]},
    "tokens": {"parent": "coded"},
}


def put(tree: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    """Set a value in a tree of mappings and lists."""
    here: Any = tree
    for step, following in pairwise(path):
        fresh: Any = [] if following.isdigit() else {}
        if isinstance(here, list):
            while len(here) <= int(step):
                here.append({})
            here = here[int(step)]
        else:
            here = here.setdefault(step, fresh)
    if isinstance(here, list):
        here[int(path[-1]) :] = [value]
    else:
        here[path[-1]] = value


def value_of(place: str, canary: str) -> str:
    return f"redis://app:{canary}@127.0.0.1:1/0" if place == "url" else f"{canary}-long-enough-for-a-key"


def plant(case: Case, place: str, way: str, canary: str, after: str) -> None:
    """Put one secret into one place in one way."""
    path = (PLACES | OPEN)[place]
    value = value_of(place, canary + ("" if place == "url" else after))
    file = f"secret-{len(case.files)}.txt"
    variable = "STORECONF__STORES__" + "__".join(path).upper()
    case.canaries.append(canary)
    if way == "literal":
        put(case.stores, path, value)
    elif way == "section":
        put(case.section, path, value)
    elif way == "overlay":
        put(case.overlay, path, value)
    elif way == "file":
        case.files[file] = value + "\n"
        put(case.stores, path, f"${{file:{file}}}")
    elif way == "vault":
        case.files["vault.txt"] = value
        put(case.stores, path, "${vault:any}")
    elif way == "default":
        put(case.stores, path, f"${{NOTHING:-{value}}}")
    elif way == "file's default":
        put(case.stores, path, f"${{file:nothing:-{value}}}")
    elif way == "environment":
        case.variables["GIVEN"] = value
        put(case.stores, path, "${GIVEN}")
    elif way == "variable":
        case.variables[variable] = value
    elif way == "_FILE":
        case.files[file] = value
        case.variables[f"{variable}_FILE"] = file
    elif way == "override":
        case.overrides += ["--set", f"stores.{'.'.join(path)}={value}"]


WAYS = (
    "literal",
    "section",
    "overlay",
    "file",
    "vault",
    "default",
    "file's default",
    "environment",
    "variable",
    "_FILE",
    "override",
)
STRANGE = st.sampled_from(["", "", '"', "'", "\\", "é", " x", "#", "$", "{", "*"])


def misspell(case: Case, draw: Callable[[Any], Any]) -> None:
    """Misspell a field, a type or a kind of middleware."""
    stores = [store for layer in (case.stores, case.section, case.overlay) for store in layer.values()]
    store = draw(st.sampled_from(stores))
    name = draw(st.sampled_from(sorted(store)))
    at = draw(st.integers(1, max(1, len(name) - 1)))
    store[name[:at] + name[at + 1 :]] = store.pop(name)


def mistype(case: Case, draw: Callable[[Any], Any]) -> None:
    """Put a value where another kind of value belongs."""
    path = PLACES[draw(st.sampled_from(sorted(PLACES)))]
    here: Any = case.stores
    for step in path[:-1]:
        here = here[int(step)] if isinstance(here, list) else here.get(step, {})
    wraps: list[Callable[[Any], Any]] = [lambda value: [value], lambda value: {"x": value}, lambda value: [[value]]]
    wrap = draw(st.sampled_from(wraps))
    if isinstance(here, dict) and path[-1] in here:
        here[path[-1]] = wrap(here[path[-1]])


def damage(case: Case, draw: Callable[[Any], Any]) -> None:
    """Break a rule of another field beside the secret."""
    name = draw(st.sampled_from(sorted(BASE)))
    case.stores[name] |= draw(
        st.sampled_from([{"size": -1}, {"namespace": 3}, {"parent": "nobody"}, {"nonsense": 1}, {"type": "rediss"}])
    )


BREAKS = {"nothing": lambda *_: None, "misspell": misspell, "mistype": mistype, "damage": damage}
COMMANDS = [
    *(["validate", "--format", form] for form in ("text", "json", "github", "sarif")),
    ["validate", "--without-secrets"],
    *(["show", "--origins", "--format", form] for form in ("yaml", "toml", "json")),
    ["show", "--format", "json"],
    *(["env", "--format", form] for form in ("text", "json")),
    *(["explain", "stores", "--format", form] for form in ("text", "json")),
    *(["tree", "--format", form] for form in ("text", "json")),
    *(["graph", "--format", form] for form in ("mermaid", "dot", "html")),
    *(["ping", "--format", form] for form in ("text", "json")),
    ["stats", "login"],
    ["get", "server", "k"],
    ["get", "no-such", "k"],
    ["diff", "one", "two"],
]
SLIPPED = Redactor.slipped


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of installed packages, with the plugin."""
    site = tmp_path_factory.mktemp("site")
    (site / "box-1.dist-info").mkdir()
    (site / "box-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: box\nVersion: 1\n")
    (site / "box-1.dist-info/entry_points.txt").write_text(
        "[storeconf.backends]\nbox = canary_box:Box\n[storeconf.resolvers]\nvault = canary_box:Vault\n"
    )
    (site / "canary_box.py").write_text(PLUGIN)
    return site


@pytest.fixture
def workplace(tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Path:
    """A directory to write layouts in."""
    place = tmp_path / "canaries"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(Redactor, "slipped", lambda self, text: set())  # which would hide what the doors let through
    caplog.set_level(logging.DEBUG)
    return place


def write(case: Case, form: str) -> None:
    """Write the files of a case; YAML is written in its block style."""
    for old in Path().iterdir():
        old.unlink()
    document = {"stores": case.stores, "environments": {"one": {"stores": case.section}, "two": {}}}
    text = json.dumps(document)
    if form == "yaml":
        text = "\n".join(yaml_lines(document))
    elif form == "toml":
        text = "\n".join(line for line, _ in toml_lines(document))
    Path(f"storeconf.{form}").write_text(text)
    if case.overlay:
        Path("storeconf.one.json").write_text(json.dumps({"stores": case.overlay}))
    for name, text in case.files.items():
        Path(name).write_text(text)


def yaml_lines(node: Any, indent: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:"
            yield from yaml_lines(value, f"{indent}  ")
        else:
            yield f"{indent}{key}: {json.dumps(value, ensure_ascii=False)}"


def windows(canary: str) -> set[str]:
    return {canary[at : at + WINDOW] for at in range(len(canary) - WINDOW + 1)}


def shown(canaries: list[str], text: str) -> list[str]:
    """The lines that show a part of a secret."""
    parts = set().union(*map(windows, canaries))
    return [line for line in text.splitlines() if any(part in line for part in parts)]


NAMED = ("url", "password", "sentinel", "keys", "phrase", "token", "inner", "either")
"""Places whose names alone, or their credentials, show that a secret is there: in a file that can't be parsed."""


@st.composite
def cases(draw: Any, places: Collection[str] = tuple(PLACES)) -> Case:
    """Some secrets, each somewhere, and one fault."""
    case = Case(stores=json.loads(json.dumps(BASE)))
    for place in draw(st.lists(st.sampled_from(sorted(places)), min_size=1, max_size=4, unique=True)):
        plant(case, place, draw(st.sampled_from(WAYS)), draw(CANARIES), draw(STRANGE))
    BREAKS[draw(st.sampled_from(sorted(BREAKS)))](case, draw)
    return case


QUIET = settings(
    max_examples=300,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@QUIET
@given(
    cases(), st.sampled_from(["yaml", "toml", "json"]), st.sampled_from(COMMANDS), st.sampled_from([None, "one", "two"])
)
def test_no_part_of_a_secret_is_shown(
    workplace: Path,
    caplog: pytest.LogCaptureFixture,
    case: Case,
    form: str,
    command: list[str],
    environment: str | None,
) -> None:
    write(case, form)
    caplog.clear()
    chosen = ["--env", environment] if environment is not None and command[0] != "diff" else []
    with pytest.MonkeyPatch.context() as patch:
        for name, value in case.variables.items():
            patch.setenv(name, value)
        done = run(*command, *chosen, *case.overrides)
    assert not shown(case.canaries, done.both + caplog.text), command


@QUIET
@given(cases(NAMED), st.data(), st.sampled_from(["yaml", "toml", "json"]), st.sampled_from(COMMANDS[:5]))
def test_no_part_of_a_secret_is_shown_of_a_damaged_file(
    workplace: Path, caplog: pytest.LogCaptureFixture, case: Case, data: st.DataObject, form: str, command: list[str]
) -> None:
    write(case, form)
    file = Path(f"storeconf.{form}")
    text = file.read_text()
    at = data.draw(st.integers(0, len(text) - 1))
    change = data.draw(st.sampled_from(["", "{", "}", ":", "'", '"', "\t", "*", "&", "!", "- ", "\n", "cut", "line"]))
    if change == "cut":
        text = text[:at]
    elif change == "line":
        lines = text.splitlines(keepends=True)
        del lines[text.count("\n", 0, at)]
        text = "".join(lines)
    else:
        text = text[:at] + change + text[at + (not change) :]
    assume("nothing-" not in text)  # without its colon, a default is a part of the file's name
    file.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in case.variables.items():
            patch.setenv(name, value)
        done = run(*command, *case.overrides)
    assert not shown(case.canaries, done.both + caplog.text), command


@pytest.mark.parametrize("place", sorted(PLACES))
def test_a_secret_in_a_layer_is_shown_by_no_command(place: str, workplace: Path) -> None:
    for way in ("literal", "section", "overlay"):
        case = Case(stores=json.loads(json.dumps(BASE)))
        plant(case, place, way, "k2" * 5, "")
        write(case, "yaml")
        path = "stores." + ".".join((PLACES[place])[:-1])
        for command in (*COMMANDS, ["explain", path, "--format", "json"], ["explain", path]):
            if command[0] not in ("ping", "stats", "get"):
                assert not shown(case.canaries, run(*command).both), (way, command)


@pytest.mark.parametrize("typo", ["tpe", "typ", "kind", None])
@pytest.mark.parametrize("place", [place for place, path in PLACES.items() if path[0] == "box"])
def test_a_secret_of_a_store_whose_type_is_missing_is_not_shown(place: str, typo: str | None, workplace: Path) -> None:
    for way in ("literal", "section"):
        case = Case(stores=json.loads(json.dumps(BASE)))
        plant(case, place, way, "k2" * 5, "")
        kind = case.stores["box"].pop("type")
        if typo is not None:
            case.stores["box"][typo] = kind
        write(case, "json")  # in one line, which is the excerpt
        for environment in ([], ["--env", "one"]):
            assert not shown(case.canaries, run("validate", "--format", "text", *environment).both), way


# ---------------------------------------------------------------------- the doors

SAMPLE = [
    *(
        (place, way)
        for place in ("password", "url", "keys", "token")
        for way in ("literal", "file", "variable", "override")
    ),
    *((place, way) for place in OPEN for way in ("file", "vault", "_FILE")),
]


def leaks(workplace: Path) -> list[str]:
    """What a sample of layouts, of which each has one secret and one fault or none, shows of secrets."""
    found = []
    for number, (place, way) in enumerate(SAMPLE):
        for good in (True, False):
            case = Case(stores=json.loads(json.dumps(BASE)))
            plant(case, place, way, f"k{number % 10}" * 5, "")
            case.stores["box"]["phrase"] = case.canaries[0]
            if not good:
                case.stores["tokens"]["description"] = [case.canaries[0]]
                case.stores["login"]["password"] = [case.canaries[0]]
            write(case, "yaml")
            with pytest.MonkeyPatch.context() as patch:
                for name, value in case.variables.items():
                    patch.setenv(name, value)
                for command in (["validate"], ["show"], ["explain", "stores"], ["ping"]):
                    found += shown(case.canaries, run(*command, *case.overrides).both)
                result = check_layout("storeconf.yaml", environment="two")
                assert (result.layout is not None) >= good, result.diagnostics
                about = (result, *(result.layout.stores.values() if result.layout else ()))
                found += shown(case.canaries, "\n".join(map(repr, about)))
    return found


def test_the_sample_shows_no_secrets(workplace: Path) -> None:
    assert not leaks(workplace)


def with_all(redactor: Redactor, each: Finding) -> Diagnostic:
    document = next((document for document in redactor.documents if document.file == each.file), None)
    lines = () if document is None or each.line is None else document.excerpt(each.line, masked=False)
    found = {name: getattr(each, name) for name in Finding.__slots__}
    return Diagnostic(**found, excerpt=lines)


@pytest.mark.parametrize(
    ("where", "name", "open_"),
    [
        pytest.param(Redactor, "diagnostic", with_all, id="diagnostics"),
        pytest.param(dump._Walk, "value", lambda self, expect, value, actual, path: value, id="dumps"),
        pytest.param(Settings, "__repr_args__", BaseModel.__repr_args__, id="representations"),
        pytest.param(Redactor, "foreign", lambda self, text: text, id="texts of stores"),
    ],
)
def test_without_one_door_secrets_are_shown(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, open_: Any
) -> None:
    monkeypatch.setattr(where, name, open_)
    assert leaks(workplace)


def test_data_that_a_door_let_through_is_hidden_as_it_is_printed(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(stores=json.loads(json.dumps(BASE)))
    plant(case, "password", "literal", "k2" * 5, "")
    case.stores["login"]["namespace"] = "namespace-2"
    case.stores["watched"]["sentinel"]["password"] = "namespace-2"
    write(case, "yaml")
    monkeypatch.setattr(dump._Walk, "value", lambda self, expect, value, actual, path: value)
    commands = [each for each in COMMANDS if each[0] in ("show", "explain", "env", "graph")]
    assert all(shown(case.canaries, run(*each).both) for each in commands if each[0] == "show")
    monkeypatch.setattr(Redactor, "slipped", SLIPPED)
    for command in commands:
        done = run(*command)
        assert not shown(case.canaries, done.both), command
        assert done.out.count("namespace-2") >= (command[0] == "show"), done.out  # which is shown on purpose
