"""The suite is part of the installed package: it runs where pytest and Hypothesis are not, also under ``python -O``."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys

sys.modules["pytest"] = sys.modules["hypothesis"] = None
from storeconf import MemoryStore, Store
from storeconf.testing import StoreConformance, run_conformance

class Sound(StoreConformance):
    def make_store(self):
        return MemoryStore()

class Forgetful(MemoryStore):
    async def set(self, *arguments, **named):
        pass

class Broken(StoreConformance):
    def make_store(self):
        return Forgetful()

tests = ["test_set_get_delete", "test_other_event_loops", "test_fork_of_an_open_store"]
assert_is_off = not __debug__
report = run_conformance(Sound, only=tests, output=None)
broken = run_conformance(Broken, only=tests, output=None)
without = run_conformance(Sound, only=["test_stateful_model"], output=None)
print(report.ok, len(broken.failures), type(without.failures[0].error).__name__, assert_is_off)
"""


def test_suite_needs_no_test_runner_and_no_assert_statements() -> None:
    done = subprocess.run([sys.executable, "-O", "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["True", "3", "ModuleNotFoundError", "True"]
    assert done.stderr == ""


def test_importing_storeconf_imports_no_testing() -> None:
    program = (
        "import sys, storeconf, storeconf.stores; from storeconf import MemoryStore, load\n"
        "print([name for name in sys.modules if name.startswith('storeconf.testing')])\n"
        "import storeconf.testing\n"
        "print([name for name in ('hypothesis', 'pytest', '_pytest') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]
