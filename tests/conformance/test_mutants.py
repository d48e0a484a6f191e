"""The suite kills mutants of the SQLite plugin, each with one fault that an author could make.

For each mutant, a test that finds it is named, so that the run takes seconds.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import pytest

from storeconf.testing import StoreConformance, run_conformance

if TYPE_CHECKING:
    from storeconf import Store

SOURCE = Path(__file__).parents[2] / "plugins/storeconf-sqlite/src/storeconf_sqlite/__init__.py"


class Mutant(NamedTuple):
    """In ``function`` (the whole module if empty), ``old``, which occurs once in it, becomes ``new``."""

    name: str
    test: str
    function: str
    old: str
    new: str

    def source(self) -> str:
        """The plugin's source with this fault."""
        source = SOURCE.read_text()
        start, end = 0, len(source)
        if self.function:
            [found] = re.finditer(
                rf"^( *)(async )?def {self.function}\(.*?(?=^\1(async )?def |^[^\s)]|\Z)", source, re.M | re.S
            )
            start, end = found.span()
        body = source[start:end]
        assert body.count(self.old) == 1, f"{self.name}: {body}"
        return source[:start] + body.replace(self.old, self.new) + source[end:]


KILLED = [
    # expiry
    Mutant("expired-is-live", "touch_with_expiry_that_is_over", "", 'OR expiry > ?)"\n#', 'OR ? > 0)"\n#'),
    Mutant("renewal-of-permanent", "get_renews_only_what_expires", "do_get", "if found[1] is not None:", "if True:"),
    Mutant("renewal-does-nothing", "days_count_as_days", "do_get", "_expire(", "str("),
    Mutant(
        "renewal-below-zero",
        "renewing_with_what_is_over_ends_the_entry",
        "do_get",
        "if renew > 0 else",
        "+ 2 * abs(renew) if renew else",
    ),
    Mutant("set-forgets-the-expiry", "get_with_expiry_gives_the_seconds_left", "do_set", "now + expiry", "None"),
    Mutant("set-ignores-keep-ttl", "keep_ttl_keeps_the_expiry", "do_set", "if keep_ttl and", "if keep_ttl is None and"),
    Mutant("set-always-keeps-ttl", "longer_expiry_replaces_a_shorter_one", "do_set", "if keep_ttl and", "if"),
    Mutant(
        "permanent-ends-at-once", "writes_to_one_key_leave_other_expiries", "do_expires_in", "return -1", "return 0"
    ),
    Mutant("expires-in-is-too-small", "expires_in_is_rounded_up", "do_expires_in", "- now", "// 1000 - now // 1000"),
    Mutant("missing-is-permanent", "missing_key_is_no_error", "do_expires_in", "return None", "return -1"),
    Mutant("expiry-as-a-moment", "get_with_expiry_gives_the_seconds_left", "do_get_with_expiry", "end - now", "end"),
    Mutant("set-many-forgets-the-expiry", "set_many_is_a_set_of_each", "do_set_many", "now + expiry", "None"),
    Mutant(
        "time-in-whole-seconds",
        "tiny_expiry_is_rounded_up",
        "_now",
        "time.time_ns() // 1_000_000",
        "int(time.time()) * 1000",
    ),
    Mutant(
        "the-live-are-swept",
        "delete_expired_drops_nothing_that_lives",
        "do_delete_expired",
        "expiry <= ?",
        "expiry > 0 * ?",
    ),
    # keys and values
    Mutant("value-never-changes", "get_with_expiry_gives_the_seconds_left", "_write", "OR REPLACE", "OR IGNORE"),
    Mutant("large-values-are-cut", "pop_removes_and_returns", "_write", "value, end)", "value[:65536], end)"),
    Mutant("delete-does-nothing", "delete_many", "_delete", "    _remove(database, where)\n", ""),
    Mutant("delete-always-counts", "missing_key_is_no_error", "_delete", "return found is not None", "return True"),
    Mutant(
        "exists-always", "other_expiry_types_are_errors", "do_exists", "return bool(", "return not bool(0) or bool("
    ),
    Mutant(
        "get-many-drops-the-empty",
        "get_many_returns_the_hits",
        "do_get_many",
        "if entry is not None}",
        "if entry and entry[0]}",
    ),
    Mutant("keys-without-case", "keys_lists_by_literal_prefix", "_where", "key.encode()", "key.lower().encode()"),
    Mutant("in-memory", "open_again", "_connect", "sqlite3.connect(path,", 'sqlite3.connect(":memory:",'),
    # namespaces and listing
    Mutant("paths-run-together", "delete_all_reaches_downwards_only", "_where", '":".join(path)', '"".join(path)'),
    Mutant("delete-all-of-siblings", "delete_all_spares_siblings", "", "path < ? || ';'", "path < ? || '~'"),
    Mutant(
        "delete-all-of-one-namespace", "walk_lists_what_delete_all_removes", "", "(path >= ? ||", "(0 AND path >= ? ||"
    ),
    Mutant(
        "delete-all-of-everything", "delete_all_of_nothing", "do_delete_all", "WHERE {BELOW}", "WHERE (1 OR {BELOW})"
    ),
    Mutant("delete-all-of-locks", "delete_all_spares_locks_and_leases", "do_delete_all", "NOT {SURVIVES}", "1"),
    Mutant(
        "walk-gives-whole-paths",
        "walk_lists_what_delete_all_removes",
        "do_walk",
        "below[len(path) :], key",
        "below, key",
    ),
    Mutant(
        "walk-of-one-namespace", "walk_lists_what_delete_all_removes", "do_walk", 'at = rows[0][0] + "\\0"', "return"
    ),
    Mutant(
        "keys-ignore-the-prefix", "keys_lists_by_literal_prefix", "do_keys", "start = prefix.encode()", 'start = b""'
    ),
    Mutant(
        "keys-of-the-first-page", "delete_all_of_many_keys", "do_keys", "if len(rows) < PAGE:", "if rows is not None:"
    ),
    Mutant(
        "keys-of-children", "namespaces_are_separate_for_every_operation", "do_keys", "path = ? AND", "path >= ? AND"
    ),
    Mutant("keys-of-the-expired", "tiny_expiry_is_rounded_up", "do_keys", "expiry > ?", "expiry > 0 * ?"),
    # atomic operations
    Mutant(
        "add-overwrites",
        "add_stores_only_what_is_missing",
        "do_add",
        "is not None:\n                return False",
        "is not None:\n                pass",
    ),
    Mutant("touch-of-the-missing", "touch_sets_the_expiry", "do_touch", "return False", "return True"),
    Mutant("touch-keeps-the-expiry", "touch_sets_the_expiry", "do_touch", "_expire(", "str("),
    Mutant(
        "touch-with-none-ends-it",
        "touch_sets_the_expiry",
        "do_touch",
        "None if expiry is None else now + max(0, expiry)",
        "now + (expiry or 0)",
    ),
    Mutant("pop-leaves-the-value", "pop_is_atomic", "do_pop", "_remove(database, where)", "str(database)"),
    Mutant("increment-by-one", "increment_counts", "do_increment", "else found[0], by)", "else found[0], 1)"),
    Mutant(
        "increment-drops-the-expiry",
        "increment_sets_expiry_only_on_creation",
        "do_increment",
        "number, found[1])",
        "number, None)",
    ),
    Mutant(
        "increment-renews",
        "increment_sets_expiry_only_on_creation",
        "do_increment",
        "number, found[1])",
        "number, expiry and now + expiry)",
    ),
    Mutant(
        "increment-creates-permanent", "increment_sets_expiry_only_on_creation", "do_increment", "now + expiry", "None"
    ),
    Mutant(
        "compare-sees-only-the-missing",
        "replace_compares_and_sets",
        "do_compare_and_set",
        "!= old:",
        "is None and old:",
    ),
    Mutant(
        "compare-with-missing-matches",
        "replace_compares_and_sets",
        "do_compare_and_set",
        "!= old:",
        "!= (old or found and found[0]):",
    ),
    Mutant(
        "compare-and-delete-keeps",
        "replace_compares_and_sets",
        "do_compare_and_set",
        "_remove(database, where)",
        "pass",
    ),
    Mutant(
        "compare-ignores-keep-ttl",
        "replace_and_expiry",
        "do_compare_and_set",
        "elif keep_ttl:",
        "elif keep_ttl is None:",
    ),
    # transactions, cancellation, the event loop and processes
    Mutant(
        "transactions-that-read-first",
        "shared_atomic_operations_between_processes",
        "_in_transaction",
        "BEGIN IMMEDIATE",
        "BEGIN",
    ),
    Mutant(
        "no-transactions",
        "shared_atomic_operations_between_processes",
        "_in_transaction",
        'database.execute("BEGIN IMMEDIATE")',
        "return work(database, _now())",
    ),
    Mutant(
        "cancellation-is-swallowed",
        "cancelled_calls_end_cancelled",
        "_in_thread",
        "        except (sqlite3",
        "        except asyncio.CancelledError:\n            return None\n        except (sqlite3",
    ),
    Mutant(
        "delete-all-blocks-the-loop",
        "listing_and_emptying_let_others_run",
        "do_delete_all",
        'name = ":"',
        'time.sleep(0.3)\n        name = ":"',
    ),
    Mutant(
        "parents-connection",
        "fork_of_an_open_store",
        "do_open",
        "self._thread = Thread",
        "if inherited := getattr(self, '_inherited', None):\n"
        "            self._thread, self._database = ThreadPoolExecutor(1), inherited[0]\n"
        "            return\n        self._thread = Thread",
    ),
]

