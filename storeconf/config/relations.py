"""What only all stores together can get wrong: unknown names, circles, and stores that would share their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from storeconf.config.fields import fields_of
from storeconf.config.kinship import Kinship, leads_to
from storeconf.config.needs import check_needs
from storeconf.config.specs import AliasSpec, ChildSpec, RootSpec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from storeconf._location import Note
    from storeconf.config.reporter import Problems
    from storeconf.config.specs import Links, StoreSpec
    from storeconf.config.tree import TreePath
    from storeconf.config.validate import Validated
    from storeconf.plugin import Backend

__all__ = ["check_structure"]

FACTORY: Final[TreePath] = ("default_factory",)


def check_structure(validated: Validated, declared: Collection[str], problems: Problems) -> None:
    """Check the references between stores and where their keys lie. ``declared`` holds also the stores in error."""
    kinship = Kinship(validated.stores, declared, validated.unknown, problems)
    _Structure(validated, kinship, problems).check()
    check_needs(kinship, validated.default_factory, problems)


class _Structure:
    def __init__(self, validated: Validated, kinship: Kinship, problems: Problems) -> None:
        self._validated = validated
        self._stores: Mapping[str, StoreSpec] = validated.stores
        self._kinship = kinship
        self._problems = problems

    def check(self) -> None:
        for name, spec in self._stores.items():
            if isinstance(spec, ChildSpec):
                self._kinship.check_known(spec.parent, ("stores", name, "parent"))
            elif isinstance(spec, AliasSpec):
                self._kinship.check_known(spec.use, ("stores", name, "use"))
        factory = self._validated.default_factory
        if factory is not None and factory.parent is not None:
            self._kinship.check_known(factory.parent, (*FACTORY, "parent"))
        if factory is not None and factory.use is not None:
            self._kinship.check_known(factory.use, (*FACTORY, "use"))
        self._circles()
        self._namespaces()
        self._locations()
        self._objects()

    # ------------------------------------------------------------------ circles

    def _circles(self) -> None:
        """Every store leads to at most one other, so each walk ends at a root, at a known end, or in a circle."""
        done: set[str] = set()
        for start in self._stores:
            trail: dict[str, None] = {}
            name: str | None = start
            while name is not None and name not in done and name not in trail:
                trail[name] = None
                name = leads_to(self._stores.get(name))
            if name is not None and name in trail:
                steps = list(trail)
                self._circle(steps[steps.index(name) :])
            if name is not None and (name in trail or name in self._kinship.circular):
                self._kinship.circular.update(trail)
            done.update(trail)

    def _circle(self, names: list[str]) -> None:
        notes = []
        for name in names:
            field = "use" if isinstance(self._stores[name], AliasSpec) else "parent"
            verb = "uses" if field == "use" else "has parent"
            other = leads_to(self._stores[name])
            notes.append(self._problems.note(f"{name!r} {verb} {other!r}", ("stores", name, field)))
        first = names[0]
        field = "use" if isinstance(self._stores[first], AliasSpec) else "parent"
        text = f"stores lead in a circle: {' -> '.join([*names, first])}"
        self._problems.add("SC602", text, ("stores", first, field), notes=notes, hint="one of them must be a root")

    # ------------------------------------------------------------------ shared keys

    def _namespaces(self) -> None:
        taken: dict[tuple[str, str], str] = {}
        for name, spec in self._stores.items():
            if not isinstance(spec, ChildSpec):
                continue
            target = self._kinship.target(spec.parent)
            first = taken.setdefault((target, spec.namespace), name)
            if first is not name:
                text = f"{first!r} and {name!r} are the same namespace {spec.namespace!r} of {target!r}"
                self._problems.add(
                    "SC603", f"{text}, so they would share their keys", ("stores", name, "namespace"), key=True,
                    notes=[self._problems.note(f"{first!r} is declared here", ("stores", first), key=True)],
                    hint=f"if they should, write {name}: {{use: {first}}}; if not, give one of them another namespace",
                )  # fmt: skip
            self._kinship.check_divisible(target, ("stores", name, "parent"))
        factory = self._validated.default_factory
        if factory is not None and factory.parent is not None:
            self._kinship.check_divisible(self._kinship.target(factory.parent), (*FACTORY, "parent"))

    def _locations(self) -> None:
        """Sorted, everything that lies in a place follows that place. Two roots collide once, in however many."""
        places: list[tuple[tuple[str, ...], int, TreePath, str]] = []
        for name, spec in self._stores.items():
            if isinstance(spec, RootSpec) and name not in self._validated.vague:
                self._locate(places, spec.backend, ("stores", name), repr(name))
        factory = self._validated.default_factory
        if factory is not None and factory.backend is not None:
            self._locate(places, factory.backend, FACTORY, "default_factory")
        places.sort()
        outer = None
        reported = set()
        for place in places:
            if outer is None or place[0][: len(outer[0])] != outer[0]:
                outer = place
                continue
            pair = frozenset((outer[1], place[1]))
            if len(pair) == 1 or pair in reported:
                continue
            reported.add(pair)
            first, second = (outer, place) if outer[1] < place[1] else (place, outer)
            inside = "keep their keys in the same place" if outer[0] == place[0] else "would share keys"
            if outer[0] != place[0]:
                inside = f"would share keys: {place[3]} lies in {outer[3]}"
            kind = "parent" if second[2] == FACTORY else "use"  # the default factory is looked at last
            use = f"write {second[2][-1]}: {{{kind}: {first[2][-1]}}}"
            self._problems.add(
                "SC604", f"{first[3]} and {second[3]} {inside}", second[2], key=True,
                notes=[
                    self._problems.note(f"{first[3]} is declared here", first[2], key=True),
                    *(note for _, _, path, name in (first, second) for note in self._said_elsewhere(path, name)),
                ],
                hint=f"if they should be one store, {use}; if not, give one of them another place or namespace",
                lacking=True,
            )  # fmt: skip

    def _locate(
        self, places: list[tuple[tuple[str, ...], int, TreePath, str]], backend: Backend, path: TreePath, shown: str
    ) -> None:
        try:
            locations, warnings = backend.locations(), backend.warnings()
        except Exception as error:  # noqa: BLE001  # a plugin's own code may fail in any way; reading must not
            text = f"{type(backend).__name__} could not tell where it keeps its keys: {type(error).__name__}: {error}"
            self._problems.add("SC708", text, path, key=True, hint="tell the plugin's author")
            return
        number = places[-1][1] + 1 if places else 0
        places += ((tuple(map(str, location)), number, path, shown) for location in locations)
        for field, message in warnings:
            self._problems.add("SC801", message, (*path, *field.split(".")), severity="warning")

    def _said_elsewhere(self, path: TreePath, shown: str) -> Iterator[Note]:
        """What decides on a root's place and comes from another layer than the root itself."""
        spec = self._validated.default_factory if path == FACTORY else self._stores[str(path[-1])]
        backend: Backend | None = getattr(spec, "backend", None)
        if backend is None:
            return
        fields = fields_of(type(backend))
        home = self._problems.place(path, key=True)
        deciding = {"namespace"}.union(*backend.exclusive_groups)
        for name, expect in fields.expects.items():
            if fields.attributes[name] in backend.model_fields_set and (expect.path or name in deciding):
                there = self._problems.place((*path, name))
                if any(there.get(key) != home.get(key) for key in ("layer", "file", "variable")):
                    yield self._problems.note(f"{shown} has its {name} from here", (*path, name))

    # ------------------------------------------------------------------ objects

    def _objects(self) -> None:
        """A chain is inherited within one root only, so it is enough to look where a kind is named."""
        for name, spec in self._stores.items():
            if not isinstance(spec, AliasSpec) and spec.middleware and name not in self._kinship.circular:
                place = self._kinship.place(name)
                self._bytes_only(spec.middleware, place and place[0], ("stores", name))
        factory = self._validated.default_factory
        if factory is not None and factory.middleware:
            place = None if factory.parent is None else self._kinship.place(factory.parent)
            self._bytes_only(factory.middleware, place and place[0], FACTORY, factory.backend)

    def _bytes_only(self, links: Links, root: str | None, path: TreePath, backend: Backend | None = None) -> None:
        """Report middleware, named at ``path``, that can't be around the root's store or that of ``backend``."""
        spec = None if root is None else self._stores.get(root)
        backend = spec.backend if isinstance(spec, RootSpec) else backend
        if backend is None or not backend.keeps_objects():
            return
        for kind, link in links.items():
            if link and link.requires_bytes:
                keeper = repr(root) if root is not None else "default_factory"
                keeping = path if root is None else ("stores", root)
                text = f"{kind} works on bytes, and {keeper} keeps objects"
                self._problems.add(
                    "SC607", text, (*path, "middleware", kind), key=True,
                    notes=[self._problems.note(f"{keeper} keeps objects", (*keeping, "objects"))],
                    hint=f"leave {kind} out, or let {keeper} keep bytes",
                )  # fmt: skip
