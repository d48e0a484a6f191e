"""What is wrong with a plugin's classes is found as they are loaded, and what their code raises comes out as ours."""

from __future__ import annotations

import asyncio
import traceback
import warnings
from typing import Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, SecretStr

import storeconf
from storeconf import Backend, Catalog, GuardedStore, MemoryStore, Middleware, PluginError, StoreBase, StoreError
from storeconf._contract import override_fault
from storeconf.config.schema import build_schema
from storeconf.errors import StoreconfError, StoreTimeoutError, StoreUnavailableError
from storeconf.operations import Hooks

# ---------------------------------------------------------------------- stores


@pytest.mark.parametrize(
    ("base", "body", "fault"),
    [
        (
            StoreBase,
            "async def do_get(self, path, key): ...",
            "do_get() that can't be called: it takes (path, key)",
        ),
        (
            StoreBase,
            "async def do_set(self, path, key, value, expiry): ...",
            "must take (path, key, value, expiry,",
        ),
        (StoreBase, "async def do_add(self, path, key, value, expiry, more): ...", "do_add() that can't be called"),
        (StoreBase, "async def do_pop(self, path, key, *, more): ...", "do_pop() that can't be called"),
        (StoreBase, "def do_get(self, path, key, renew): ...", "do_get() of the wrong kind: it must be 'async def'"),
        (StoreBase, "async def do_get(self, path, key, renew): yield 1", "do_get() of the wrong kind"),
        (
            StoreBase,
            "async def do_keys(self, path, prefix): return []",
            "do_keys() of the wrong kind: it must be an",
        ),
        (StoreBase, "async def do_raw_key(self, path, key): ...", "do_raw_key() of the wrong kind: it must be a plain"),
        (StoreBase, "async def do_forget(self): ...", "do_forget() of the wrong kind"),
        (StoreBase, "async def do_delete_al(self, path): ...", "did you mean do_delete_all()?"),
        (StoreBase, "async def do_something(self, path): ...", "names that begin with 'do_' are those of hooks"),
        (StoreBase, "do_pop = 3", "has do_pop = 3, which must be a method"),
        (StoreBase, "def name(self): ...", "has an attribute 'name', a name that storeconf uses itself"),
        (StoreBase, "root = 3", "has an attribute 'root'"),
        (StoreBase, "def _call(self, command): ...", "has an attribute '_call'"),
        (
            StoreBase,
            "async def get(self, key): ...",
            "get() that can't be called: it takes (key), and must",
        ),
        (MemoryStore, "def namespaces(self): ...", "has an attribute 'namespaces'"),
        (storeconf.StoreWrapper, "async def set(self, key, value, expires_in=None): ...", "set() that can't be called"),
        (storeconf.StoreWrapper, "async def keys(self, prefix=''): return []", "keys() of the wrong kind"),
        (storeconf.StoreWrapper, "wrapped = None", "has an attribute 'wrapped'"),
        (GuardedStore, "async def around(self, operation, call, *args): ...", "around() that can't be called"),
    ],
)
def test_a_store_class_that_could_not_work_is_an_error_where_it_is_made(base: type, body: str, fault: str) -> None:
    scope: dict[str, Any] = {"__name__": "mine", "Base": base}
    with pytest.raises(TypeError) as caught:
        exec(f"class Mine(Base):\n    {body}", scope)  # the test's own code
    assert "Mine has " in str(caught.value)
    assert fault in str(caught.value)


def test_a_mixin_is_checked_with_the_class_that_uses_it() -> None:
    class Mixin:
        async def do_delete(self, key: str) -> bool:
            return True

    with pytest.raises(TypeError, match=r"Mine has a method do_delete\(\)"):
        type("Mine", (Mixin, StoreBase), {"__module__": __name__})