SURVIVING = [
    # Its first page ends with the key with which the second begins: "at least once" allows that.
    Mutant(
        "keys-twice", "delete_all_of_many_keys", "do_keys", 'start, after = rows[-1][0], ">"', "start = rows[-1][0]"
    ),
    # What is stored has expired already, so nobody can see it.
    Mutant(
        "add-of-the-expired", "add_with_expiry_that_is_over", "do_add", "if expiry is None or expiry > 0:", "if True:"
    ),
    # A call may keep the event loop for a moment; what takes longer must not, and these calls are short.
    Mutant(
        "work-in-the-loop",
        "listing_and_emptying_let_others_run",
        "_in_thread",
        "await asyncio.get_running_loop().run_in_executor(self._thread, work)",
        "work()",
    ),
    # The executor ends its thread when nobody holds it any longer.
    Mutant("close-leaves-the-thread", "open_again", "do_close", "thread.shutdown(wait=False)", "str(thread)"),
]
"""Mutants that keep every promise; above each, why they do."""


def passes(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> bool:
    module = ModuleType(f"mutant_{mutant.name.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(mutant.source(), str(SOURCE), "exec"), module.__dict__)

    class Suite(StoreConformance):
        threads = False
        time_limit = 5

        def make_store(self) -> Store:
            store: Store = module.SqliteStore(self.directory / "data.sqlite")
            return store

    return run_conformance(Suite, only=[f"test_{mutant.test}"], output=None).ok


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("mutant", KILLED, ids=lambda mutant: mutant.name)
def test_a_mutant_is_killed(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whether processes meet is a matter of luck, which a busy machine can lack once.
    tries = 3 if mutant.test.endswith("between_processes") else 1
    assert not all(passes(mutant, monkeypatch) for _ in range(tries))


@pytest.mark.parametrize("mutant", SURVIVING, ids=lambda mutant: mutant.name)
def test_a_mutant_that_keeps_every_promise_survives(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    assert passes(mutant, monkeypatch)


@pytest.mark.parametrize("test", sorted({mutant.test for mutant in KILLED}))
def test_the_plugin_itself_passes(test: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests above would prove nothing."""
    assert passes(Mutant("none", test, "", "PAGE = 500\n", "PAGE = 500  # as it is\n"), monkeypatch)
