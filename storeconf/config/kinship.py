"""How the stores of one layout are related: who leads to whom, and where in which root each keeps its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from storeconf.config.reporter import MOST_SOUGHT
from storeconf.config.specs import AliasSpec, ChildSpec, RootSpec
from storeconf.config.tree import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from storeconf.config.reporter import Problems
    from storeconf.config.specs import StoreSpec
    from storeconf.config.tree import TreePath
    from storeconf.plugin import Backend

__all__ = ["Kinship", "Place", "leads_to"]

Place = tuple[str, tuple[str, ...]]
"""A root's name, and the names of a namespace path in it."""

_MOST_NAMES: Final = 10


def leads_to(spec: StoreSpec | None) -> str | None:
    """The store that a store refers to by its kind, None for a root."""
    if isinstance(spec, ChildSpec):
        return spec.parent
    return spec.use if isinstance(spec, AliasSpec) else None


class Kinship:
    """Answers questions about the stores; those in error are only ``declared``, ``circular`` ones lead in a circle.

    ``unknown`` are placeholders for names.
    """

    def __init__(
        self,
        stores: Mapping[str, StoreSpec],
        declared: Collection[str],
        unknown: Collection[str],
        problems: Problems,
    ) -> None:
        self.stores = stores
        self.circular: set[str] = set()
        self._declared = declared
        self._unknown = unknown
        self._problems = problems
        self._places: dict[str, Place | None] = {}
        self._near: dict[str, str | None] = {}

    def check_known(self, name: str, path: TreePath) -> None:
        """Report a reference, which stands at ``path``, to a store that nobody declares."""
        if name in self._declared or name in self._unknown:
            return
        text = f"there is no store {name!r}"
        if name not in self._near:
            self._near[name] = nearest(name, self._declared) if len(self._near) < MOST_SOUGHT else None
        near = self._near[name]
        if near is not None:
            note = self._problems.note(f"{near!r} is declared here", ("stores", near), key=True)
            self._problems.add("SC601", text, path, hint=f"did you mean {near!r}?", notes=[note], lacking=True)
        elif self._declared:
            names = list(self._declared)
            more = ", …" if len(names) > _MOST_NAMES else ""
            self._problems.add(
                "SC601", text, path, hint=f"declared are: {', '.join(names[:_MOST_NAMES])}{more}", lacking=True
            )
        else:
            self._problems.add("SC601", text, path, hint="the layout declares no stores", lacking=True)

    def check_divisible(self, name: str, path: TreePath) -> None:
        """Report the use, at ``path``, of namespaces of a root that keeps raw keys."""
        root = self.stores.get(name)
        if isinstance(root, RootSpec) and _keeps_raw_keys(root.backend):
            self._problems.add(
                "SC605", f"{name!r} has no namespace of its own, so it can't have namespaces below it", path,
                notes=[self._problems.note(f"{name!r} is declared here", ("stores", name), key=True)],
                hint=f"give {name!r} a namespace",
            )  # fmt: skip

    def target(self, name: str) -> str:
        """The store that a name stands for, through aliases."""
        spec = self.stores.get(name)
        while isinstance(spec, AliasSpec) and name not in self.circular:
            name = spec.use
            spec = self.stores.get(name)
        return name

    def place(self, name: str) -> Place | None:
        """Where a store keeps its keys; None when that can't be known."""
        line: list[str] = []
        here: str | None = name
        while here is not None and here not in self._places and here not in self.circular:
            line.append(here)
            here = leads_to(self.stores.get(here))
        place = None if here is None else self._places.get(here)
        for each in reversed(line):
            spec = self.stores.get(each)
            if isinstance(spec, RootSpec):
                place = (each, (spec.backend.namespace,) if spec.backend.namespace else ())
            elif spec is None:
                place = None
            elif isinstance(spec, ChildSpec) and place is not None:
                place = (place[0], (*place[1], spec.namespace))
            self._places[each] = place
        return place


def _keeps_raw_keys(backend: Backend) -> bool:
    """Whether a root without namespace has nothing that could separate its namespaces' keys from its own."""
    return backend.namespace == "" and type(backend).model_fields["namespace"].is_required()
