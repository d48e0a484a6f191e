"""Namespaces and keys: no pair of namespace path and key ever touches another, with any characters."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from storeconf import StoreClosedError, UnsupportedOperationError
from storeconf._arguments import OWN_NAMES, STALE
from storeconf.testing._suite import Suite, all_keys, check_keys, equal, holds, promise, raises, returns_none

if TYPE_CHECKING:
    from storeconf import Store

_COMPOSED = unicodedata.normalize("NFC", "Ame\u0301lie")
_DECOMPOSED = unicodedata.normalize("NFD", _COMPOSED)

HOSTILE_KEYS = (
    *("", " ", "  ", "k", "k ", " k", "K", "kk", "k\n", "k\r\n", "\n", "\t", "k\x00", "\x00", "\x00k", "\x7f"),
    *("\U0010ffff", "\u2028", "\x85", "\x1b[m"),
    *(":", "::", ":::", "k:", ":k", "::k", "k::", "a:b", "a::b", "a:b::k", "b::k", "_", "__", "a_b", "-", "a-b"),
    *("/", "//", "/k", "k/", ".", "..", "../k", "../../etc/passwd", "./k", "a/b", "a\\b", "~", "~root", "C:k"),
    *("con", "NUL", "aux.txt", "k.", "k.tmp", ".k", "k~", "lost+found", "tmp", "%00", "%2F", "%3A", "%", "%%", "+"),
    *("*", "?", "[k]", "[a-z]", "[!a]", "[", "]", "{k}", "{a}{b}", "\\*", "**", "k*", "^k$", "(k)", "|", "$HOME"),
    *("'", '"', "`", "';--", "%s", "{0}", "<k>", "&", "=", "#", "@", "!", ",", ";", "${K}"),
    *("0", "00", "-1", "1e3", "None", "True"),
    *("ß", "ss", "SS", "ẞ", "İ", "i", "I", "\u0131", "ﬁ", "fi", "ǆ", "Ǆ", "ǅ", "Å", "\u212b", "\u017f", "s", "S"),
    *(_COMPOSED, _DECOMPOSED, "日本語", "🗝", "\U0001f469\u200d\U0001f467", "\u200b", "\u202e", "\ufeff", "\ufffe"),
    *("x" * 255, "x" * 256, "x" * 1000, "é" * 200, "k" * 10_000 + "a", "k" * 10_000 + "b", "K" * 10_000 + "a"),
)
"""Keys that some store somewhere mixes up, loses or refuses."""

SIBLINGS = ("app", "app2", "app_x", "app-x", "ap", "App", "APP", "appapp", "0", "x" * 100)
"""Namespaces of which many begin with another one's name."""

BAD_NAMES = (
    *("", "_a", "-a", ".", "..", "a b", " a", "a ", "a:b", "a/b", "a\\b", "a.b", "a*", "[a]", "a\n", "\x00", "a\x00"),
    *("é", "\u0663"),
)

LOOKALIKES = {
    *("", "a", "ab", "abc", "a*", "a*b", "a?", "a[b]", "[b]", "A", "b", "a:b", "a:", "\\", "a\\b", "é", "e\u0301"),
}

PREFIXES = (
    *("", "a", "ab", "abc", "abcd", "a*", "*", "?", "a?", "[", "[b]", "a[", "A", ":", "a:", "\\", "a\\", "é", "e"),
)


