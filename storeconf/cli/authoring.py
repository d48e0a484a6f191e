"""Commands for writing layouts and plugins: `storeconf init`, `schema`, `plugins` and `new-plugin`."""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from storeconf import __version__
from storeconf.cli.app import format_option, on_no_layout
from storeconf.cli.output import emit_json, error, escaped, json_data, message, print_table, style
from storeconf.config.schema import SCHEMA_ID
from storeconf.operations import LISTING, limits_of

if TYPE_CHECKING:
    from storeconf.catalog import Catalog, CatalogEntry
    from storeconf.store import Capabilities

__all__ = ["STARTERS", "init_command", "new_plugin_command", "plugins_command", "schema_command"]


@click.command("init")
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("-f", "--file", "named", metavar="FILE", type=click.Path(path_type=Path), help="The same as PATH.")
def init_command(path: Path | None, named: Path | None) -> None:
    """Write a commented starter file.

    YAML or TOML, by its name: storeconf.yaml unless given. A file that exists is never overwritten.
    """
    if path is not None and named is not None:
        raise click.UsageError("give the file as argument or with -f, not both")
    path = path or named or Path("storeconf.yaml")
    shown = escaped(str(path))
    starter = STARTERS.get(path.suffix.lower())
    if starter is None or path.name == "pyproject.toml":
        raise click.UsageError(f"{shown}: a starter is called .yaml, .yml or .toml, and not pyproject.toml")
    other = _other_layout(path)
    if other is not None:
        error(f"{other} already exists, and two layouts would be ambiguous; nothing was written")
        raise SystemExit(1)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(starter)
    except FileExistsError:
        error(f"{shown} exists; nothing was written")
        raise SystemExit(1) from None
    about = "" if path.name == shown and _is_found(path) else f" -f {shown}"
    message(f"wrote {shown}; next: storeconf validate{about}")


def _is_found(path: Path) -> bool:
    """Whether commands find a layout of that name by themselves."""
    from storeconf.config.language import CANDIDATES

    return path.name in CANDIDATES


def _other_layout(path: Path) -> str | None:
    """The layout in the working directory that a second one would make ambiguous."""
    from storeconf.config.sources import candidates_in

    if path.parent.absolute() != Path.cwd() or not _is_found(path) or path.exists():
        return None
    found = candidates_in(Path.cwd())
    return None if not found else found[0] if len(found) == 1 else "more than one layout"


def _catalog() -> Catalog:
    from storeconf.catalog import Catalog

    return Catalog.installed().without_plugins(os.environ.get("STORECONF_DISABLE_PLUGINS"))


@click.command("schema")
@on_no_layout
def schema_command() -> None:
    """Print the JSON Schema of the configuration language.

    Installed plugins are included; broken ones are left out, and `storeconf plugins` shows why.
    """
    from storeconf.config.schema import build_schema

    json_data(build_schema(_catalog()))


@click.command("plugins")
@format_option("text", "json")
@on_no_layout
def plugins_command(form: str) -> None:
    """List backends, middleware and resolvers.

    Each with where it comes from, whether it works, or why not.
    """
    entries = _catalog().entries()
    if form == "json":
        emit_json({"plugins": [entry.to_dict() for entry in entries]})
        return
    rows: list[list[str]] = []
    part = None
    for entry in entries:
        if entry.part != part:
            part = entry.part
            rows += [[""]] if rows else []
            rows.append([style(part, bold=True, underline=True)])
        rows.append(_row(entry))
    print_table(rows)


def _row(entry: CatalogEntry) -> list[str]:
    color = {"built-in": "green", "loaded": "green", "disabled": "yellow"}.get(entry.state, "red")
    source = " ".join(filter(None, (entry.distribution or "storeconf", entry.version)))
    if entry.distribution is None:
        source = f"storeconf {__version__}"
    about = entry.reason or ("" if entry.capabilities is None else _abilities(entry.capabilities))
    return [style(entry.name, bold=True), style(entry.state, fg=color), source, about]


def _abilities(capabilities: Capabilities) -> str:
    """The capabilities of a backend, and the operations that it does not offer."""
    words = [
        "persistent" if capabilities.persistent else "not persistent",
        "shared" if capabilities.shared else "not shared",
    ]
    if capabilities.resolution > 0.001:
        words.append(f"expiry to {capabilities.resolution:g} s")
    words += limits_of(capabilities)
    missing = sorted({*(capabilities.ALL_ATOMIC - capabilities.atomic), *(() if capabilities.lists else LISTING)})
    return ", ".join(words) + (style(f", without {', '.join(missing)}", fg="yellow") if missing else "")


# ---------------------------------------------------------------------- a starting plugin


