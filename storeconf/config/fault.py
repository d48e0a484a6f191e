"""The error of code that examines a text without knowing its location in a layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storeconf.config.tree import TreePath

__all__ = ["Fault"]


class Fault(Exception):  # noqa: N818 - callers turn it into a diagnostic
    """A problem of a value, which the caller, who knows the location of the value, reports.

    ``span`` is the invalid part of the text, ``path`` the longest part of a path that exists. ``absent``: the value
    does not exist, so a default applies.
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
