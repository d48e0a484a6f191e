"""The answer of code that looks at a text without knowing where in a layout it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storeconf.config.tree import TreePath

__all__ = ["Fault"]


class Fault(Exception):  # noqa: N818 - an answer, which whoever asked makes a diagnostic
    """Something is wrong with a value; whoever knows where the value stands reports it.

    ``span`` is the part of a text that is meant, ``path`` the place in the layout that a name leads to as far as it
    fits. ``absent``: there is no value, so that a default can stand in.
    """

    def __init__(
        self,
        code: str,
        reason: str,
        hint: str | None = None,
        *,
        span: tuple[int, int] = (0, 0),
        path: TreePath = (),
        absent: bool = False,
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.hint = hint
        self.span = span
        self.path = path
        self.absent = absent
