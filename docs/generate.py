"""Writes the parts of the documentation that the code knows best; a test compares them with what is checked in.

    python docs/generate.py

`reference/language.md` comes from the models' own descriptions, `schemas/storeconf.v1.schema.json` from the models,
`reference/errors.md` from the error tree, `reference/environment-variables.md` from the table of the variables,
`reference/diagnostics/index.md` from the table of codes; in the page of each code what that table says, and the outputs
of the examples. The examples themselves are written by hand.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticUndefined

from storeconf import errors as error_tree
from storeconf._arguments import format_duration, format_size
from storeconf.catalog import BUILT_IN, Catalog
from storeconf.config.fields import ANY, fields_of
from storeconf.config.language import ALIAS, CHILD, COMMON, FACTORY, SWITCHES, TOP, EnvelopeField
from storeconf.config.schema import build_schema
from storeconf.diagnostics.codes import CODES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic.fields import FieldInfo

    from storeconf.config.fields import Expect, Fields
    from storeconf.plugin import Settings

ROOT = Path(__file__).resolve().parent.parent
DIAGNOSTICS = ROOT / "docs/reference/diagnostics"
LANGUAGE = ROOT / "docs/reference/language.md"
ERRORS = ROOT / "docs/reference/errors.md"
VARIABLES = ROOT / "docs/reference/environment-variables.md"
SCHEMA = ROOT / "schemas/storeconf.v1.schema.json"

HEAD = """\
<!-- Made by docs/generate.py from the models' descriptions: edit those. -->

# The fields of the configuration language, version 1

Every field that a layout can have; [the rules](rules.md) tell which layer wins, what a variable may set, and what a
text may hold. The same descriptions stand in the JSON Schema, so editors show them while you write. A field must be
given where its default says *required*; one whose default is empty is simply absent unless given.
"""


INDEX = """\
<!-- Made by docs/generate.py from storeconf/diagnostics/codes.py: edit that. -->

# Diagnostics

Every problem of a configuration has a code that never changes its meaning. The page of a code shows the most usual
mistake, its output, and its remedy; `storeconf explain CODE` prints a short form where no
browser is at hand. All problems are found in one run.

An error keeps the layout from being used. With warnings alone it is used as it is.
"""

ERRORS_HEAD = """\
<!-- Made by docs/generate.py from storeconf/errors.py: edit that. -->

# Errors

Every error that storeconf raises on purpose is a `StoreconfError`. The tree is drawn by who must act; the built-in
exceptions in parentheses are further base classes, so that code which knows nothing of storeconf catches them too.

"""

VARIABLES_HEAD = """\
<!-- Made by docs/generate.py from the tables in storeconf/config/language.py: edit those. -->

# Environment variables

`storeconf env` lists every variable that can set a value of a layout, with its current value. An empty variable counts
as unset. Programs that pass `environ=` to `storeconf.load` replace the variables of the process.

