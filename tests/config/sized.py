"""Layouts of one memory store, which differ in its size."""

from __future__ import annotations

from typing import Any

MEMORY = "stores: {a: {type: memory}}\n"


def size(assembly_tree: dict[str, Any], name: str = "a") -> Any:
    return assembly_tree["stores"][name].get("max_entries")


def sized(number: int, more: str = "") -> str:
    return f"{more}\nstores: {{a: {{type: memory, max_entries: {number}}}}}\n"
