"""Every store of ours is one of Litestar's too, for type checkers and for ``isinstance``; nobody needs Litestar for it.

Has nothing at run time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Where Litestar is not installed, a star import from it adds nothing, and `object` remains; a plain import
    # would make the base Any, and with it every misspelt method right. Where it is installed, both add the same name,
    # of which mypy keeps the first and pyright the last: hence Litestar on both sides.
    # isort: off
    from litestar.stores.base import *  # noqa: F403
    from builtins import object as NamespacedStore  # type: ignore[assignment]  # noqa: F401, N812
    from litestar.stores.base import *  # noqa: F403
    # isort: on
