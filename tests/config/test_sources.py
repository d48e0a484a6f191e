"""What came from secret files can be read again: which values, by which path, up to the backend that is built."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Literal

import pytest

import storeconf
from storeconf import Catalog, MemoryStore
from storeconf.layout import read_layout
from storeconf.plugin import Backend, Secret

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from storeconf import Store
    from storeconf.plugin import BuildContext, ValueSource

SEEN: list[Mapping[str, ValueSource]] = []


class Inner(storeconf.Settings):
    token: Secret | None = None


class Kept(Backend):
    """A backend that notes the sources of its settings."""

    type: Literal["kept"] = "kept"
    url: str | None = None
    password: Secret | None = None
    inner: Inner | None = None

    def build(self, context: BuildContext) -> Store:
        """Note the sources."""
        SEEN.append(context.sources)
        return MemoryStore()


@pytest.fixture(autouse=True)
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    SEEN.clear()
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"secret-of-{name}\n")
    return tmp_path


def sources(layout: Mapping[str, Any], environ: dict[str, str] | None = None, **more: Any) -> Mapping[str, ValueSource]:
    read_layout(layout, environ=environ or {}, catalog=Catalog.builtin().with_backend("kept", Kept), **more).compile()
    (found,) = SEEN
    return found


def test_substitutions_are_read_again(secrets: Path) -> None:
    store = {
        "type": "kept",
        "password": "${file:one}",
        "url": "kept://${file:two:-none}@${HOST}/",
        "inner": {"token": "${file:two}"},
    }
    found = sources({"stores": {"a": store}}, {"HOST": "h"})
    assert {name: source.read() for name, source in found.items()} == {
        "password": "secret-of-one",
        "url": "kept://secret-of-two@h/",
        "inner.token": "secret-of-two",
    }
    (secrets / "one").write_text("new")
    (secrets / "two").write_text("p@ss")
    with pytest.raises(OSError, match=f"the file '{secrets}/two' holds a character that has a meaning"):
        found["url"].read()
    (secrets / "two").unlink()
    assert found["password"].read() == "new"
    assert found["url"].read() == "kept://none@h/"
    with pytest.raises(OSError, match=f"the file '{secrets}/two' does not exist"):
        found["inner.token"].read()
    assert str(found["password"]) == f"the file '{secrets}/one'"
    assert "secret-of" not in repr(found)


def test_variables_that_name_files_are_read_again(secrets: Path) -> None:
    environ = {"STORECONF__STORES__A__PASSWORD_FILE": "one", "STORECONF__STORES__A__INNER__TOKEN_FILE": "two"}
    found = sources({"stores": {"a": {"type": "kept", "password": "${file:two}"}}}, environ)
    (secrets / "one").write_text("new\r\n")
    assert {name: source.read() for name, source in found.items()} == {
        "password": "new",
        "inner.token": "secret-of-two",
    }


def test_a_pipe_is_read_once(secrets: Path) -> None:

    os.mkfifo(secrets / "pipe")
    writer = threading.Thread(target=(secrets / "pipe").write_text, args=("piped",))
    writer.start()
    assert sources({"stores": {"a": {"type": "kept", "password": "${file:pipe}"}}}) == {}
    writer.join()


def test_only_the_value_that_counts_has_a_source() -> None:
    layout = {"stores": {"a": {"type": "kept", "password": "${file:one}", "url": "${URL}"}}}
    environ = {"STORECONF__STORES__A__URL_FILE": "two", "URL": "u"}
    overrides = {"stores.a.password": "plain", "stores.a.url": "plain"}
    assert sources(layout, environ, overrides=overrides) == {}


def test_a_default_factory_has_sources_too() -> None:
    layout = {"stores": {}, "default_factory": {"type": "kept", "password": "${file:one}"}}
    assert sources(layout)["password"].read() == "secret-of-one"
