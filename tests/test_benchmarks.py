"""The table of `make bench`: what counts as a goal that is missed, and what the table shows of it."""

from __future__ import annotations

import importlib

import pytest

from benchmarks._harness import Spread
from benchmarks.goals import Chapter, Row


@pytest.mark.parametrize(
    ("figures", "goal", "at_least", "missed"),
    [
        ([1.0, 2.0, 3.0, 4.0, 5.0], 3.9, True, False),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 4.1, True, True),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 2.1, False, False),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 1.9, False, True),
        ([15.0], 15, False, False),
        ([16.0], 15, False, True),
        ([0.5], 0.9, True, True),
    ],
)
def test_a_goal_is_missed_that_the_middle_half_does_not_reach(
    figures: list[float], goal: float, at_least: bool, missed: bool
) -> None:
    assert Row("it", "that", goal, "x", at_least, figures).missed is missed


def test_the_spread_is_that_of_the_rounds_in_whatever_order() -> None:
    assert Spread.of([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(2.0, 3.0, 4.0, 5)


def test_the_table_has_a_row_for_each_goal() -> None:
    table = importlib.import_module("benchmarks.__main__").table
    chapter = Chapter(quick=True)
    chapter.at_least("get", "Litestar", 30, [31.0, 32.0, 33.0])
    chapter.at_most("an entry", "", 375, [400.0], "bytes")
    head, rule, first, second = table(chapter.rows).splitlines()
    assert len({len(line) for line in (head, rule, first, second)}) == 1
    assert [cell.strip() for cell in first.strip("|").split("|")] == [
        *("get", "Litestar", "at least 30 x", "32", "31.5 to 32.5", "3", "")
    ]
    assert [cell.strip() for cell in second.strip("|").split("|")] == [
        *("an entry", "", "at most 375 bytes", "400", "", "1", "missed")
    ]
