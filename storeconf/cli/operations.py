"""Which operations the stores of a layout do not offer, found without their backends' libraries."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Self

from storeconf.cli.output import warning
from storeconf.errors import StoreconfError
from storeconf.plugin import Backend
from storeconf.registry import compile_plan
from storeconf.store import Capabilities, Store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storeconf.plan import Plan
    from storeconf.plugin import BuildContext

__all__ = ["lacking"]

OPTIONAL: Final = ("add", "touch", "pop", "increment", "compare_and_set")
"""What a store may lack; the rest every store has."""


class _StandIn(Store):
    """Can do nothing, but tells what a backend's store could."""

    def __init__(self, capabilities: Capabilities) -> None:
        super().__init__()
        self.capabilities = capabilities

    def do_attach(self, parent: Self) -> None:
        self.capabilities = parent.capabilities


class _StandInBackend(Backend):
    offered: Capabilities

    def build(self, context: BuildContext) -> Store:
        return _StandIn(self.offered)


def lacking(plan: Plan) -> Mapping[str, list[str]]:
    """The operations that each store does not offer, because its backend or a link of its chain does not, by name."""
    offered = {step.name: step.backend.capabilities for step in plan.steps}
    if any(step.chain for step in plan.steps):
        try:
            registry = compile_plan(_without_libraries(plan))
        except StoreconfError as failure:
            warning(f"what chains leave of the operations can't be told: {failure}", plan.environment)
        else:
            offered = {name: registry[name].capabilities for name in registry}
    return {
        name: [operation for operation in OPTIONAL if operation not in capabilities.atomic]
        for name, capabilities in offered.items()
    }


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