def test_what_is_right_passes() -> None:
    class Mine(StoreBase):
        capabilities = storeconf.Capabilities()
        warn_if_left_open = False
        helper = 3

        async def do_get(self, where: tuple[str, ...], what: str, renewal: int | None = None) -> bytes | None:
            return None

        async def do_set(self, *arguments: Any) -> None: ...

        def do_keys(self, path: tuple[str, ...], prefix: str) -> Any: ...

        async def get(self, *args: Any, **kwargs: Any) -> bytes | None:
            return await super().get(*args, **kwargs)

    assert Mine().name == "Mine"


def test_storeconfs_own_classes_keep_the_contract() -> None:
    checked, kinds = 0, [storeconf.MemoryStore, storeconf.FileStore, storeconf.RedisStore.__mro__[1]]
    for kind in kinds:
        for name, attribute in vars(kind).items():
            if name in vars(Hooks) and name.startswith("do_"):
                assert override_fault(name, attribute, vars(Hooks)[name], by_name=False) is None, (kind, name)
                checked += 1
    assert checked > 50


@pytest.mark.parametrize("before", [True, False])
def test_attributes_that_storeconf_uses_itself(before: bool) -> None:
    class Mine(MemoryStore):
        def __init__(self) -> None:
            if before:
                self._path = "/data"  # type: ignore[assignment]  # on purpose
            super().__init__()
            self._path = "/data"  # type: ignore[assignment]  # on purpose

    class Mines(Backend):
        type: Literal["mine"] = "mine"

        def build(self, context: storeconf.BuildContext) -> storeconf.Store:
            return Mine()

    with pytest.raises(PluginError, match=r"the backend 'mine' .*'_path'") as caught:
        compiled(Mines)
    assert caught.value.code == ("SC708" if before else "SC703")


# ---------------------------------------------------------------------- models


def model(base: type, body: str) -> Any:
    scope: dict[str, Any] = {"__name__": "mine", "Base": base, "ClassVar": ClassVar, "Literal": Literal, "Any": Any}
    exec(compile(f"class Mine(Base):\n    {body}", "mine.py", "exec", dont_inherit=True), scope)  # as above
    return scope["Mine"]


TYPE = "type: Literal['mine'] = 'mine'; "
KIND = "kind: ClassVar[str] = 'mine'; "


@pytest.mark.parametrize(
    ("base", "body", "code", "fault"),
    [
        (Backend, "pass", "SC703", 'has no type: write type: Literal["mine"] = "mine"'),
        (Middleware, "pass", "SC703", "has no kind: write kind"),
        *((Backend, f"{TYPE}{name}: int = 3", "SC703", f"has a field '{name}', a name that every store has")
          for name in ("description", "parent", "use", "middleware", "max_stores")),
        (Backend, TYPE + "warnings: bool = False", "SC703", "has a field 'warnings', which hides Backend.warnings"),
        (Middleware, KIND + "wrap: int = 3", "SC703", "has a field 'wrap', which hides Middleware.wrap"),
        (Backend, TYPE + "a__b: int = 3", "SC703", "has a field 'a__b', and '__' separates"),
        (Backend, TYPE + "other: 'Nowhere'", "SC703", "is not fully defined"),
        (Backend, TYPE + "capabilities: ClassVar[Any] = {'shared'}", "SC703", "must be a storeconf.Capabilities"),
        (Backend, TYPE + "exclusive_groups: ClassVar[Any] = (('a', 'b'),)", "SC703", "has 'a' in exclusive_groups"),
        (Backend, TYPE + "exclusive_groups: ClassVar[Any] = ('a', 'b')", "SC703", "has 'a' in exclusive_groups"),
        (Backend, TYPE + "\n    def build(self): ...", "SC703", "build() that can't be called: it takes ()"),
        (Backend, TYPE + "\n    async def build(self, context): ...", "SC703", "build() of the wrong kind"),
        (Backend, TYPE + "\n    def location(self, context): ...", "SC703", "location() that can't be called"),
        (Middleware, KIND + "\n    def wrap(self, inner): ...", "SC703", "must take (inner, context)"),
        (Middleware, KIND + "shorthand_field: ClassVar[str] = 'siz'; size: int = 3", "SC703", "did you mean 'size'?"),
        (Middleware, KIND + "after: ClassVar[Any] = 3", "SC703", "has after = 3, which must be names of kinds"),
        (Backend, TYPE + "api_version: ClassVar[Any] = '1'", "SC704", "api_version '1', which must be a whole number"),
        (Middleware, KIND + "api_version: ClassVar[Any] = True", "SC704", "which must be a whole number"),
    ],
)  # fmt: skip
def test_a_model_that_could_not_work_is_refused(base: type, body: str, code: str, fault: str) -> None:
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # Pydantic's, of some of these names
        kind = model(base, body)
    with pytest.raises(PluginError) as caught:
        catalog_with(kind)
    assert caught.value.code == code
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("def find(argument): ...", "it takes (argument), and must take (argument, context)"),
        ("async def find(argument, context): ...", "is async"),
        ("class find:\n    def resolve(self, argument): ...", "it takes (argument), and must"),
        ("class find:\n    resolve = 3", "has no resolve(argument, context)"),
    ],
)
def test_a_resolver_that_could_not_work_is_refused(code: str, fault: str) -> None:
    scope: dict[str, Any] = {}
    exec(code, scope)  # the test's own code
    with pytest.raises(PluginError) as caught:
        Catalog.builtin().with_resolver("find", scope["find"])
    assert caught.value.code == "SC703"
    assert fault in str(caught.value)


