"""The conformance suite and other help for those who test stores and applications."""

from __future__ import annotations

from storeconf.testing.conformance import Outcome, Report, StoreConformance, run_conformance
from storeconf.testing.memory import Clock, memory_registry

__all__ = ["Clock", "Outcome", "Report", "StoreConformance", "memory_registry", "run_conformance"]
