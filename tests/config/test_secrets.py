"""What counts as a secret, in every type that a plugin can give a field, and what is hidden of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, NewType

import pydantic
import pytest
from pydantic import Field, RootModel, SecretStr
from typing_extensions import TypedDict

import storeconf
from storeconf import Catalog
from storeconf._text import mask_url
from storeconf.config.secrets import Redactor
from storeconf.layout import check_layout, read_layout
from storeconf.plugin import Backend, Secret, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from storeconf import BuildContext, Store

CANARY = "k2q4v6z3w5"


@dataclass(frozen=True)
class Pair:
    """A dataclass with a secret."""

    phrase: SecretStr
    user: str = ""


class Inner(Settings):
    """Settings with a secret."""

    token: Secret


class Named(NamedTuple):
    """A NamedTuple with a secret."""

    phrase: SecretStr
    number: int = 0


class Typed(TypedDict):
    """A TypedDict with a secret."""

    phrase: SecretStr


class Rooted(RootModel[SecretStr]):
    """A model that is its secret."""


Alone = NewType("Alone", SecretStr)

FIELDS: dict[str, tuple[Any, Any]] = {
    "SecretStr": (Secret, CANARY),
    "SecretBytes": (pydantic.SecretBytes, CANARY),
    "Secret[str]": (pydantic.Secret[str], CANARY),
    "optional": (pydantic.Secret[str] | None, CANARY),
    "annotated": (Annotated[Secret, Field(min_length=2)], CANARY),
    "NewType": (Alone, CANARY),
    "list": (list[Secret], [CANARY, "short"]),
    "set": (frozenset[Secret], [CANARY]),
    "tuple": (tuple[str, Secret], ["a", CANARY]),
    "long tuple": (tuple[Secret, ...], [CANARY]),
    "mapping": (dict[str, Secret], {"a": CANARY}),
    "mapping of lists": (dict[str, list[pydantic.Secret[str]]], {"a": [CANARY]}),
    "dataclass": (Pair, {"phrase": CANARY}),
    "list of dataclasses": (list[Pair], [{"phrase": CANARY, "user": "u"}]),
    "NamedTuple": (Named, [CANARY, 1]),
    "TypedDict": (Typed, {"phrase": CANARY}),
    "root model": (Rooted, CANARY),
    "settings": (Inner, {"token": CANARY}),
    "list of settings": (list[Inner], [{"token": CANARY}]),
    "union with text": (int | Secret, CANARY),
    "union with settings": (bool | Inner, {"token": CANARY}),
    "union of lists": (int | list[Secret], [CANARY]),
}


def catalog_of(annotation: Any) -> Catalog:
    """A catalog with a backend whose field ``any`` has this type."""

    def build(self: Backend, context: BuildContext) -> Store:
        return storeconf.MemoryStore()

    names = {"type": Literal["mine"], "any": annotation, "number": int}
    members = {"__annotations__": names, "type": "mine", "number": 0, "build": build, "__module__": __name__}
    make: Any = type(Backend)
    model = make("Mine", (Backend,), members)
    return Catalog.builtin().with_backend("mine", model)


@pytest.mark.parametrize(("annotation", "value"), FIELDS.values(), ids=FIELDS)
def test_a_secret_of_any_type_is_hidden(annotation: Any, value: Any, tmp_path: Path) -> None:
    catalog = catalog_of(annotation)
    layout = {"stores": {"a": {"type": "mine", "any": value}}}
    read = read_layout(layout, environ={}, catalog=catalog)
    told = read.redact(f"can't connect to mine://{CANARY}@h")
    texts: tuple[object, ...] = (repr(read), repr(read.stores), read.dump(), read.plan(), read.warnings, told)
    texts += (read.origin("stores.a.any"), read.origin("stores.a"))
    assert CANARY not in "".join(map(str, texts))
    assert CANARY in str(read.dump(masked=False))
    wrong: dict[str, Any] = {"stores": {"a": {"type": "mine", "any": value, "number": "x", "nonsense": 1}}}
    file = tmp_path / "storeconf.json"
    file.write_text(str(wrong).replace("'", '"'))
    for source in (wrong, str(file)):
        found = check_layout(source, environ={}, catalog=catalog).diagnostics
        assert len(found) == 2
        assert CANARY not in str(found)
        assert CANARY not in str(storeconf.ConfigError(found))


def test_a_plugin_that_fails_shows_no_secret() -> None:
    class Failing(Backend):
        """A backend that quotes its secret when it fails."""

        type: Literal["mine"] = "mine"
        phrase: Secret
        late: bool = False

        @pydantic.model_validator(mode="after")
        def _check(self) -> Failing:
            if not self.late:
                raise ValueError(f"{self.phrase.get_secret_value()[:6]} is not good")
            return self

        def build(self, context: BuildContext) -> Store:
            """Fail."""
            raise RuntimeError(f"no login with {self.phrase.get_secret_value()}")

    catalog = Catalog.builtin().with_backend("mine", Failing)
    store = {"type": "mine", "phrase": CANARY}
    (found,) = check_layout({"stores": {"a": store}}, environ={}, catalog=catalog).diagnostics
    assert found.code == "SC504"
    assert CANARY[:4] not in str(found)
    layout = read_layout({"stores": {"a": {**store, "late": True}}}, environ={}, catalog=catalog)
    with pytest.raises(storeconf.PluginError) as caught:
        layout.compile()
    assert CANARY not in str(caught.value)


SECRET = {"type": "redis", "url": "redis://h", "namespace": "a"}


@pytest.mark.parametrize(
    ("store", "path"),
    [
        ({**SECRET, "password": "***"}, "stores.a.password"),
        ({**SECRET, "url": "redis://app:***@h/0"}, "stores.a.url"),
        ({**SECRET, "url": "redis://h/0?password=***"}, "stores.a.url"),
        ({"type": "memory", "middleware": {"encrypt": {"keys": ["***"]}}}, "stores.a.middleware.encrypt.keys.0"),
        ({"type": "memory", "middleware": {"encrypt": "***"}}, "stores.a.middleware.encrypt.keys"),
    ],
)
def test_the_mask_is_no_secret(store: dict[str, Any], path: str) -> None:
    (found,) = check_layout({"stores": {"a": store}}, environ={}).diagnostics
    assert (found.code, found.path) == ("SC504", path)
    assert "***" in found.message


def test_the_mask_is_no_secret_of_a_plugin_either() -> None:
    for annotation, value in ((pydantic.Secret[str], "***"), (list[Secret], ["***"]), (Inner, {"token": "***"})):
        layout = {"stores": {"a": {"type": "mine", "any": value}}}
        assert [each.code for each in check_layout(layout, environ={}, catalog=catalog_of(annotation)).diagnostics] == [
            "SC504"
        ]


def test_a_name_alone_in_a_url_may_be_a_password() -> None:
    layout = read_layout({"stores": {"a": {**SECRET, "url": "redis://hunter2@h:1/0"}}}, environ={})
    assert [each.code for each in layout.warnings] == ["SC801"]
    assert layout.dump()["stores"]["a"]["url"] == "redis://***@h:1/0"
    assert "hunter2" not in str(layout.origin("stores.a.url"))
    assert not read_layout({"stores": {"a": {**SECRET, "url": "redis://app:x@h:1/0"}}}, environ={}).warnings


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://u:p@h", "redis://u:***@h"),
        ("redis://:p@h", "redis://:***@h"),
        ("redis://p@h", "redis://***@h"),
        ("redis://u:p@ss@h", "redis://u:***@h"),
        ("redis://h?a=b&c=d", "redis://h?a=***&c=***"),
        ("see redis://u:p@h and valkey://v:q@i", "see redis://u:***@h and valkey://v:***@i"),
        ("a@b.c", "a@b.c"),
    ],
)
def test_urls(text: str, shown: str) -> None:
    assert mask_url(text) == shown


def test_other_spellings_of_a_secret_are_hidden_too(tmp_path: Path) -> None:
    secret = 'two "words"\\and\nlines é@/'
    (tmp_path / "secret").write_text(secret)
    layout = read_layout({"stores": {"a": {**SECRET, "password": f"${{file:{tmp_path}/secret}}"}}}, environ={})
    for spelt in (secret, repr(secret), secret.splitlines()[0], "two%20%22words%22%5Cand%0Alines%20%C3%A9%40%2F"):
        assert "words" not in layout.redact(f"refused: {spelt}")
    assert layout.redact("two refused words") == "two refused words"


def test_a_default_that_stands_in_for_a_file_is_no_secret() -> None:
    layout = read_layout({"stores": {"a": {"type": "file", "path": "${file:nothing:-/var/data}"}}}, environ={})
    assert layout.dump()["stores"]["a"]["path"] == "/var/data"


@pytest.mark.parametrize(
    ("secret", "part"),
    [("hunter$$$$", "hunter"), ("correcthorse\nbatterystaple\nmoreofthesecret", "correcthors")],
)
def test_each_spelling_of_a_secret_is_judged_by_its_own_part(secret: str, part: str) -> None:
    redactor = Redactor(Catalog.builtin(), [], [])
    redactor.taint(secret)
    assert redactor.foreign(f"a value {part!r} is bad") == "a value '***' is bad"
