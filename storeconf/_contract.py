"""Checks of the classes of plugins: they have methods that storeconf can call, and no names that it uses itself.

A store's class is checked when it is made, so that the error is where the mistake is; a model of settings when it is
loaded. Each check looks at code objects only and calls nothing. storeconf's own classes are not checked as they are
made: the tests do that.

Imports nothing of storeconf but the declarations of operations, and texts for people.
"""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, get_args

from storeconf._text import close, nearest
from storeconf.operations import Capabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from types import CodeType

__all__ = ["check_store_class", "model_fault", "resolver_fault"]

_PACKAGE: Final = __name__.partition(".")[0]

OWN_ATTRIBUTES: Final = ("_life", "_root", "_hooks", "_path", "_name")
"""The attributes of a handle that the base classes set."""

_ASYNC: Final = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_HOOK: Final = "do_"


def check_store_class(store: type, api: type, free: Collection[str]) -> None:
    """Raise TypeError if storeconf can't call the methods of a class, or if the class hides names that storeconf needs.

    ``api`` has the operations that applications call, too; ``free`` are attributes that a class may set as it likes.
    """
    if _is_own(store):
        return
    base = next(each for each in store.__mro__ if _is_own(each))
    annotated = {name for each in base.__mro__ for name in vars(each).get("__annotations__", ())}
    for name, attribute in _written(store):
        there = inspect.getattr_static(api, name, None) or inspect.getattr_static(base, name, None)
        if name in free or (name.startswith("__") and name.endswith("__")):
            continue
        fault: str | None
        if there is None and name in annotated:
            fault = f"has an attribute {name!r}, a name that storeconf uses itself"
        elif there is None:
            fault = _unknown_hook(name, base) if name.startswith(_HOOK) and callable(attribute) else None
        elif isinstance(there, FunctionType) and not name.startswith("_"):
            fault = override_fault(name, attribute, there, by_name=hasattr(api, name))
        else:
            fault = f"has an attribute {name!r}, a name that storeconf uses itself"
        if fault is not None:
            raise TypeError(f"{store.__name__} {fault}")


def model_fault(model: Any, base: type[Any], word: str, name: str, reserved: Collection[str]) -> str | None:
    """The reason why a model of settings can't be used as a ``base``, or None.

    ``word`` is the attribute that has to hold its ``name``; ``reserved`` are names that no field can have.
    """
    if not (isinstance(model, type) and issubclass(model, base)):
        return f"is not a subclass of {_PACKAGE}.{base.__name__}"
    fields: Mapping[str, Any] = model.model_fields  # type: ignore[attr-defined]  # Pydantic's
    own = fields[word].get_default() if word in fields else getattr(model, word, None)
    if not isinstance(own, str):
        return f'has no {word}: write {word}: Literal["{name}"] = "{name}"'
    if own != name:
        return f"has {word} {own!r}, which must equal its name"
    capabilities = getattr(model, "capabilities", Capabilities())
    if not isinstance(capabilities, Capabilities):
        return f"has capabilities {capabilities!r}, which must be a {_PACKAGE}.Capabilities"
    return _fault_of_fields(model, base, reserved) or _fault_of_methods(model, base) or _fault_of_names(model)


def _fault_of_fields(model: type[Any], base: type[Any], reserved: Collection[str]) -> str | None:
    fields = {name: _shown(name, info) for name, info in model.model_fields.items()}
    for attribute, shown in fields.items():
        if shown in reserved:
            return f"has a field {shown!r}, a name that every store has in a layout"
        if attribute in _own(base) and attribute not in base.model_fields:
            return f"has a field {attribute!r}, which hides {base.__name__}.{attribute}"
    for each in (model, *_models_in(model)):
        for shown in (_shown(name, info) for name, info in each.model_fields.items()):
            if "__" in shown:
                return f"has a field {shown!r}, and '__' separates the parts of a variable's name"
    if not model.__pydantic_complete__ and not model.model_rebuild(raise_errors=False):
        return "is not fully defined: the annotation of a field has a name that its module does not define"
    return None


def _own(base: type[Any]) -> dict[str, Any]:
    """The attributes of a model that classes of storeconf define, not those of Pydantic."""
    return {name: each for kind in reversed(base.__mro__) if _is_own(kind) for name, each in vars(kind).items()}


def _fault_of_methods(model: type[Any], base: type[Any]) -> str | None:
    for name, there in _own(base).items():
        if isinstance(there, FunctionType) and not name.startswith("_"):
            fault = override_fault(name, inspect.getattr_static(model, name), there, by_name=False)
            if fault is not None:
                return fault
    return None


def _fault_of_names(model: type[Any]) -> str | None:
    """The fault of the attributes that name fields and kinds, or None."""
    names = [_shown(name, info) for name, info in model.model_fields.items()]
    shorthand = getattr(model, "shorthand_field", None)
    if shorthand is not None and shorthand not in names:
        near = nearest(shorthand, names) if isinstance(shorthand, str) else None
        meant = f"; did you mean {near!r}?" if near else ""
        return f"has shorthand_field {shorthand!r}, which is not one of its fields{meant}"
    for side in ("after", "before"):
        kinds = getattr(model, side, ())
        if not isinstance(kinds, tuple | list | set | frozenset) or not all(isinstance(kind, str) for kind in kinds):
            return f"has {side} = {kinds!r}, which must be names of kinds"
    groups = getattr(model, "exclusive_groups", ())
    for group in groups if isinstance(groups, tuple | list) else (groups,):
        stray = [name for name in group if name not in names] if isinstance(group, tuple | list) else [group]
        if stray:
            return f"has {stray[0]!r} in exclusive_groups, which must contain groups of its fields"
    return None


