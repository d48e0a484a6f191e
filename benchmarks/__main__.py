"""All benchmarks, one after the other, each in a process of its own: ``python -m benchmarks``, or ``make bench``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ALL = ("memory", "file", "servers", "middleware", "above", "django_cache", "loading", "frameworks")

for name in ALL:
    print(f"\n===== {name}", flush=True)
    subprocess.run([sys.executable, str(Path(__file__).parent / f"{name}.py")], check=True)
