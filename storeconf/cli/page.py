"""The page of `storeconf graph --format html`: one file that shows every environment and works without a network.

Here the layouts become one JSON document, in which secrets are masked; `page.js` draws it. The files `page.html`,
`page.css` and `page.js` are written as they are read, and put together without any further step.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from storeconf import __version__
from storeconf.cli.described import Described
from storeconf.cli.dialects import shown
from storeconf.cli.output import complain, escaped, files_of, hide
from storeconf.cli.values import history_of, leaves, place_of
from storeconf.config.fields import store_fields
from storeconf.config.tree import dotted, lookup
from storeconf.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from storeconf.cli.app import Source
    from storeconf.config.tree import TreePath
    from storeconf.diagnostics import Origin
    from storeconf.layout import Layout
    from storeconf.plan import FactoryStep, Plan, Step

    Values: TypeAlias = Callable[[TreePath], list[dict[str, Any]]]

__all__ = ["page"]

UNLISTED: Final = "*"
"""Names the default factory in the document; no store can be called so."""


def page(source: Source) -> str:
    """The page of all environments that a layout declares, or of its base if it declares none.

    The environment that the call chooses must be valid. One of the others that can't be read without its secrets is
    drawn as with ``--without-secrets``; of one that is invalid, the page shows the problems.
    """
    from storeconf.layout import check_layout

    chosen = source.environment or os.environ.get("STORECONF_ENV") or None
    if chosen is not None:
        source.layout().plan()
    options: dict[str, Any] = {"overrides": source.overrides, "all_environments": True}
    result = check_layout(source.file, without_secrets=source.without_secrets, **options)
    if chosen is None and not result.layouts:
        complain(result.diagnostics)
        raise SystemExit(1)
    drafts = {}
    if len(result.layouts) < len(result.environments):
        drafts = dict(check_layout(source.file, without_secrets=True, **options).layouts)
    same = _Same()
    environments = []
    for name in result.environments or (None,):
        layout = result.layouts.get(name) or drafts.get(name)
        problems = [each for each in result.diagnostics if each.severity == "error" and name in each.environments]
        stores: list[dict[str, Any]] = []
        if layout is not None:
            hide(layout.redact)
            try:
                stores, problems = list(_stores(layout, layout.plan(), same)), []
            except ConfigError as failure:
                if len(result.environments) < 2:
                    raise
                problems = list(failure.diagnostics)
        environments.append(
            {
                "name": name,
                "files": ", ".join(map(escaped, result.files)) if layout is None else files_of(layout),
                "incomplete": source.without_secrets or name not in result.layouts,
                "problems": [
                    {"code": each.code, "at": escaped(each.place or each.path or ""), "message": escaped(each.message)}
                    for each in problems
                ],
                "stores": stores,
            }
        )
    first = chosen or next((each["name"] for each in environments if each["stores"]), None)
    return _assembled({"made_by": f"storeconf {__version__}", "chosen": first, "environments": environments})


def _assembled(document: dict[str, Any]) -> str:
    """The files as one; the policy allows the browser nothing else than them, so nothing is fetched or sent."""
    parts = files("storeconf.cli")
    text, style, script = (parts.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
    hashes = {
        name: f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
        for name, content in (("script", script), ("style", style))
    }
    policy = f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; base-uri 'none'"
    inside = {"policy": policy, "style": style, "script": script, "document": _inert(document)}
    for name, content in inside.items():
        before, mark, after = text.partition(f"[[{name}]]")
        assert mark, name
        text = before + content + after
    return text


def _inert(document: dict[str, Any]) -> str:
    """The document as JSON that can't end the element around it."""
    text = json.dumps(document, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# ---------------------------------------------------------------------- stores


class _Same:
    """Numbers the different values at each path, so that the page can compare those that are masked."""

    def __init__(self) -> None:
        self._numbers: dict[TreePath, dict[str, int]] = {}

    def number(self, path: TreePath, value: Any) -> int:
        """Equal values at one path have the same number, in all environments."""
        known = self._numbers.setdefault(path, {})
        return known.setdefault(json.dumps(value, sort_keys=True, default=str), len(known))


def _stores(layout: Layout, plan: Plan, same: _Same) -> Iterator[dict[str, Any]]:
    described = Described(layout, plan)
    masked, unmasked = layout.dump(), layout.dump(masked=False)

    def values(path: TreePath) -> list[dict[str, Any]]:
        """The values that are set at and below a path."""
        return [
            {
                "path": dotted(leaf[len(path) :]),
                "value": shown(value),
                "same": same.number(leaf, lookup(unmasked, leaf)),
                "places": [
                    {"layer": each.layer, "at": place_of(each), "value": _written(each)}
                    for each in history_of(layout.origin(dotted(leaf)))
                ],
            }
            for leaf, value in leaves(lookup(masked, path), path)
        ]

    for step in plan.steps:
        yield {
            "name": step.name,
            "kind": step.kind,
            "type": step.backend.type,
            "namespace": list(map(escaped, described.namespaces(step))),
            "parent": step.parent,
            "use": step.use,
            "calls": [] if step.use is not None else _calls(step),
            "root": described.root(step) if step.kind == "root" else None,
            "description": escaped(described.description(step)) if described.description(step) else None,
            "chain": _chain(described, step, values),
            "values": [each for each in values(("stores", step.name)) if not _in_chain(each["path"], step)],
        }
    yield _unlisted(described, plan.default_factory, values)


def _written(origin: Origin) -> str:
    return "removed" if origin.removed else shown(origin.value)


def _unlisted(described: Described, factory: FactoryStep | None, values: Values) -> dict[str, Any]:
    """What the default factory gives for other names; without one, a store in memory, with a warning."""
    own = [] if factory is None else values(("default_factory",))
    node: dict[str, Any] = {
        "name": UNLISTED,
        "kind": "absent" if factory is None else factory.kind if factory.kind in ("forbid", "use") else "factory",
        "type": "memory" if factory is None else None,
        "namespace": [],
        "parent": None,
        "use": None,
        "calls": [],
        "root": None,
        "description": None,
        "chain": [],
        "values": own,
    }
    if factory is None or factory.kind == "forbid":
        return node
    node["use"] = factory.use
    if factory.use is None:
        node |= {
            "type": None if factory.backend is None else factory.backend.type,
            "namespace": [*map(escaped, described.namespaces(factory)), "<name>"],
            "parent": factory.parent,
            "calls": _calls(factory),
            "root": described.root(factory) if factory.kind == "root" else None,
            "chain": _chain(described, factory, values),
            "values": [each for each in own if not _in_chain(each["path"], factory)],
        }
    return node


def _calls(step: Step | FactoryStep) -> list[dict[str, str]]:
    """The stores that the chain calls, each with the middleware that does."""
    return [
        {"kind": kind, "store": name}
        for kind, link in step.chain
        for field in store_fields(type(link))
        if isinstance(name := getattr(link, field), str)
    ]


def _chain(described: Described, step: Step | FactoryStep, values: Values) -> list[dict[str, Any]]:
    """The chain from the caller inwards, each link with its values and the store that sets them."""
    chain = []
    for link in described.chain(step) if step.use is None else ():
        holder = described.holder(step, link.kind)
        name = getattr(holder, "name", None)
        at: TreePath = ("default_factory",) if name is None else ("stores", name)
        path: TreePath = (*at, "middleware", link.kind)
        own = values(path)
        chain.append(
            {
                "kind": link.kind,
                "settings": link.settings,
                "from": name if link.inherited else None,
                "values": [each | {"path": dotted((link.kind, each["path"])).rstrip(".")} for each in own],
            }
        )
    return chain


def _in_chain(path: str, step: Step | FactoryStep) -> bool:
    """Whether a value belongs to a link that is in force, which the page shows with the chain."""
    steps = path.split(".")
    return steps[0] == "middleware" and len(steps) > 1 and steps[1] in {kind for kind, _ in step.chain}
