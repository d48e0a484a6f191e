"""The pause between attempts: it grows, it is capped, and no number of failures breaks it."""

from __future__ import annotations

import random

import pytest

from storeconf._pace import backoff


def test_the_pause_doubles_up_to_its_cap() -> None:
    pauses = [backoff(failures, first=0.01, longest=1.0, jitter=0) for failures in range(10)]
    assert pauses == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("failures", [63, 64, 1023, 1024, 1025, 10**6, 10**20])
@pytest.mark.parametrize("first", [1e-6, 0.01, 86_400.0])
def test_any_number_of_failures_gives_the_cap(failures: int, first: float) -> None:
    assert backoff(failures, first=first, longest=90_000.0, jitter=0) == 90_000.0


@pytest.mark.parametrize(("jitter", "least"), [(0.5, 0.5), (1.0, 0.0)])
def test_the_random_share_stays_within_its_bounds(jitter: float, least: float) -> None:
    random.seed(1)
    pauses = [backoff(20, first=0.01, longest=1.0, jitter=jitter) for _ in range(1000)]
    assert least <= min(pauses) < least + 0.05
    assert 0.95 < max(pauses) <= 1.0
