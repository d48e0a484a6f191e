"""The source of an adapter's stores: a layout, or a registry."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeAlias

from storeconf.registry import StoreRegistry, load

__all__ = ["Source", "registry_from"]

Source: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | StoreRegistry | None
"""A source of `storeconf.load`, or an existing registry."""


def registry_from(source: Source, environment: str | None) -> StoreRegistry:
    """Return the registry of a layout, or the given one."""
    if not isinstance(source, StoreRegistry):
        return load(source, environment=environment)
    if environment is not None:
        raise ValueError("environment applies to a layout; a registry is already loaded")
    return source
