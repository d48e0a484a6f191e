"""The conformance suite and other help for those who test stores and applications."""

from __future__ import annotations

from storeconf.testing.conformance import StoreConformance
from storeconf.testing.report import Outcome, Report, run_conformance

__all__ = ["Outcome", "Report", "StoreConformance", "run_conformance"]