class Namespaces(Suite):
    """Promises on namespaces and keys."""

    @promise
    async def test_hostile_keys_are_distinct(self, store: Store) -> None:
        """Keys differ whenever their characters do: case, normal form, length, line ends and separators count."""
        keys = dict.fromkeys(key for key in HOSTILE_KEYS if self.takes(store, key))
        for number, key in enumerate(keys):
            await store.set(key, str(number))
        for number, key in enumerate(keys):
            equal(await store.get(key), str(number).encode(), f"the key {key[:40]!r} has its own value")
        await check_keys(store, set(keys), "keys lists every key as it was given")
        for number, key in enumerate(keys):
            if number % 2:
                await store.delete(key)
        for number, key in enumerate(keys):
            equal(await store.exists(key), not number % 2, f"deleting a key touches no other ({key[:40]!r})")

    @promise
    async def test_hostile_keys_in_every_operation(self, store: Store) -> None:
        """Bulk and atomic operations take the same keys."""
        atomic = self.capabilities(store).atomic
        keys = list(dict.fromkeys(key for key in HOSTILE_KEYS if self.takes(store, key)))
        values = {key: str(number).encode() for number, key in enumerate(keys)}
        await store.set_many(values)
        equal(await store.get_many(keys), values, "get_many finds every key under its name")
        for number, key in enumerate(keys):
            if "increment" in atomic:
                equal(await store.increment(key), number + 1, f"increment of {key[:40]!r}")
            if "pop" in atomic:
                holds(await store.pop(key) is not None, f"pop of {key[:40]!r}")
                equal(await store.exists(key), False, f"pop removes {key[:40]!r}")
            if "add" in atomic:
                await store.add(key, b"again")
        await store.delete_many(keys)
        await check_keys(store, set(), "delete_many removes every key")

    @promise
    async def test_path_and_key_never_collide(self, store: Store) -> None:
        """(namespace path, key) is one place; no other pair reaches it, with any characters in the key."""
        paths = ((), ("a",), ("a", "b"), ("a", "b", "c"), ("ab",), ("a_b",), ("a-b",), ("b",), ("A",), ("a", "a"))
        keys = (
            *("", "k", "b", "a", "b:k", "b::k", "a:b::k", "a::b::k", ":k", "::k"),
            *("_k", "b_k", "b/k", "/k", "../k", "a/b/k"),
        )
        expected = {}
        for path in paths:
            handle = store
            for name in path:
                handle = handle.with_namespace(name)
            for key in (*keys, f"only in {path}"):
                expected[handle, key] = value = f"{path} {key}"
                await handle.set(key, value)
        for (handle, key), value in expected.items():
            equal(await handle.get(key), value.encode(), "every pair of path and key has its own value")
        for handle in {handle for handle, _ in expected}:
            own = {key for place, key in expected if place is handle}
            await check_keys(handle, own, "keys lists this namespace alone")
        for handle, key in list(expected)[::3]:
            await handle.delete(key)
            del expected[handle, key]
        for (handle, key), value in expected.items():
            equal(await handle.get(key), value.encode(), "deleting one pair touches no other")

    @promise
    async def test_delete_all_spares_locks_and_leases(self, store: Store) -> None:
        """delete_all spares storeconf's own namespaces, which begin with "-", but for copies of deleted values."""
        if "add" not in self.capabilities(store).atomic:
            return  # nothing takes leases there
        handles = [store, store.with_namespace("a")]
        own = {(handle, name): handle.with_namespace(name) for handle in handles for name in OWN_NAMES}
        for each in (*handles, *own.values()):
            await each.set("k", b"v")
        await store.delete_all()
        for (_, name), each in own.items():
            equal(await each.exists("k"), name != STALE, f"delete_all leaves {name} as it is, unless it is {STALE}")
        for each in own.values():
            await each.delete_all()
            equal(await each.exists("k"), False, "delete_all of such a namespace itself empties it")

    @promise
    async def test_delete_all_spares_siblings(self, store: Store) -> None:
        """delete_all of a namespace spares siblings whose name begins the same, and the parent."""
        handles = {name: store.with_namespace(name) for name in SIBLINGS}
        for name in SIBLINGS:
            for key in ("k", "", "app", ":k", "app2::k", "*"):
                await store.set(key, b"parent")
                await store.set(f"{name}:{key}", b"parent")
            for handle in handles.values():
                await handle.set_many(dict.fromkeys(("k", "", ":k", "app::k", "*"), b"v"))
            before = {other: await all_keys(handle) for other, handle in handles.items() if other != name}
            of_parent = await all_keys(store)
            await returns_none(handles[name].delete_all(), "delete_all returns None")
            await check_keys(handles[name], set(), f"delete_all empties {name}")
            after = {other: await all_keys(handle) for other, handle in handles.items() if other != name}
            equal(after, before, f"delete_all of {name} spares its siblings")
            await check_keys(store, of_parent, f"delete_all of {name} spares its parent")

    @promise
    async def test_delete_all_takes_keys_literally(self, store: Store) -> None:
        """Glob and other special characters in keys neither save a key from delete_all nor make it reach further."""
        inside, beside = store.with_namespace("in"), store.with_namespace("in2")
        keys = {key for key in HOSTILE_KEYS if self.takes(beside, key)}
        for key in keys:
            await inside.set(key, b"v")
            await beside.set(key, b"v")
        await inside.delete_all()
        await check_keys(inside, set(), "delete_all removes every key, whatever its characters")
        await check_keys(beside, keys, "delete_all removes nothing beside")

    @promise
    async def test_delete_all_reaches_downwards_only(self, store: Store) -> None:
        """delete_all takes all namespaces below, however deep, and nothing above."""
        chain = [store]
        for name in ("one", "two", "three", "four", "five"):
            chain.append(chain[-1].with_namespace(name))
        cousin = chain[1].with_namespace("two2")
        for handle in (*chain, cousin):
            await handle.set("k", b"v")
            await handle.set("expiring", b"v", expires_in=60)
        await chain[2].delete_all()
        for depth, handle in enumerate(chain):
            expected = set() if depth >= 2 else {"k", "expiring"}
            await check_keys(handle, expected, f"depth {depth} after delete_all at depth 2")
        await check_keys(cousin, {"k", "expiring"}, "delete_all spares a cousin")
        await store.delete_all()
        for handle in (*chain, cousin):
            await check_keys(handle, set(), "delete_all at the top takes everything below")

    @promise
    async def test_delete_all_of_nothing(self, store: Store) -> None:
        """delete_all of an empty namespace does not fail, and a namespace that it emptied can be filled again."""
        child = store.with_namespace("child")
        await child.delete_all()
        await store.set("k", b"v")
        await child.delete_all()
        equal(await store.get("k"), b"v", "emptying an empty child touches nothing")
        await child.set("k", b"v")
        await child.delete_all()
        await child.delete_all()
        await child.set("k", b"w")
        equal(await child.get("k"), b"w", "an emptied namespace takes new keys")

    @promise
    async def test_delete_all_of_many_keys(self, store: Store) -> None:
        """Keys lists more than a thousand keys, and delete_all removes them and none beside."""
        many, few = store.with_namespace("many"), store.with_namespace("man")
        for start in range(0, 1500, 500):
            await many.set_many({f"k{n}": b"v" for n in range(start, start + 500)})
        await few.set_many({f"k{n}": b"v" for n in range(50)})
        equal(len(await all_keys(many)), 1500, "all of them are listed")
        await many.delete_all()
        await check_keys(many, set(), "all of them are gone")
        equal(len(await all_keys(few)), 50, "none beside is")

    @promise
    async def test_namespaces_are_separate_for_every_operation(self, store: Store) -> None:
        """Point and bulk operations work on their own namespace only, up and down."""
        atomic = self.capabilities(store).atomic
        child = store.with_namespace("child")
        for this, other in ((store, child), (child, store)):
            await other.set("k", b"1")
            equal(await this.get("k"), None, "get finds nothing of another namespace")
            equal(await this.exists("k"), False, "nor does exists")
            equal(await this.get_many(["k"]), {}, "nor does get_many")
            await check_keys(this, set(), "nor does keys")
            await this.delete("k")
            await this.delete_many(["k"])
            await this.set("k", b"1", expires_in=0)
            if "pop" in atomic:
                equal(await this.pop("k"), None, "nor does pop")
            if "touch" in atomic:
                equal(await this.touch("k", 60), False, "nor does touch")
            if "add" in atomic:
                equal(await this.add("k", b"7"), True, "add sees only its own namespace")
            if "increment" in atomic:
                await this.delete("k")
                equal(await this.increment("k", 5), 5, "increment counts in its own namespace")
            await this.delete("k")
            equal(await other.get_with_expiry("k"), (b"1", None), "the other namespace is as it was")
            await other.delete("k")

    @promise
    async def test_names_of_namespaces(self, store: Store) -> None:
        """A name of letters, digits, ``_`` and ``-`` that begins with a letter or digit makes a namespace."""
        for name in ("a", "A", "0", "9lives", "a_b", "a-b", "a_", "a-", "a__b", "LITESTAR", "x" * 100):
            child = store.with_namespace(name)
            equal(child.namespaces, (*store.namespaces, name), "a child's path is its parent's and its name")
            equal(isinstance(child, type(store)), True, "a child is a store of the same kind")
            holds(child.root is store.root, "a child has its parent's root")
            if not self.takes(child, "k"):
                continue
            await child.set("k", name)
            equal(await store.with_namespace(name).get("k"), name.encode(), "another handle sees the same keys")

    @promise
    async def test_other_names_are_refused(self, store: Store) -> None:
        """Any other name is a ValueError, anything but a str a TypeError."""
        for name in BAD_NAMES:
            await raises(ValueError, store.with_namespace, name)
        for wrong in (None, 1, b"a", ("a",)):
            await raises(TypeError, store.with_namespace, wrong)

    @promise
    async def test_namespaces_share_the_life_of_their_root(self, store: Store) -> None:
        """A namespace closes and opens with its root; a handle stays valid across."""
        child = store.with_namespace("child")
        await child.set("k", b"v")
        await store.aclose()
        equal(child.is_open, False, "a child is closed with its root")
        await raises(StoreClosedError, child.get, "k")
        holds(store.with_namespace("late") is not None, "a handle can be made of a closed store")
        async with child:
            equal(store.is_open, True, "entering a child opens its root")
            equal(child.is_open, True, "and the child")
            await child.set("k", b"w")
            equal(await store.with_namespace("child").get("k"), b"w", "handles are valid across")

    # ------------------------------------------------------------------ keys

    @promise
    async def test_keys_lists_by_literal_prefix(self, store: Store) -> None:
        """keys(prefix) lists exactly the keys that begin with the prefix, character by character."""
        for key in LOOKALIKES:
            await store.set(key, b"v")
        for prefix in PREFIXES:
            expected = {key for key in LOOKALIKES if key.startswith(prefix)}
            equal(await all_keys(store, prefix), expected, f"keys({prefix!r})")

    @promise
    async def test_walk_lists_what_delete_all_removes(self, store: Store) -> None:
        """walk() lists the keys of the namespace and of those below it, with their names, where it is offered."""
        places = {((), "a::b"), ((), ""), (("a",), "b"), (("a", "b"), "k"), (("A-b_c",), ":k"), (("A-b_c", "a"), "k")}
        top = store.with_namespace("top")
        for names, key in places:
            below = top
            for name in names:
                below = below.with_namespace(name)
            await below.set(key, b"v")
            await below.set(f"{key} over", b"v", expires_in=0)
        for beside in (store, store.with_namespace("top2")):
            await beside.set("k", b"v")
        try:
            found = [place async for place in top.walk()]
        except UnsupportedOperationError:
            return
        equal(set(found), places, "walk()")
        equal([place async for place in top.with_namespace("nothing").walk()], [], "walk() of an empty namespace")

    @promise
    async def test_keys_while_they_change(self, store: Store) -> None:
        """While keys come and go during the iteration, each key that lives throughout comes at least once."""
        stay = {f"stay-{n}" for n in range(300)}
        leave = {f"leave-{n}" for n in range(100)}
        new = {f"new-{n}" for n in range(100)}
        await store.set_many(dict.fromkeys(sorted(stay | leave), b"v"))
        seen = set()
        coming, going = iter(sorted(new)), iter(sorted(leave))
        async for key in store.keys():
            seen.add(key)
            for name in [name for name in (next(coming, None),) if name]:
                await store.set(name, b"v")
            for name in [name for name in (next(going, None),) if name]:
                await store.delete(name)
        equal(stay - seen, set(), "each key that lives throughout is listed")
        equal(seen - stay - leave - new, set(), "nothing is listed that never was")
        await check_keys(store, stay | new, "the iteration itself changes nothing")

    @promise
    async def test_keys_can_be_left_early(self, store: Store) -> None:
        """Leaving the iteration early leaves the store as it was."""
        await store.set_many({f"k{n}": b"v" for n in range(200)})
        async for _ in store.keys():
            break
        listing = store.keys()
        await anext(aiter(listing))
        await store.delete_all()
        await check_keys(store, set(), "the store works after an iteration was left")

    @promise
    async def test_keys_can_be_deleted_as_they_come(self, store: Store) -> None:
        """Deleting each key as it is listed ends with none left."""
        await store.set_many({f"k{n}": b"v" for n in range(500)})
        async for key in store.keys():
            await store.delete(key)
        await check_keys(store, set(), "every key was listed and deleted")