# ---------------------------------------------------------------------- errors of other classes


def catalog_with(*kinds: type) -> Catalog:
    catalog = Catalog.builtin()
    for kind in kinds:
        add: Any = catalog.with_backend if issubclass(kind, Backend) else catalog.with_middleware
        catalog = add("mine", kind)
    return catalog


def compiled(*kinds: type, **settings: Any) -> storeconf.StoreRegistry:
    chain = {"middleware": {"mine": True}} if any(issubclass(kind, Middleware) for kind in kinds) else {}
    kind = "mine" if any(issubclass(kind, Backend) for kind in kinds) else "memory"
    layout = {"stores": {"main": {"type": kind, **settings, **chain}}}
    return storeconf.read_layout(layout, environ={}, catalog=catalog_with(*kinds)).compile()


class Failing(MemoryStore):
    """Every hook raises."""

    synchronous_operations = frozenset()
    get, set, delete, exists = StoreBase.get, StoreBase.set, StoreBase.delete, StoreBase.exists  # type: ignore[assignment]  # by hooks alone

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error: Exception | None = error


def raising(name: str) -> Any:
    if name == "do_raw_key":

        def plain(self: Failing, *arguments: Any) -> Any:
            raise self.error or AssertionError

        return plain

    async def hook(self: Failing, *arguments: Any) -> Any:
        if self.error is not None:
            raise self.error

    return hook


for _name in vars(Hooks):
    if _name.startswith("do_") and _name not in ("do_close", "do_attach", "do_forget", "do_keys", "do_walk", "do_open"):
        setattr(Failing, _name, raising(_name))


class Mines(Backend):
    type: Literal["mine"] = "mine"
    token: SecretStr = SecretStr("")
    text: str = "no luck"

    def build(self, context: storeconf.BuildContext) -> storeconf.Store:
        if self.text == "at once":
            raise RuntimeError(f"not with {self.token.get_secret_value()}")
        return Failing(RuntimeError(self.text, self.token.get_secret_value()))


CALLS: dict[str, Any] = {
    "get": lambda store: store.get("k"),
    "set": lambda store: store.set("k", "v"),
    "delete": lambda store: store.delete("k"),
    "exists": lambda store: store.exists("k"),
    "expires_in": lambda store: store.expires_in("k"),
    "delete_all": lambda store: store.delete_all(),
    "delete_expired": lambda store: store.delete_expired(),
    "get_many": lambda store: store.get_many(["k"]),
    "set_many": lambda store: store.set_many({"k": "v"}),
    "delete_many": lambda store: store.delete_many(["k"]),
    "get_with_expiry": lambda store: store.get_with_expiry("k"),
    "add": lambda store: store.add("k", "v"),
    "touch": lambda store: store.touch("k", 3),
    "pop": lambda store: store.pop("k"),
    "increment": lambda store: store.increment("k"),
    "compare_and_set": lambda store: store.compare_and_set("k", None, b"v"),
}


