"""Descriptions of stores in few words and without secrets: settings, namespace, chain, and missing operations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from storeconf._arguments import format_duration, format_size, parse_duration, parse_size
from storeconf._text import MASK
from storeconf.cli.output import warning
from storeconf.config.dump import shown
from storeconf.config.fields import fields_of
from storeconf.errors import StoreconfError
from storeconf.plan import Step
from storeconf.plugin import Backend
from storeconf.registry import compile_plan
from storeconf.store import Capabilities, Store, StoreBase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from storeconf.config.fields import Expect
    from storeconf.layout import Layout
    from storeconf.plan import FactoryStep, Plan
    from storeconf.plugin import BuildContext, Settings

__all__ = ["Described", "Link", "abilities"]

_ELSEWHERE = frozenset({"type", "namespace", "middleware", "description", "max_stores"})
"""The fields of a root that have a place of their own."""


_OBVIOUS = frozenset({"url", "path"})
"""Fields whose values are shown without their names."""


@dataclass(frozen=True, slots=True)
class Link:
    """One link of a chain, as short as it can be read; ``inherited``: from the store's parent."""

    kind: str
    settings: str
    inherited: bool

    def __str__(self) -> str:
        return f"{self.kind} {self.settings}".rstrip()


class Described:
    """Describes the stores of one layout, from the very data that `storeconf show` prints."""

    def __init__(self, layout: Layout, plan: Plan) -> None:
        self._tree = layout.dump()
        self._steps = {step.name: step for step in plan.steps}
        self._namespaces: dict[str, tuple[str, ...]] = {}
        for step in plan.steps:  # each comes after its parent
            above = step.use or step.parent
            self._namespaces[step.name] = self._own_namespace(step, () if above is None else self._namespaces[above])

    def root(self, step: Step | FactoryStep) -> str:
        """The type of a root and its settings."""
        if step.backend is None:
            return ""
        values = {name: value for name, value in self._node(step).items() if name not in _ELSEWHERE}
        return f"{step.backend.type} {_settings(values, type(step.backend))}".rstrip()

    def namespaces(self, step: Step | FactoryStep) -> tuple[str, ...]:
        """The names of the namespace path."""
        if not isinstance(step, Step):
            return self._own_namespace(step, () if step.parent is None else self._namespaces[step.parent])
        return self._namespaces[step.name]

    def description(self, step: Step) -> str:
        """The description of the store."""
        return str(self._node(step).get("description", ""))

    def chain(self, step: Step | FactoryStep) -> list[Link]:
        """The chain around a store, from the caller inwards."""
        return [self._link(step, kind, type(link)) for kind, link in step.chain]

    def holder(self, step: Step | FactoryStep, kind: str) -> Step | FactoryStep:
        """The store whose description contains a link of the chain: the store itself, or one from which it inherits."""
        holder = step
        while kind not in self._node(holder).get("middleware", {}):
            assert holder.parent is not None  # or the link would not be there
            holder = self._steps[holder.parent]
        return holder

    def _link(self, step: Step | FactoryStep, kind: str, model: type[Settings]) -> Link:
        holder = self.holder(step, kind)
        given = self._node(holder)["middleware"][kind]
        if isinstance(given, dict):
            text = _settings(given, model)
        else:
            main = getattr(model, "shorthand_field", None)
            text = "" if given is True or main is None else _value(given, fields_of(model).expects[main])
        return Link(kind, text, holder is not step)

    def _own_namespace(self, step: Step | FactoryStep, above: tuple[str, ...]) -> tuple[str, ...]:
        """The path as it may be shown: the names of namespaces can be secrets like anything else."""
        if len(step.path) == len(above):
            return above
        return (*above, str(self._node(step).get("namespace", step.path[-1])))

    def _node(self, step: Step | FactoryStep) -> Mapping[str, Any]:
        name = getattr(step, "name", None)
        node: Mapping[str, Any] = self._tree["default_factory"] if name is None else self._tree["stores"][name]
        return node


def _settings(values: Mapping[str, Any], model: type[BaseModel]) -> str:
    fields = fields_of(model).expects
    main = getattr(model, "shorthand_field", None)
    parts = []
    for name, value in values.items():
        text = _value(value, fields[name])
        if isinstance(value, dict):
            parts.append(f"{name}({text})")
        elif value is True:
            parts.append(name)
        else:
            parts.append(text if name == main or name in _OBVIOUS else f"{name} {text}")
    return ", ".join(parts)


def _value(value: Any, expect: Expect) -> str:
    if value == MASK or (isinstance(value, str) and "${" in value):  # a placeholder, as it is in the file
        return shown(value)
    if isinstance(value, dict) and expect.model is not None:
        return _settings(value, expect.model)
    if isinstance(value, list):
        texts = [_value(each, expect.item or expect) for each in value]
        return " ".join(filter(None, (*texts[:1], f"+{len(texts) - 1}" if len(texts) > 1 else ""))) or "none"
    if expect.what == "a duration":
        return format_duration(parse_duration(value))
    if expect.what == "a size":
        return format_size(parse_size(value))
    if expect.path and Path(value).is_relative_to(Path.cwd()):
        return shown(str(Path(value).relative_to(Path.cwd())))  # easier to read from there
    return shown(value)


# ---------------------------------------------------------------------- missing operations


class _StandIn(StoreBase):
    """Can do nothing, but has the capabilities of a backend's store."""

    def __init__(self, capabilities: Capabilities) -> None:
        super().__init__()
        self.capabilities = capabilities

    def do_attach(self, parent: Self) -> None:
        self.capabilities = parent.capabilities


class _StandInBackend(Backend):
    offered: Capabilities

    def build(self, context: BuildContext) -> Store:
        return _StandIn(self.offered)


def abilities(plan: Plan) -> Mapping[str, Capabilities]:
    """What each store offers, which its backend and the links of its chain decide, by name."""
    offered = {step.name: step.backend.capabilities for step in plan.steps}
    if any(step.chain for step in plan.steps):
        try:
            registry = compile_plan(_without_libraries(plan))
        except StoreconfError as failure:
            warning(f"can't determine which operations the middleware supports: {failure}", plan.environment)
        else:
            offered = {name: registry[name].capabilities for name in registry}
    return offered


def _without_libraries(plan: Plan) -> Plan:
    """The same plan with stand-ins for the backends."""
    backends = {
        id(step.backend): _StandInBackend(
            type=step.backend.type, namespace=step.backend.namespace, offered=step.backend.capabilities
        )
        for step in plan.steps
    }
    steps = tuple(replace(step, backend=backends[id(step.backend)]) for step in plan.steps)
    return replace(plan, steps=steps, default_factory=None)