_PLUGIN_FILES: Final = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "src/__init__.py": "src/{module}/__init__.py",
    "src/store.py": "src/{module}/store.py",
    "src/py.typed": "src/{module}/py.typed",
    "tests/test_plugin_name.py": "tests/test_{name}.py",
}
"""The files of the template `new_plugin`, where .txt ends each name, and the names of the resulting files."""


@click.command("new-plugin")
@click.argument("name")
def new_plugin_command(name: str) -> None:
    """Write a plugin with a working backend.

    NAME is what layouts will write as `type`. The folder storeconf-NAME holds a package with its entry point, a store
    that keeps everything in a JSON file, and the conformance suite as its test. A folder that exists is never changed.
    """
    from storeconf.catalog import Catalog

    name = name.removeprefix("storeconf-")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise click.UsageError(f"{escaped(name)!r}: a name has lower-case letters, digits and single '-' between them")
    if name in Catalog.builtin().backend_names():
        raise click.UsageError(f"{name!r} is built in; a plugin needs another name")
    directory = Path(f"storeconf-{name}")
    try:
        directory.mkdir()
    except FileExistsError:
        error(f"{directory} exists; nothing was written")
        raise SystemExit(1) from None
    module = name.replace("-", "_")
    words = {"plugin-name": name, "plugin_name": module, "PluginName": name.title().replace("-", "")}
    template = resources.files("storeconf.cli") / "new_plugin"
    for source, target in _PLUGIN_FILES.items():
        text = (template / f"{source}.txt").read_text(encoding="utf-8")
        for placeholder, word in words.items():
            text = text.replace(placeholder, word)
        path = directory / target.format(module=f"storeconf_{module}", name=module)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    message(f'wrote {directory}; next: cd {directory}; pip install --editable ".[test]"; pytest')


# ---------------------------------------------------------------------- starter files


_YAML: Final = f"""\
# yaml-language-server: $schema={SCHEMA_ID}
# The key/value stores of this application.
#   storeconf validate   finds the problems of this file, in every environment
#   storeconf tree       shows the resulting stores
version: 1

stores:
  main:                                  # a root: it owns the place where the bytes are
    type: memory                         # or file, redis, valkey, or a plugin's
    namespace: app                       # all its keys are in this namespace

  sessions:                              # a child: the namespace "sessions" of main
    description: Who is logged in
    parent: main
    middleware:
      ttl: {{default: 14d, renew_on_get: true}}

  cache:
    description: Everything that can be computed again
    parent: main
    middleware:
      ttl: 15m                           # short for {{default: 15m}}

  pages: {{parent: cache}}                 # namespaces nest: app > cache > pages

  uploads:
    description: What customers upload, until it is processed
    type: file
    path: var/uploads                    # relative to this file

default_factory: {{parent: main}}          # a name that is not listed becomes a namespace of main

environments:                            # differences; --env, STORECONF_ENV or load(environment=...) chooses one
  development: {{}}
  production:
    stores:
      main:
        type: valkey
        # The variable if it is set, else the default; "${{VALKEY_URL:?production needs it}}" makes it required.
        url: "${{VALKEY_URL:-valkey://localhost:6379/0}}"
      uploads: {{path: /srv/app/uploads, durability: fsync}}
"""

_TOML: Final = f"""\
#:schema {SCHEMA_ID}
# The key/value stores of this application.
#   storeconf validate   finds the problems of this file, in every environment
#   storeconf tree       shows the resulting stores
version = 1
default_factory = {{ parent = "main" }}    # a name that is not listed becomes a namespace of main

[stores.main]                            # a root: it owns the place where the bytes are
type = "memory"                          # or file, redis, valkey, or a plugin's
namespace = "app"                        # all its keys are in this namespace

[stores.sessions]                        # a child: the namespace "sessions" of main
description = "Who is logged in"
parent = "main"
middleware.ttl = {{ default = "14d", renew_on_get = true }}

[stores.cache]
description = "Everything that can be computed again"
parent = "main"
middleware.ttl = "15m"                   # short for {{ default = "15m" }}

[stores.pages]                           # namespaces nest: app > cache > pages
parent = "cache"

[stores.uploads]
description = "What customers upload, until it is processed"
type = "file"
path = "var/uploads"                     # relative to this file

# Differences; --env, STORECONF_ENV or load(environment=...) chooses one.
[environments.development]

[environments.production.stores.main]
type = "valkey"
# The variable if it is set, else the default; "${{VALKEY_URL:?production needs it}}" makes it required.
url = "${{VALKEY_URL:-valkey://localhost:6379/0}}"

[environments.production.stores.uploads]
path = "/srv/app/uploads"
durability = "fsync"
"""

STARTERS: Final = {".yaml": _YAML, ".yml": _YAML, ".toml": _TOML}
"""The text to write, by the suffix of the file."""