| variable | what it does |
| --- | --- |
"""

SWITCH_NOTES = {
    "STORECONF_ENV": ", where neither the program nor `--env` has chosen one",
    "STORECONF_FILE": ", where neither the program nor `-f` has named one; relative to the working directory",
    "STORECONF_DISABLE_PLUGINS": ": `1` for all, or the names of kinds or distributions, separated by commas",
}

# Of other origin than storeconf; the first two are conventions of terminals, the last is Click's.
OTHER_VARIABLES = {
    "NO_COLOR": "if set, the command line prints no colours",
    "FORCE_COLOR": "if set, the command line prints colours in pipes and files too",
    "TERM": "if it is `dumb`, the command line prints no colours",
    "COLUMNS": "the width for which the command line prints, where it is not that of the terminal",
    "_STORECONF_COMPLETE": "prints the [completion of a shell](command-line.md#completion)",
}

GROUPS = {
    "1": "Reading a file",
    "2": "Layers and environments",
    "3": "Variables and overrides",
    "4": "Substitutions",
    "5": "Fields and values",
    "6": "How stores belong together",
    "7": "Plugins",
    "8": "Warnings",
}


def language() -> str:
    """The reference of the language."""
    catalog = Catalog.builtin()
    parts = [
        HEAD,
        _section("The top level", "", _envelope(TOP)),
        _section("Every store", "What any store with a `type` or a `parent` takes.", _envelope(COMMON)),
        _section("A child", "A namespace of another store.", _envelope(_without(CHILD, COMMON))),
        _section("An alias", "It takes nothing else.", _envelope(_without(ALIAS, COMMON))),
        _section(
            "The default factory",
            "It has a `parent`, a `type` with that type's fields, or `use`; or it is the word `forbid`.",
            _envelope(_without(FACTORY, COMMON)),
        ),
    ]
    parts += (_model(f"`type: {name}`", catalog.backend(name)) for name in BUILT_IN["backend"])
    parts.append("\n# Middleware\n\nIn the order of the chain, from the caller inwards.\n")
    for kind in BUILT_IN["middleware"]:
        model = catalog.middleware(kind)
        main = f" A value alone stands for `{model.shorthand_field}`." if model.shorthand_field else ""
        parts.append(_model(f"`{kind}`", model, main))
    return "".join(parts)


def schema() -> str:
    """The JSON Schema of the built-in kinds."""
    return json.dumps(build_schema(Catalog.builtin()), indent=2, ensure_ascii=False) + "\n"


def errors() -> str:
    """The page of the errors: the tree, then each class."""
    tree = (error_tree.__doc__ or "").split("\n\n")[1]
    classes = (name for name in error_tree.__all__ if name.endswith("Error"))
    in_order = sorted(classes, key=lambda name: re.search(rf"\b{name}\b", tree).start())
    parts = [ERRORS_HEAD, "```text\n", tree, "\n```\n"]
    parts += (f"\n::: storeconf.{name}\n" for name in in_order)
    return "".join(parts)


def variables() -> str:
    """The page of the environment variables."""
    rows = {
        **{name: f"{purpose}{SWITCH_NOTES[name]}" for name, purpose in SWITCHES.items()},
        "STORECONF__…": "sets one value of the layout: the name is [the path of the value](rules.md#variables)",
        "STORECONF__…_FILE": "the same, with the value read from that file",
        **OTHER_VARIABLES,
    }
    return VARIABLES_HEAD + "".join(f"| `{name}` | {text} |\n" for name, text in rows.items())


def _without(fields: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in fields.items() if name not in others}


def _section(title: str, text: str, rows: Iterable[tuple[str, str, str, str]]) -> str:
    lines = [f"\n## {title}\n", *([f"{text}\n"] if text else [])]
    lines += ["| field | takes | default | what it is for |", "| --- | --- | --- | --- |"]
    lines += [f"| `{name}` | {takes} | {default} | {text} |" for name, takes, default, text in rows]
    return "\n".join(lines) + "\n"


def _envelope(fields: Mapping[str, EnvelopeField]) -> Iterable[tuple[str, str, str, str]]:
    for name, each in fields.items():
        yield name, _kind(each.schema), "", f"{each.description} For example {_code(each.examples[0])}."


def _kind(schema: Mapping[str, Any]) -> str:
    names = {"string": "text", "integer": "whole number", "array": "list"}
    if "enum" in schema:
        return " or ".join(_code(each) for each in schema["enum"])
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return {"reference": "a store's name", "namespace": "a name"}.get(name, "mapping")
    return names[schema["type"]]


def _model(title: str, model: type[Settings], more: str = "") -> str:
    fields = fields_of(model)
    text = " ".join((model.__doc__ or "").split("\n\n")[0].split()) + more
    parts = [_section(title, text, _fields(fields, skip=("type",)))]
    for name, expect in fields.expects.items():
        if expect.model is not None:
            inner = fields_of(expect.model)
            parts.append(_section(f"{title}: `{name}`", " ".join((expect.model.__doc__ or "").split()), _fields(inner)))
    return "".join(parts)


def _fields(fields: Fields, skip: tuple[str, ...] = ()) -> Iterable[tuple[str, str, str, str]]:
    schemas = fields.model.model_json_schema()["properties"]
    for name, expect in fields.expects.items():
        if name not in skip:
            info = fields.info[name]
            example = f" For example {_code(info.examples[0])}." if info.examples else ""
            known = schemas[name]
            yield name, _takes(expect, known), _default(info, expect, known), f"{info.description or ''}{example}"


def _takes(expect: Expect, schema: Mapping[str, Any]) -> str:
    if expect.store:
        return "a store's name"
    if expect.what == ANY.what:  # the model's own code takes it, and the schema says what
        kinds = [each["type"] for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
        return " or ".join({"string": "text", "integer": "whole number"}.get(kind, kind) for kind in kinds)
    words = expect.what.replace("'", "`")
    inner = expect.item or expect.value
    if inner is not None and inner is not ANY:
        words += f" of {inner.what.removeprefix('a ')}s"
    return " or ".join(word.removeprefix("a ") for word in words.split(" or "))


def _default(info: FieldInfo, expect: Expect, schema: Mapping[str, Any]) -> str:
    if info.is_required():
        return "*required*"
    value = info.default
    if value is None or value is PydanticUndefined:
        return ""
    if isinstance(value, timedelta):
        return _code(format_duration(value))
    return _code(format_size(value) if expect.what == "a size" else schema.get("default", value))


def _code(value: Any) -> str:
    shown = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return f"`{shown}`".replace("|", "\\|")


def diagnostics() -> str:
    """The index of the diagnostics, grouped by where a problem lies."""
    parts = [INDEX]
    for digit, title in GROUPS.items():
        parts.append(
            f"\n## {title}: SC{digit}xx\n\n| code | title | severity | what it means |\n| --- | --- | --- | --- |\n"
        )
        parts += (
            f"| [{code}]({code}.md) | {about.title} | {_severity(code)} | {about.explanation} |\n"
            for code, about in CODES.items()
            if code[2] == digit
        )
    return "".join(parts)


def diagnostic(code: str) -> str:
    """The page of a diagnostic: what the table says of it, and its examples with what they really say."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from examples import run_page
    finally:
        sys.path.pop(0)
    text = (DIAGNOSTICS / f"{code}.md").read_text(encoding="utf-8")
    about = CODES[code]
    text = _paragraphs_after("", text, f"# {code}: {about.title}", about.explanation)
    text = _paragraphs_after("## How to fix it\n\n", text, _filled(about.remedy))
    page: str = run_page(text)
    return page


