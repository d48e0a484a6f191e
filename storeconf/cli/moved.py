"""What a move has done, told to people or programs when it ends, however it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from storeconf.cli.output import counted, emit_json, message, where
from storeconf.cli.report import error

if TYPE_CHECKING:
    from storeconf.transfer.endpoint import End, Place
    from storeconf.transfer.transfer import Tally

__all__ = ["Report"]


@dataclass
class Report:
    """What is told of a move.

    ``verbs``: what was done with entries, and with those passed over. ``again``: what to know of one that ended early.
    """

    command: str
    ends: tuple[End, ...]
    tally: Tally
    verbs: tuple[str, str]
    about: str
    again: str
    more: dict[str, Any] = field(default_factory=dict)
    form: str = "text"

    @property
    def environment(self) -> str | None:
        """What errors name first: the environment, or both."""
        names = list(dict.fromkeys(end.layout.environment for end in self.ends))
        return names[0] if len(names) == 1 else " → ".join(where(end.layout) for end in self.ends)

    def tell(self, *, complete: bool) -> None:
        """Print the failures, as far as they are kept, and the sums."""
        tally = self.tally
        for place, why in tally.failures:
            error(self._failure(place, why), self.environment)
        if tally.untold:
            error(f"{tally.untold:,} more failed", self.environment)
        if self.form == "json":
            emit_json({"environment": self.ends[-1].layout.environment, self.command: self._document(complete)})
        else:
            message(f"{self.environment or where(self.ends[0].layout)}: {self._sums(complete)}")

    def _failure(self, place: Place | None, why: str) -> str:
        if place is None:
            return why
        names, key = place
        return f"{key!r} in {self.ends[0].called(names)!r}: {why}"

    def _sums(self, complete: bool) -> str:
        tally, (done, passed) = self.tally, self.verbs
        sums = [f"{done} {counted(tally.copied, 'key')} {self.about}"]
        if tally.existing:
            sums.append(f"{passed} {tally.existing:,} existing")
        if tally.gone:
            sums.append(f"{tally.gone:,} expired meanwhile")
        if tally.failed:
            sums.append(f"{tally.failed:,} failed")
        return ", ".join(sums) + ("" if complete else f"; it ended early: {self.again}")

    def _document(self, complete: bool) -> dict[str, Any]:
        tally = self.tally
        return {
            **self.more,
            "complete": complete,
            "copied": tally.copied,
            "existing": tally.existing,
            "expired": tally.gone,
            "failed": tally.failed,
            "failures": [
                {
                    "namespaces": None if place is None else list(place[0]),
                    "key": None if place is None else place[1],
                    "error": why,
                }
                for place, why in tally.failures
            ],
        }
