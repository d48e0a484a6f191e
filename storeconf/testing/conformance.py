"""The conformance suite: every promise that storeconf makes of a store, as tests that a plugin's author inherits.

Also runs it without a test runner.
"""

from __future__ import annotations

import inspect
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from xml.etree import ElementTree

from storeconf import __version__
from storeconf.testing._atomic import Atomic
from storeconf.testing._concurrency import Concurrency
from storeconf.testing._expiry import Expiry
from storeconf.testing._flight import SingleFlight
from storeconf.testing._lifecycle import OpeningAndClosing
from storeconf.testing._namespaces import Namespaces
from storeconf.testing._sharing import Sharing
from storeconf.testing._values import Bulk, Values

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from typing import TextIO

__all__ = ["Outcome", "Report", "StoreConformance", "run_conformance"]


class StoreConformance(Values, Expiry, Namespaces, Bulk, Atomic, SingleFlight, Concurrency, OpeningAndClosing, Sharing):
    """Every promise that a store makes, as ``test_*`` methods.

    Subclass it and override `make_store`::

        class TestSqliteStore(StoreConformance):
            def make_store(self):
                return SqliteStore(self.directory / "data.sqlite")

    The tests are plain methods without parameters, which pytest finds in a subclass of this, and which
    `run_conformance` runs without pytest. The store is held to the capabilities that it declares: operations that it
    does not declare must raise UnsupportedOperationError, and declared ones must be atomic, shared or persistent.
    """

    model_examples: ClassVar[int] = 40
    """How many random histories `test_stateful_model` tries."""

    model_steps: ClassVar[int] = 40
    """How many steps each of them has at most."""

    def test_stateful_model(self) -> None:
        """Random histories of all operations end as a dict with a clock would; needs hypothesis."""
        from storeconf.testing.stateful import check_model

        check_model(self, max_examples=self.model_examples, steps=self.model_steps)


# ---------------------------------------------------------------- running it without a test runner


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one test ended.

    ``promise`` is the property that it checks, in one sentence; ``error`` is None if the store passed; ``traceback`` is
    that of the error, as text.
    """

    test: str
    promise: str
    seconds: float
    error: BaseException | None = None
    traceback: str = ""


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

    @property
    def summary(self) -> str:
        """One line for a README: how many checks the store passed, and of which version of storeconf."""
        passed = len(self.outcomes) - len(self.failures)
        return f"storeconf {__version__} conformance: {passed} of {len(self.outcomes)} checks passed"

    def __str__(self) -> str:
        lines = []
        for outcome in self.failures:
            lines += [f"FAILED {outcome.test}: {outcome.promise}", outcome.traceback.rstrip(), ""]
        passed = len(self.outcomes) - len(self.failures)
        lines.append(f"{self.suite}: {passed} of {len(self.outcomes)} checks passed, in {self._seconds:.1f} s")
        return "\n".join(lines)

    @property
    def _seconds(self) -> float:
        return sum(outcome.seconds for outcome in self.outcomes)

    def to_junit_xml(self) -> str:
        """Return the outcomes in the format that CI systems read."""
        total = {"tests": str(len(self.outcomes)), "failures": str(len(self.failures)), "errors": "0", "skipped": "0"}
        total["time"] = f"{self._seconds:.3f}"
        root = ElementTree.Element("testsuites", total)
        group = ElementTree.SubElement(root, "testsuite", {"name": self.suite, **total})
        for outcome in self.outcomes:
            case = ElementTree.SubElement(
                group, "testcase", classname=self.suite, name=outcome.test, time=f"{outcome.seconds:.3f}"
            )
            if outcome.error is not None:
                message = f"{outcome.promise} {type(outcome.error).__name__}: {outcome.error}"
                failure = ElementTree.SubElement(case, "failure", message=_xml(message))
                failure.text = _xml(outcome.traceback)
        ElementTree.indent(root)
        return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"

    def write_junit_xml(self, path: str | os.PathLike[str]) -> None:
        """Write `to_junit_xml` to a file."""
        Path(path).write_text(self.to_junit_xml(), encoding="utf-8")


def _xml(text: str) -> str:
    """The text, with an escape for each character that XML can't contain: keys of the suite are hostile."""
    return "".join(
        each
        if each in "\t\n\r" or "\x20" <= each <= "\ud7ff" or "\ue000" <= each not in "\ufffe\uffff"
        else ascii(each)[1:-1]
        for each in text
    )


def run_conformance(
    suite: type[StoreConformance], *, only: Iterable[str] | None = None, output: TextIO | None = sys.stderr
) -> Report:
    """Run the tests of a suite, or ``only`` those named, and report on all of them; an error stops none of the others.

    A line per test goes to ``output``: its number and name as it begins, and how it ended. None for silence.
    """
    names = [name for name, _ in inspect.getmembers(suite, inspect.isfunction) if name.startswith("test_")]
    if only is not None:
        wanted = list(only)
        unknown = set(wanted) - set(names)
        if unknown:
            raise ValueError(f"{suite.__name__} has no test {', '.join(sorted(unknown))}")
        names = wanted
    outcomes = []
    for number, name in enumerate(names, 1):
        if output is not None:
            print(f"{number:{len(str(len(names)))}}/{len(names)} {name} ... ", end="", file=output, flush=True)
        outcome = _run(suite, name)
        outcomes.append(outcome)
        if output is not None:
            print(f"{'ok' if outcome.error is None else 'FAILED'} ({outcome.seconds:.1f} s)", file=output, flush=True)
    return Report(suite.__name__, tuple(outcomes))


def _run(suite: type[StoreConformance], name: str) -> Outcome:
    promise = (inspect.getdoc(getattr(suite, name)) or "").partition("\n")[0]
    start = time.perf_counter()
    try:
        getattr(suite(), name)()
    except Exception as error:  # noqa: BLE001 - reported, and the other tests still run
        return Outcome(name, promise, time.perf_counter() - start, error, traceback.format_exc())
    return Outcome(name, promise, time.perf_counter() - start)
