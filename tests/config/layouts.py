"""Random layouts, and every way to break one: what to do to it, and which node is then in error."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.config.documents import Path

__all__ = ["Break", "breaks_of", "broken", "layouts"]

TEXTS = st.sampled_from(["a text", "no", "12:30", "é", "[x]", "- y", "#"])
DURATIONS = st.sampled_from(["90s", "1h30m", 3600, 0.5, "PT15M"])
SIZES = st.sampled_from(["64KiB", 1000, "10MB"])
TLS = st.fixed_dictionaries({}, optional={"verify": st.sampled_from(["full", "chain"]), "ca_file": TEXTS})

OPTIONAL: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "memory": {"max_entries": st.integers(1, 10**6), "max_size": SIZES, "description": TEXTS},
    "file": {
        "create": st.booleans(),
        "durability": st.sampled_from(["flush", "fsync"]),
        "mode": st.sampled_from(["0750", "0700"]),
    },
    "redis": {
        "db": st.integers(0, 15),
        "connect_timeout": DURATIONS,
        "retries": st.integers(0, 100),
        "client_name": st.just("shop"),
        "tls": st.booleans() | TLS,
        "password": TEXTS,
        "key_layout": st.just("storeconf"),
    },
}
LINKS: dict[str, st.SearchStrategy[Any]] = {
    "ttl": DURATIONS | st.fixed_dictionaries({"default": DURATIONS}, optional={"jitter": st.floats(0, 0.9)}),
    "limit": SIZES | st.fixed_dictionaries({"value_size": SIZES}, optional={"key_size": SIZES}),
    "on_error": st.sampled_from(["raise", "miss"]),
    "read_only": st.booleans(),
    "timeout": DURATIONS,
}


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    """Valid layouts of a few stores; every name, path, server and namespace occurs once."""
    stores: dict[str, Any] = {}
    for number in range(draw(st.integers(2, 8))):
        name = f"s{number}"
        kinds = ["memory", "file", "redis", *(["child", "child", "alias"] if stores else [])]
        kind = draw(st.sampled_from(kinds))
        if kind in ("child", "alias"):
            other = draw(st.sampled_from(sorted(stores)))
            store: dict[str, Any] = {"parent": other} if kind == "child" else {"use": other}
            if kind == "child" and draw(st.booleans()):
                store["namespace"] = f"n{number}"
        else:
            store = {"type": kind}
            if kind == "file":
                store["path"] = f"var/{name}"
            elif kind == "redis":
                place = draw(st.sampled_from(["url", "cluster", "sentinel"]))
                store |= {"namespace": name, place: _place(place, name)}
            options = OPTIONAL[kind]
            if "cluster" in store:
                options = {key: each for key, each in options.items() if key != "db"}
            store |= draw(st.fixed_dictionaries({}, optional=options))
        if kind != "alias" and draw(st.booleans()):
            store["middleware"] = draw(st.fixed_dictionaries({}, optional=LINKS))
        stores[name] = _shuffled(draw, store)
    layout: dict[str, Any] = {"stores": stores}
    if draw(st.booleans()):
        roots = [name for name in stores if "type" in stores[name]]
        layout["default_factory"] = draw(
            st.sampled_from(["forbid", {"parent": roots[0]}, {"use": roots[0]}, {"type": "memory", "max_stores": 5}])
        )
    if draw(st.booleans()):
        layout["version"] = 1
    return layout


def _place(place: str, name: str) -> Any:
    if place == "url":
        return f"redis://{name}:6379"
    nodes = [f"{name}:1", f"{name}:2"]
    return nodes if place == "cluster" else {"nodes": nodes, "service": "primary"}


def _shuffled(draw: st.DrawFn, store: dict[str, Any]) -> dict[str, Any]:
    return {key: store[key] for key in draw(st.permutations(sorted(store)))}


@dataclass
class Break:
    """One way to break a layout: what to do to it, and what must then be said of which node.

    Of a ``pair`` of stores it is the one that stands later in the file.
    """

    code: str
    path: Path
    key: bool = False
    set: dict[Path, Any] = field(default_factory=dict)
    drop: tuple[Path, ...] = ()
    rename: str | None = None
    pair: tuple[str, str] | None = None

    def where(self, tree: dict[str, Any]) -> Path:
        """The node, in a tree as it was read."""
        if self.pair is None:
            return self.path
        stores = tree["stores"]
        later = max(self.pair, key=list(stores).index)
        named = self.code == "SC603" and "namespace" in stores[later]
        return ("stores", later, "namespace") if named else ("stores", later)


def value(code: str, path: Path, broken: Any) -> Break:
    return Break(code, path, set={path: broken})


def key(code: str, path: Path, broken: Any = 1) -> Break:
    return Break(code, path, key=True, set={path: broken})


WRONG: dict[str, list[Any]] = {
    "max_entries": ["text", True, 1.5, [], {}],
    "max_size": [True, [], {}],
    "description": [1, True, [], {}, 1.5],
    "create": ["yes", 1, "true", []],
    "durability": [1, [], True],
    "path": [1, True, [], {}],
    "db": ["1", 1.5, False, {}],
    "connect_timeout": [True, [], {}],
    "retries": ["1", True, {}],
    "client_name": [1, False, []],
    "tls": ["full", 1, [], 1.5],
    "password": [1, True, {}],
    "namespace": [1, True, []],
    "url": [],
    "cluster": ["x:1", 1, {}],
    "sentinel": ["x", [], 1],
    "parent": [1, True, [], {}],
    "use": [1, [], {}],
    "type": [1, True, [], {}],
    "middleware": ["ttl", [], 1],
}
BAD: dict[str, list[Any]] = {
    "max_entries": [0, -5],
    "max_size": ["many", -1, "10 parsecs"],
    "durability": ["fsnyc", "FLUSH", ""],
    "path": [""],
    "db": [-1, 2**31],
    "connect_timeout": ["soon", -1, "1 fortnight", 0],
    "retries": [-1, 101],
    "client_name": ["a b", "é"],
    "key_layout": ["other"],
    "url": ["http://x", "no url", "redis://h/abc"],
    "cluster": [[]],
}
REQUIRED = ("path", "namespace")


def breaks_of(layout: dict[str, Any]) -> list[Break]:
    """Every break that this layout lends itself to."""
    stores = layout["stores"]
    found = [
        key("SC501", ("zzz",)),
        key("SC501", ("default_fctory",), "forbid"),
        value("SC505", ("version",), 2),
        value("SC505", ("version",), "1"),
        value("SC503", ("stores", "s1"), "memory"),
        value("SC503", ("stores", "s1"), [1]),
    ]
    for name, store in stores.items():
        at: Path = ("stores", name)
        found += [
            Break("SC506", at, key=True, set={at: {}}),
            key("SC501", (*at, "zzz")),
            key("SC501", (*at, "zz-top"), {"a": [1]}),
        ]
        kind = next(each for each in ("type", "parent", "use") if each in store)
        second = {"type": "parent", "parent": "use", "use": "parent"}[kind]
        # Of two kinds the second of type, parent, use is the one in question.
        asked = max(kind, second, key=("type", "parent", "use").index)
        found.append(Break("SC507", (*at, asked), key=True, set={(*at, second): "s0"}))
        if not any(name in (other.get("parent"), other.get("use")) for other in stores.values()):
            factory = layout.get("default_factory")
            if not (isinstance(factory, dict) and name in factory.values()):
                found += [Break("SC509", ("stores", bad), key=True, rename=bad) for bad in ("a__b", "a_", "-a", "é")]
        for each, given_ in store.items():
            found += [value("SC503", (*at, each), wrong) for wrong in WRONG.get(each, ())]
            found += [value("SC504", (*at, each), bad) for bad in BAD.get(each, ())] if kind == "type" else []
            if kind == "type" and each not in (*REQUIRED, "type", "url", "cluster", "sentinel"):
                misspelt = (*at, f"{each}x")
                found.append(Break("SC501", misspelt, key=True, set={misspelt: given_}, drop=((*at, each),)))
        found += KINDS[kind](layout, name, store, at)
        found += _links(store, at)
    return found + _factories(layout)


def _of_roots(layout: dict[str, Any], name: str, store: dict[str, Any], at: Path) -> list[Break]:
    stores = layout["stores"]
    found = [
        value("SC701", (*at, "type"), "dynamo"),
        value("SC701", (*at, "type"), "redsi"),
        value("SC509", (*at, "namespace"), "a:b"),
        value("SC509", (*at, "namespace"), "_a"),
    ]
    found += [Break("SC502", at, key=True, drop=((*at, each),)) for each in REQUIRED if each in store]
    foreign = {"memory": "url", "file": "max_entries", "redis": "path"}[store["type"]]
    found.append(key("SC508", (*at, foreign)))
    if isinstance(store.get("tls"), dict):
        found += [
            key("SC501", (*at, "tls", "ca")),
            value("SC504", (*at, "tls", "verify"), "ful"),
            value("SC503", (*at, "tls", "ca_file"), 3),
        ]
    if "cluster" in store:
        found += [value("SC504", (*at, "cluster", 1), "host"), value("SC503", (*at, "cluster", 0), 6379)]
    if "sentinel" in store:
        inner = (*at, "sentinel")
        found += [
            Break("SC502", inner, key=True, drop=((*inner, "service"),)),
            value("SC504", (*inner, "nodes", 0), "host:port"),
            key("SC501", (*inner, "master")),
        ]
    before = [other for other in stores if other != name and stores[other].get("type") == "file"]
    if store["type"] == "file" and before:
        first = before[0]
        change: dict[Path, Any] = {(*at, "path"): f"var/{first}/deeper"}
        found.append(Break("SC604", at, key=True, set=change, pair=(name, first)))
    return found


def _of_children(layout: dict[str, Any], name: str, store: dict[str, Any], at: Path) -> list[Break]:
    found = [
        value("SC601", (*at, "parent"), "nobody"),
        value("SC602", (*at, "parent"), name),
        value("SC509", (*at, "namespace"), "a b"),
        value("SC509", (*at, "namespace"), ""),
        key("SC508", (*at, "url")),
        key("SC508", (*at, "path")),
    ]
    for other, each in layout["stores"].items():
        if other != name and each.get("parent") == store["parent"]:
            change: dict[Path, Any] = {(*at, "namespace"): each.get("namespace", other)}
            found.append(Break("SC603", at, key=True, set=change, pair=(name, other)))
    return found


def _of_aliases(layout: dict[str, Any], name: str, store: dict[str, Any], at: Path) -> list[Break]:
    return [
        value("SC601", (*at, "use"), "nobody"),
        value("SC602", (*at, "use"), name),
        key("SC508", (*at, "namespace"), "x"),
        key("SC508", (*at, "middleware"), {}),
        key("SC508", (*at, "url"), "redis://h"),
    ]


KINDS: dict[str, Callable[[dict[str, Any], str, dict[str, Any], Path], list[Break]]] = {
    "type": _of_roots,
    "parent": _of_children,
    "use": _of_aliases,
}


def _links(store: dict[str, Any], at: Path) -> list[Break]:
    if "middleware" not in store:
        return []
    at = (*at, "middleware")
    found = [
        key("SC701", (*at, "zzz")),
        key("SC701", (*at, "tlt"), "14d"),
        value("SC504", (*at, "ttl"), "soon"),
        value("SC503", (*at, "ttl"), [1]),
        value("SC504", (*at, "on_error"), "mis"),
        value("SC503", (*at, "on_error"), 3),
        Break("SC501", (*at, "on_error", "acton"), key=True, set={(*at, "on_error"): {"acton": "miss"}}),
        value("SC601", (*at, "fallback"), "nobody"),
        key("SC502", (*at, "fallback"), {}),
    ]
    if isinstance(store["middleware"].get("ttl"), dict):
        found += [
            value("SC504", (*at, "ttl", "jitter"), 2),
            value("SC503", (*at, "ttl", "jitter"), "0.5"),
            value("SC504", (*at, "ttl", "default"), "-1s"),
            key("SC501", (*at, "ttl", "defaultt"), "1s"),
        ]
    return found


def _factories(layout: dict[str, Any]) -> list[Break]:
    at: Path = ("default_factory",)
    return [
        value("SC506", at, "forbidden"),
        value("SC503", at, 3),
        value("SC503", at, ["main"]),
        Break("SC506", at, key=True, set={at: {}}),
        Break("SC601", (*at, "parent"), set={at: {"parent": "nobody"}}),
        Break("SC601", (*at, "use"), set={at: {"use": "nobody"}}),
        Break("SC504", (*at, "max_stores"), set={at: {"type": "memory", "max_stores": 0}}),
        Break("SC508", (*at, "middleware"), key=True, set={at: {"use": "s0", "middleware": {}}}),
        Break("SC501", (*at, "zzz"), key=True, set={at: {"parent": "s0", "zzz": 1}}),
        Break("SC701", (*at, "type"), set={at: {"type": "zzz"}}),
    ]


def broken(layout: dict[str, Any], change: Break) -> dict[str, Any]:
    tree = copy.deepcopy(layout)
    for path, new in change.set.items():
        _inside(tree, path)[path[-1]] = new
    for path in change.drop:
        del _inside(tree, path)[path[-1]]
    if change.rename is not None:
        leaf = next(
            name
            for name in tree["stores"]
            if not any(name in (each.get("parent"), each.get("use")) for each in tree["stores"].values())
            and not (isinstance(tree.get("default_factory"), dict) and name in tree["default_factory"].values())
        )
        tree["stores"] = {change.rename if name == leaf else name: each for name, each in tree["stores"].items()}
    return tree


def _inside(tree: Any, path: Path) -> Any:
    for step in path[:-1]:
        tree = tree[step]
    return tree