READS = {"get", "exists", "expires_in", "get_many", "get_with_expiry"}


def test_what_hooks_raise_comes_out_as_a_store_error_without_secrets() -> None:
    async def main() -> None:
        async with compiled(Mines, token="hunter22") as registry:
            store = registry["main"]
            for operation, call in CALLS.items():
                with pytest.raises(StoreError) as caught:
                    await call(store)
                error = caught.value
                assert (error.store, error.operation) == ("main", operation)
                assert f"the backend 'mine' of store 'main' failed in {operation}: RuntimeError" in str(error)
                assert "no luck" in str(error)
                assert error.outcome_unknown == (
                    operation not in {"get", "exists", "expires_in", "get_many", "get_with_expiry"}
                )
                assert isinstance(error.__cause__, RuntimeError)
                assert "hunter22" not in "".join(traceback.format_exception(error))
            with pytest.raises(StoreError, match="failed in raw_key"):
                store.raw_key("k")
            ping = await store.ping()
            assert not ping.ok
            assert "no luck" in str(ping.error)

    asyncio.run(main())


def test_a_build_that_fails_is_told_with_its_text_and_without_secrets() -> None:
    token = "hunter" + "22"
    with pytest.raises(PluginError) as caught:
        compiled(Mines, token=token, text="at once")
    assert str(caught.value) == "the backend 'mine' could not make store 'main': RuntimeError: not with ***"
    assert caught.value.code == "SC708"
    assert token not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("moment", ["open", "close"])
def test_opening_and_closing(moment: str) -> None:
    class Mine(MemoryStore):
        async def do_open(self) -> None:
            if moment == "open":
                raise RuntimeError("no licence found")

        async def do_close(self) -> None:
            raise RuntimeError("no licence found")

    async def main() -> None:
        with pytest.raises(StoreError, match=f"of store 'Mine' failed in {moment}: RuntimeError: no licence found"):
            async with Mine():
                assert moment == "close"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionResetError("gone"), StoreUnavailableError),
        (TimeoutError("slow"), StoreTimeoutError),
        (OSError(28, "No space left"), StoreError),
        (NotImplementedError(), StoreError),
        (ExceptionGroup("two", [ValueError("a")]), StoreError),
    ],
)
def test_outages_stay_outages(error: Exception, kind: type) -> None:
    with pytest.raises(StoreError) as caught:
        asyncio.run(Failing(error).exists("k"))
    assert type(caught.value) is kind
    assert caught.value.__cause__ is error


def test_lists_that_fail_at_any_time() -> None:
    class Early(MemoryStore):
        def do_keys(self, path: tuple[str, ...], prefix: str) -> Any:
            raise RuntimeError("no list")

        async def do_walk(self, path: tuple[str, ...]) -> Any:
            yield (), "k"
            raise RuntimeError("no list")

    async def main() -> None:
        store = Early()
        for operation, keys in (("keys", store.keys()), ("walk", store.walk())):
            with pytest.raises(StoreError, match=f"failed in {operation}: RuntimeError: no list"):
                [key async for key in keys]

    asyncio.run(main())


def test_what_the_caller_did_wrong_and_what_is_ours_stays() -> None:
    async def main() -> None:
        store = Failing(storeconf.UnsupportedOperationError("not here"))
        with pytest.raises(storeconf.UnsupportedOperationError):
            await store.exists("k")
        with pytest.raises(TypeError, match="a key must be a str"):
            await store.exists(3)  # type: ignore[arg-type]  # on purpose

    asyncio.run(main())
    assert issubclass(StoreError, StoreconfError)


