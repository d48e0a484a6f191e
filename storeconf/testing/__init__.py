"""Help for tests of stores and applications.

Here: any layout on memory stores, with a clock that a test moves, for applications. For stores: the conformance suite.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from storeconf.backends import MemoryBackend
from storeconf.errors import ConfigError
from storeconf.layout import check_layout
from storeconf.plan import FactoryStep, Step
from storeconf.registry import compile_plan
from storeconf.stores.memory import MemoryStore
from storeconf.testing.conformance import Outcome, Report, StoreConformance, run_conformance

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from storeconf.plugin import BuildContext
    from storeconf.registry import StoreRegistry

__all__ = ["Clock", "Outcome", "Report", "StoreConformance", "memory_registry", "run_conformance"]

_S = TypeVar("_S", Step, FactoryStep)
_NO_VARIABLES: Mapping[str, str] = MappingProxyType({})


class Clock:
    """The time of stores under test, in seconds: it stands still until it is told to advance."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        """The time now."""
        return self._now

    def advance(self, span: float | timedelta) -> None:
        """Let time pass."""
        seconds = span.total_seconds() if isinstance(span, timedelta) else span
        if seconds < 0:
            raise ValueError("time does not go back")
        self._now += seconds


def memory_registry(
    source: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    environment: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = _NO_VARIABLES,
    clock: Clock | None = None,
) -> StoreRegistry:
    """Return the registry of a layout in which every root, of any backend, keeps its entries in memory.

    Names, namespaces, aliases, chains and the default factory are those of the layout. Nothing that the layout says of
    servers and directories is used, no variables are read but those in ``environ``, and a reference that can't be
    substituted counts as a placeholder. ``clock`` tells the stores the time. Each call returns a registry of its own.

    Raises ConfigError with every problem of the layout.
    """
    report = check_layout(source, environment=environment, overrides=overrides, environ=environ, without_secrets=True)
    if report.layout is None:
        raise ConfigError(report.diagnostics)
    plan = report.layout.plan()
    time = clock or Clock()
    steps = tuple(_moved(step, time) for step in plan.steps)
    factory = None if plan.default_factory is None else _moved(plan.default_factory, time)
    return compile_plan(replace(plan, steps=steps, default_factory=factory), memory=partial(MemoryStore, clock=time))


class _Timed(MemoryBackend):
    """The ``memory`` backend on a test's clock."""

    clock: Clock

    def build(self, context: BuildContext) -> MemoryStore:
        """Make an empty store."""
        return MemoryStore(max_entries=self.max_entries, max_size=self.max_size, objects=self.objects, clock=self.clock)


def _moved(step: _S, clock: Clock) -> _S:
    """The step on a memory store; one that is on memory already keeps its settings."""
    backend = step.backend
    if backend is None:
        return step
    said = {"namespace"} | ({"max_entries", "max_size", "objects"} if isinstance(backend, MemoryBackend) else set())
    kept = {name: getattr(backend, name) for name in said & backend.model_fields_set}
    return replace(step, backend=_Timed(clock=clock, **kept))
