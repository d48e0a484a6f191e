"""Durations and sizes as people write them. Imports nothing of storeconf."""

from __future__ import annotations

import re
from datetime import timedelta

__all__ = ["parse_duration", "parse_size"]
