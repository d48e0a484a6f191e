"""What every adapter accepts as the description of its stores."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeAlias

from storeconf.registry import StoreRegistry, load

__all__ = ["Source", "registry_from"]

Source: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | StoreRegistry | None
"""What `storeconf.load` takes, or a registry that is there already."""


def registry_from(source: Source, environment: str | None) -> StoreRegistry:
    """Return the registry of a layout, or the given one."""
    if not isinstance(source, StoreRegistry):
        return load(source, environment=environment)
    if environment is not None:
        raise ValueError("give an environment with a layout; a registry has been made for one already")
    return source
