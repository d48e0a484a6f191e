"""The built-in backends: the settings of each kind of store, and how to build it.

Here is ``memory``, the settings of a store that lives in this process: names that are not listed have one, so
every registry needs it. The others are loaded where a layout names them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from storeconf.operations import Capabilities
from storeconf.plugin import Backend, Size

if TYPE_CHECKING:
    from collections.abc import Callable

    from storeconf.plugin import BuildContext
    from storeconf.store import Store
    from storeconf.stores.memory import MemoryStore


__all__ = ["MemoryBackend"]


class MemoryBackend(Backend):
    """Keeps everything in a dict of this process: nothing is shared, nothing outlives the process."""

    capabilities: ClassVar[Capabilities] = Capabilities(atomic=Capabilities.ALL_ATOMIC)

    type: Literal["memory"] = Field(
        default="memory", description="Keep the entries in this process.", examples=["memory"]
    )
    max_entries: int | None = Field(
        default=None,
        gt=0,
        description=(
            "The most entries that the store and all its namespaces hold together; beyond it, expired entries go "
            "first, then the least recently used. No bound when absent."
        ),
        examples=[10_000],
    )
    max_size: Annotated[Size, Field(gt=0)] | None = Field(
        default=None,
        description=(
            "The most that keys and values of the store and all its namespaces may add up to; beyond it, expired "
            "entries go first, then the least recently used. No bound when absent."
        ),
        examples=["64MiB"],
    )
    objects: bool = Field(
        default=False,
        description="Keep any Python object as it is, uncopied, not bytes; excludes max_size, compress and encrypt.",
        examples=[True],
    )

    @field_validator("objects")
    @classmethod
    def _objects_have_no_size(cls, objects: bool, info: ValidationInfo) -> bool:
        if objects and info.data.get("max_size") is not None:
            raise ValueError("objects have no size in bytes: bound the store by max_entries instead of max_size")
        return objects

    def keeps_objects(self) -> bool:
        """Whether `objects` is on."""
        return self.objects

    def adopt(
        self, root: Store, context: BuildContext, before: Backend, context_before: BuildContext
    ) -> Callable[[], None] | None:
        """Give the store other bounds; but bytes do not become objects."""
        if self == before:
            return super().adopt(root, context, before, context_before)
        from storeconf.stores.memory import MemoryStore

        if not isinstance(root, MemoryStore) or self.keeps_objects() != before.keeps_objects():
            return None
        return partial(root.set_bounds, self.max_entries, self.max_size)

    def build(self, context: BuildContext) -> MemoryStore:
        """Make an empty store."""
        from storeconf.stores.memory import MemoryStore

        return MemoryStore(max_entries=self.max_entries, max_size=self.max_size, objects=self.objects)
