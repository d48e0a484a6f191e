"""Pydantic's errors, and what is wrong with a value, in plain words.

Neither values nor Pydantic's own terms appear in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, get_args

from pydantic_core.core_schema import ErrorType

from storeconf.config.fields import ANY, WORDS, fields_of
from storeconf.plugin import EXCLUSIVE_FIELDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_core import ErrorDetails

    from storeconf.config.fields import Expect, Fields

__all__ = ["Fault", "Spot", "fault_of", "kind_of", "spot_of"]


def kind_of(value: object) -> str:
    """What a value is, in the words of this module's messages."""
    for each, words in WORDS.items():
        if type(value) is each:
            return words if each is not bool else str(value).lower()
    return WORDS[str] if isinstance(value, str) else "null" if value is None else f"a {type(value).__name__}"


@dataclass(frozen=True, slots=True)
class Fault:
    """A Pydantic error in plain words: ``text`` goes behind the field's name unless ``whole``."""

    code: str
    text: str
    hint: str | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Spot:
    """Where an error is: the keys and indices from the model to it, what is expected there, whose field it is."""

    trail: tuple[int | str, ...]
    expect: Expect
    holder: Fields


def spot_of(fields: Fields, values: object, location: Sequence[int | str]) -> Spot | None:
    """Take the tags of unions' members out of a location of Pydantic's; None when ``values`` can't mean that member."""
    trail: list[int | str] = []
    holder = fields
    here: Fields | None = fields
    expect = ANY
    steps = iter(location)
    for step in steps:
        trail.append(step)
        values = _inner(values, step)
        if here is None:
            expect = expect.inside(step) or ANY
        else:
            holder, expect = here, here.expects.get(str(step), ANY)
        tag = next(steps, None) if expect.union else None
        meant = expect.model is None or (expect.model.__name__ in str(tag)) == isinstance(values, dict)
        if tag is not None and not meant:
            return None
        here = None if expect.model is None else fields_of(expect.model)
    return Spot(tuple(trail), expect, holder)


def _inner(values: object, step: int | str) -> object:
    if isinstance(values, dict):
        return values.get(step)
    if isinstance(values, list) and isinstance(step, int) and step < len(values):
        return values[step]
    return None


_OWN_ERRORS: Final = frozenset(get_args(ErrorType))
"""Pydantic's own kinds of errors; any other is a model's, in its own words."""

_BOUNDS: Final = {
    "greater_than": ("must be greater than {}", "gt"),
    "greater_than_equal": ("must be at least {}", "ge"),
    "less_than": ("must be less than {}", "lt"),
    "less_than_equal": ("must be at most {}", "le"),
    "multiple_of": ("must be a multiple of {}", "multiple_of"),
    "string_too_short": ("must have at least {} characters", "min_length"),
    "string_too_long": ("must have at most {} characters", "max_length"),
    "string_pattern_mismatch": ("must match the pattern {}", "pattern"),
    "too_short": ("must have at least {} items", "min_length"),
    "too_long": ("must have at most {} items", "max_length"),
    "finite_number": ("must be finite{}", None),
}


def fault_of(error: ErrorDetails, expect: Expect) -> Fault:
    """Put one of Pydantic's errors into plain words. Neither the value nor Pydantic's own terms appear in them."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return Fault("SC502", "is missing")
    if kind in _BOUNDS:
        text, name = _BOUNDS[kind]
        bound = context[name] if name else ""
        if name == "min_length" and bound == 1:
            return Fault("SC504", "must not be empty")
        return Fault("SC504", text.format(bound))
    if kind == "int_parsing_size":
        return Fault("SC504", "is too large a number")
    if kind == "string_unicode":
        return Fault("SC504", "must be encodable as UTF-8")
    if kind in ("value_error", "assertion_error"):
        text, _, hint = str(context["error"]).partition("; ")
        return Fault("SC504", text, hint or None, whole=True)
    if expect.choices and (kind in ("literal_error", "enum") or expect.union):
        return Fault("SC504", f"must be {expect.what}")
    if kind.endswith(("_type", "_parsing", "_instance_of")) or kind in ("int_from_float", "path_type"):
        return Fault("SC503", f"must be {expect.what}")
    if kind not in _OWN_ERRORS:
        text, _, hint = error["msg"].partition("; ")
        return Fault("SC510" if kind == EXCLUSIVE_FIELDS else "SC504", text, hint or None, whole=True)
    return Fault("SC504", error["msg"].removeprefix("Input ").replace("should be", "must be"))
