"""Running the conformance suite without a test runner."""

from __future__ import annotations

import inspect
import sys
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TextIO

    from storeconf.testing.conformance import StoreConformance

__all__ = ["Outcome", "Report", "run_conformance"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one test ended: ``error`` is None when the store keeps the promise; ``details`` is the traceback."""

    test: str
    promise: str
    seconds: float
    error: BaseException | None = None
    details: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The outcomes of all tests that ran, in their order."""

    suite: str
    outcomes: tuple[Outcome, ...] = field(default=())

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The outcomes of the tests that failed."""
        return tuple(outcome for outcome in self.outcomes if outcome.error is not None)

    @property
    def ok(self) -> bool:
        """Whether at least one test ran and none failed."""
        return bool(self.outcomes) and not self.failures

    def __str__(self) -> str:
        lines = []
        for outcome in self.failures:
            lines += [f"FAILED {outcome.test}: {outcome.promise}", outcome.details.rstrip(), ""]
        seconds = sum(outcome.seconds for outcome in self.outcomes)
        kept = len(self.outcomes) - len(self.failures)
        lines.append(f"{self.suite}: {kept} of {len(self.outcomes)} checks passed, in {seconds:.1f} s")
        return "\n".join(lines)


def run_conformance(
    suite: type[StoreConformance], *, only: Iterable[str] | None = None, output: TextIO | None = sys.stderr
) -> Report:
    """Run the tests of a suite, or ``only`` those named, and report on all of them; an error stops none of the others.

    A line per test goes to ``output`` while they run; None for silence.
    """
    names = [name for name, _ in inspect.getmembers(suite, inspect.isfunction) if name.startswith("test_")]
    if only is not None:
        wanted = list(only)
        unknown = set(wanted) - set(names)
        if unknown:
            raise ValueError(f"{suite.__name__} has no test {', '.join(sorted(unknown))}")
        names = wanted
    outcomes = []
    for name in names:
        outcome = _run(suite, name)
        outcomes.append(outcome)
        if output is not None:
            print("ok    " if outcome.error is None else "FAILED", name, file=output, flush=True)
    return Report(suite.__name__, tuple(outcomes))


def _run(suite: type[StoreConformance], name: str) -> Outcome:
    promise = (inspect.getdoc(getattr(suite, name)) or "").partition("\n")[0]
    start = time.perf_counter()
    try:
        getattr(suite(), name)()
    except Exception as error:  # noqa: BLE001 - reported, and the other tests still run
        return Outcome(name, promise, time.perf_counter() - start, error, traceback.format_exc())
    return Outcome(name, promise, time.perf_counter() - start)
