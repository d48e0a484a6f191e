"""The conformance suite: every promise that storeconf makes of a store, as tests that a plugin's author inherits."""

from __future__ import annotations

from typing import ClassVar

from storeconf.testing._atomic import Atomic
from storeconf.testing._bulk import Bulk
from storeconf.testing._concurrency import Concurrency
from storeconf.testing._expiry import Expiry
from storeconf.testing._flight import SingleFlight
from storeconf.testing._lifecycle import OpeningAndClosing
from storeconf.testing._namespaces import Namespaces
from storeconf.testing._sharing import Sharing
from storeconf.testing._values import Values

__all__ = ["StoreConformance"]


class StoreConformance(Values, Expiry, Namespaces, Bulk, Atomic, SingleFlight, Concurrency, OpeningAndClosing, Sharing):
    """Every promise that a store makes, as ``test_*`` methods.

    Subclass it and override `make_store`::

        class TestSqliteStore(StoreConformance):
            def make_store(self):
                return SqliteStore(self.directory / "data.sqlite")

    The tests are plain methods without parameters, which pytest finds in a subclass of this, and which
    `run_conformance` runs without pytest. The store is held to the capabilities that it declares: what it does
    not declare must raise UnsupportedOperationError, and what it does must be atomic, shared or persistent.
    """

    model_examples: ClassVar[int] = 40
    """How many random histories `test_stateful_model` tries."""

    model_steps: ClassVar[int] = 40
    """How many steps each of them has at most."""

    def test_stateful_model(self) -> None:
        """Random histories of all operations end as a dict with a clock would; needs hypothesis."""
        from storeconf.testing.stateful import check_model

        check_model(self, max_examples=self.model_examples, steps=self.model_steps)