def resolver_fault(resolve: Any) -> str | None:
    """The reason why a function or method can't be called as ``resolve(argument, context)``, or None."""
    if not callable(resolve):
        return "has no resolve(argument, context)"
    function = getattr(resolve, "__func__", resolve)
    bound = function is not resolve
    if not isinstance(function, FunctionType):
        return None
    fault = call_fault(function, _resolve if bound else _resolve_alone, bound=bound)
    if fault is not None:
        return f"has a resolve that can't be called: {fault}"
    return "has a resolve that is async: it must return a text" if function.__code__.co_flags & _ASYNC else None


def _resolve(self: object, argument: object, context: object) -> None: ...


def _resolve_alone(argument: object, context: object) -> None: ...


def override_fault(name: str, own: object, there: FunctionType, *, by_name: bool) -> str | None:
    """The reason why a method can't be called as the one that it replaces, or None."""
    if own is there:
        return None
    if isinstance(own, staticmethod | classmethod) or not isinstance(own, FunctionType):
        return None if callable(own) or hasattr(own, "__get__") else f"has {name} = {own!r}, which must be a method"
    fault = call_fault(own, there, by_name=by_name)
    if fault is not None:
        return f"has a method {name}() that can't be called: {fault}"
    inner = inspect.unwrap(own)
    passes_on = not isinstance(inner, FunctionType) or inner.__code__.co_flags & inspect.CO_VARARGS
    if passes_on or _kind_fits(inner, there, by_name=by_name):
        return None
    wanted = "an async generator" if _lists(name) else "'async def' without 'yield'"
    return f"has a method {name}() of the wrong kind: it must be {wanted if _is_async(there) else 'a plain function'}"


def call_fault(
    own: FunctionType, there: Callable[..., Any], *, by_name: bool = False, bound: bool = True
) -> str | None:
    """The reason why a function can't take the arguments of another one, or None.

    ``by_name``: the optional ones are also given so. ``bound``: the first parameter of both is the object.
    """
    code, wanted = own.__code__, there.__code__
    names, keywords = _parameters(code, bound)
    wanted_names, wanted_keywords = _parameters(wanted, bound)
    optional = wanted_names[len(wanted_names) - len(there.__defaults__ or ()) :] if by_name else ()
    required = len(names) - len(own.__defaults__ or ())
    fits = required <= len(wanted_names) - len(optional)
    fits = fits and (len(names) >= len(wanted_names) or bool(code.co_flags & inspect.CO_VARARGS))
    fits = fits and set(keywords) - set(wanted_keywords) <= (own.__kwdefaults__ or {}).keys()
    for flag in (inspect.CO_VARARGS, inspect.CO_VARKEYWORDS):
        fits = fits and code.co_flags & flag >= wanted.co_flags & flag
    if not code.co_flags & inspect.CO_VARKEYWORDS:
        fits = fits and {*optional, *wanted_keywords} <= {*names, *keywords}
    return None if fits else f"it takes {_signature(own, bound)}, and must take {_signature(there, bound)}"


def _parameters(code: CodeType, bound: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the parameters by position, and by name alone."""
    last = code.co_argcount + code.co_kwonlyargcount
    return code.co_varnames[int(bound) : code.co_argcount], code.co_varnames[code.co_argcount : last]


def _written(store: type) -> Iterator[tuple[str, object]]:
    """The attributes that a class and its bases define, except storeconf's: each name once, as the class sees it."""
    seen: set[str] = set()
    for each in store.__mro__:
        if each is object or _is_own(each):
            continue
        for name, attribute in vars(each).items():
            if name not in seen:
                seen.add(name)
                yield name, attribute


def _models_in(model: type[Any]) -> Iterator[type[Any]]:
    """The models that the fields of a model have as their types, or within them."""
    seen, types = {model}, [info.annotation for info in model.model_fields.values()]
    while types:
        each = types.pop()
        types += get_args(each)
        if isinstance(each, type) and hasattr(each, "model_fields") and each not in seen:
            seen.add(each)
            types += [info.annotation for info in each.model_fields.values()]
            yield each


def _is_own(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == _PACKAGE


def _unknown_hook(name: str, base: type) -> str:
    near = close(name, [each for each in dir(base) if each.startswith(_HOOK)])
    meant = f"; did you mean {near}()?" if near else ""
    return f"has a method {name}(), but names that begin with 'do_' are those of hooks{meant}"


def _kind_fits(own: FunctionType, there: FunctionType, *, by_name: bool) -> bool:
    generator, coroutine = inspect.CO_ASYNC_GENERATOR, inspect.CO_COROUTINE
    flags, wanted = own.__code__.co_flags, there.__code__.co_flags
    if _lists(there.__name__):  # an async generator, or a function that returns an iterator
        return not flags & coroutine
    if not wanted & coroutine:
        return not flags & _ASYNC
    return bool(flags & coroutine) or (by_name and not flags & generator)  # an operation may return an awaitable


def _is_async(function: FunctionType) -> bool:
    return bool(function.__code__.co_flags & inspect.CO_COROUTINE) or _lists(function.__name__)


def _lists(name: str) -> bool:
    """Whether a method of this name gives an asynchronous iterator."""
    return name.removeprefix(_HOOK).removeprefix("around_") in ("keys", "walk")


def _signature(function: Callable[..., Any], bound: bool) -> str:
    parameters = list(inspect.signature(function, follow_wrapped=False).parameters.values())[int(bound) :]
    shown = [each.replace(annotation=inspect.Parameter.empty) for each in parameters]
    return str(inspect.Signature(shown))


def _shown(name: str, info: Any) -> str:
    """The name of a field in a layout."""
    return info.validation_alias if isinstance(info.validation_alias, str) else name