class Odd(storeconf.StoreWrapper):
    async def get(self, key: str, renew_for: Any = None) -> bytes | None:
        if key == "odd":
            raise KeyError("no luck with hunter22")
        return await self.wrapped.get(key, renew_for)


class OddGuard(GuardedStore):
    async def around(self, operation: str, call: Any, *args: Any, **kwargs: Any) -> Any:
        if args[:1] == ("odd",):
            raise KeyError("no luck with hunter22")
        return await call(*args, **kwargs)


@pytest.mark.parametrize("kind", [Odd, OddGuard])
def test_what_middleware_raises_comes_out_as_a_store_error(kind: type[storeconf.StoreWrapper]) -> None:
    class Odds(Middleware):
        kind: ClassVar[str] = "mine"
        token: SecretStr = SecretStr("hunter" + "22")

        def wrap(self, inner: storeconf.Store, context: storeconf.BuildContext) -> storeconf.Store:
            return kind_of_store(inner)

    kind_of_store = kind

    async def main() -> None:
        layout = {"stores": {"main": {"type": "memory", "middleware": {"mine": {"token": "hunter22"}}}}}
        async with storeconf.read_layout(layout, environ={}, catalog=catalog_with(Odds)).compile() as registry:
            store = registry["main"]
            with pytest.raises(
                StoreError, match="the middleware 'mine' of store 'main' failed in get: KeyError"
            ) as caught:
                await store.get("odd")
            assert (caught.value.store, caught.value.operation) == ("main", "get")
            assert "hunter22" not in str(caught.value)
            assert isinstance(caught.value.__cause__, KeyError)
            await store.set("k", "v")
            assert await store.get("k") == b"v"
            with pytest.raises(TypeError, match="a key must be a str"):
                await store.get(3)  # type: ignore[arg-type]  # on purpose

    asyncio.run(main())


# ---------------------------------------------------------------------- nobody else suffers


def test_the_schema_survives_types_that_json_has_no_words_for() -> None:
    class Odd:
        pass

    class Mine(Backend):
        type: Literal["mine"] = "mine"
        odd: Odd | None = None

    assert "odd" in str(build_schema(catalog_with(Mine)))


def _no_schema(kind: Any, source: Any, handler: Any) -> Any:
    raise RuntimeError("no schema")


@pytest.mark.parametrize(
    "fault",
    [
        {"__get_pydantic_json_schema__": classmethod(_no_schema)},
        {"__get_pydantic_json_schema__": classmethod(lambda kind, source, handler: 3)},
        {"__doc__": 3},
    ],
)
def test_the_schema_survives_a_model_that_can_not_make_its_own(fault: dict[str, Any]) -> None:
    own = {"__annotations__": {"type": Literal["mine"], "size": int}, "type": "mine", "__module__": __name__}
    definitions = build_schema(catalog_with(type("Mine", (Backend,), {**own, **fault})))["definitions"]
    assert "size" in definitions["store_mine"]["properties"]
    assert "create" in definitions["store_file"]["properties"]


def test_models_in_models_of_two_plugins_keep_apart() -> None:
    def backend(kind: str, inner: type) -> Any:
        options = type("Options", (BaseModel,), {"__annotations__": {kind: inner}, "__module__": __name__})
        annotations = {"type": Literal[kind], "options": options}
        return type(kind, (Backend,), {"__annotations__": annotations, "type": kind, "__module__": __name__})

    catalog = Catalog.builtin().with_backend("one", backend("one", int)).with_backend("two", backend("two", str))
    definitions = build_schema(catalog)["definitions"]
    inner = [each for name, each in definitions.items() if name.endswith("Options")]
    assert sorted(key for each in inner for key in each["properties"]) == ["one", "two"]


class Delegating(storeconf.MemoryStore):
    """Asks its client for each attribute that it does not have, which it sets last."""

    def __init__(self) -> None:
        super().__init__()
        self._client = {"_root": 1}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_a_store_may_delegate_attributes() -> None:
    assert Delegating().popitem() == ("_root", 1)