def _paragraphs_after(head: str, text: str, *paragraphs: str) -> str:
    """The text with other paragraphs in the place of those that follow the head."""
    before, head, after = text.partition(head) if head else ("", "", text)
    rest = after.split("\n\n", len(paragraphs))[-1]
    return "\n\n".join((f"{before}{head}{paragraphs[0]}", *paragraphs[1:], rest))


def _filled(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _severity(code: str) -> str:
    """What the page's example shows."""
    shown = re.search(rf"(error|warning)\[{code}\]", (DIAGNOSTICS / f"{code}.md").read_text(encoding="utf-8"))
    assert shown is not None, f"no example shows {code}"
    return shown[1]


def main() -> None:
    """Write everything."""
    SCHEMA.parent.mkdir(exist_ok=True)
    LANGUAGE.write_text(language(), encoding="utf-8")
    SCHEMA.write_text(schema(), encoding="utf-8")
    ERRORS.write_text(errors(), encoding="utf-8")
    VARIABLES.write_text(variables(), encoding="utf-8")
    for code in CODES:
        (DIAGNOSTICS / f"{code}.md").write_text(diagnostic(code), encoding="utf-8")
    (DIAGNOSTICS / "index.md").write_text(diagnostics(), encoding="utf-8")


if __name__ == "__main__":
    main()
