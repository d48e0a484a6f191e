"""The conformance suite and other help for those who test stores and applications."""

from __future__ import annotations

from storeconf.testing.conformance import StoreConformance
from storeconf.testing.memory import Clock, memory_registry
from storeconf.testing.report import Outcome, Report, run_conformance

__all__ = ["Clock", "Outcome", "Report", "StoreConformance", "memory_registry", "run_conformance"]
