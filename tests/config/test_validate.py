"""What is wrong with fields, values and references, and where it is shown.

Each example marks the token that the diagnostic must point at: ⟦…⟧.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.config.problems import Case, _working_directory, case, check, marked, span, the_error

__all__ = ["_working_directory"]

REDIS = "type: redis, url: 'redis://localhost', namespace: a"

ENVELOPE = [
    case("version", "version: ⟦2⟧", "SC505", "reads version 1 of its language, not 2"),
    case("version as a text", "version: ⟦'1'⟧", "SC505", 'reads version 1 of its language, not "1"'),
    case("version true", "version: ⟦true⟧", "SC505", "not true"),
    case("unknown key", "⟦store⟧: {}", "SC501", "unknown top-level key 'store'", "did you mean 'stores'?"),
    case("strange key", "⟦zzz⟧: 1", "SC501", "unknown top-level key 'zzz'", "known keys: version, extends"),
    case("stores is a list", "stores: ⟦[a, b]⟧", "SC503", "stores must be a mapping from names to stores, not a list"),
    case("store is a text", "stores: {a: ⟦memory⟧}", "SC503", "a must be a mapping, not a text", "below its name"),
    case("no blank after a colon", "stores:\n  a:\n    ⟦type:memory⟧\n", "SC503", "not a text", "add a space"),
    case("a store's field too far left", "stores: {type: ⟦memory⟧}", "SC503", "not a text", "if 'type' is a field of"),
    case(
        "a store beside its heading",
        "{⟦main⟧: {type: memory}}",
        "SC501",
        "unknown top-level key 'main'",
        "if 'main' is a store, write it below 'stores'",
    ),
    case(
        "a factory that is a field", "default_factory: ⟦a=b⟧", "SC506", "default_factory can't be this text", "forbid"
    ),
    case("bad name", "stores: {⟦a__b⟧: {type: memory}}", "SC509", "'a__b' can't name a store", "without '__'"),
    case("bad last letter", "stores: {⟦a-⟧: {type: memory}}", "SC509", "'a-' can't name a store"),
    case("no kind", "stores: {⟦a⟧: {}}", "SC506", "store 'a' needs one of 'type', 'parent' and 'use'"),
    case(
        "misspelt store",
        "{stores: {main: {type: memory}, ⟦mian⟧: {max_entries: 3}}}",
        "SC506",
        "'mian'",
        "mean 'main'?",
    ),
    case("misspelt kind", "stores: {a: {⟦tpye⟧: memory}}", "SC501", "no field 'tpye'", "did you mean 'type'?"),
    case(
        "two kinds",
        "stores: {b: {type: memory}, a: {type: memory, ⟦parent⟧: b}}",
        "SC507",
        "store 'a' has 'type' and 'parent', of which it can have one",
    ),
    case("type is a number", "stores: {a: {type: ⟦3⟧}}", "SC503", "type must be a text, not the whole number 3"),
    case("parent is a list", "stores: {a: {parent: ⟦[b]⟧}}", "SC503", "parent must be a text, not a list"),
    case("description", "stores: {a: {type: memory, description: ⟦3⟧}}", "SC503", "description must be a text"),
    case("child's namespace", "stores: {b: {type: memory}, a: {parent: b, namespace: ⟦x:y⟧}}", "SC509", "'x:y' can't"),
    case("empty namespace", "stores: {b: {type: memory}, a: {parent: b, namespace: ⟦''⟧}}", "SC509", "'' can't name"),
    case("root's namespace", "stores: {a: {type: memory, namespace: ⟦x y⟧}}", "SC509", "'x y' can't name a namespace"),
    case("alias with more", "stores: {b: {type: memory}, a: {use: b, ⟦middleware⟧: {}}}", "SC508", "an alias takes no"),
    case("alias with a namespace", "stores: {b: {type: memory}, a: {use: b, ⟦namespace⟧: c}}", "SC508", "takes no"),
    case(
        "child with a root's field",
        "stores: {b: {type: memory}, a: {parent: b, ⟦url⟧: x}}",
        "SC508",
        "'url' belongs to stores of type redis and valkey; a store with a 'parent' has no such field",
    ),
    case(
        "child's typo", "stores: {b: {type: memory}, a: {parent: b, ⟦namspace⟧: x}}", "SC501", "no field", "namespace"
    ),
    case("unknown type", "stores: {a: {type: ⟦redsi⟧}}", "SC701", "unknown backend 'redsi'", "did you mean 'redis'?"),
    case(
        "nothing like a type",
        "stores: {a: {type: ⟦dynamo⟧}}",
        "SC701",
        "unknown backend 'dynamo'",
        "storeconf.backends",
    ),
]
FACTORY = [
    case("a text", "default_factory: ⟦forbidden⟧", "SC506", 'default_factory can\'t be "forbidden"', "or forbid"),
    case("a list", "default_factory: ⟦[a]⟧", "SC503", "default_factory must be a mapping or 'forbid', not a list"),
    case("no kind", "⟦default_factory⟧: {}", "SC506", "default_factory needs one of"),
    case("unknown parent", "default_factory: {parent: ⟦b⟧}", "SC601", "unknown store 'b'"),
    case("unknown use", "default_factory: {use: ⟦b⟧}", "SC601", "unknown store 'b'"),
    case("unknown field", "default_factory: {type: memory, ⟦max_store⟧: 1}", "SC501", "no field", "'max_stores'"),
    case("max_stores", "default_factory: {type: memory, max_stores: ⟦0⟧}", "SC504", "must be greater than 0"),
    case("max_stores as text", "default_factory: {type: memory, max_stores: ⟦'5'⟧}", "SC503", "must be a whole number"),
    case(
        "namespace of a child",
        "stores: {a: {type: memory}}\ndefault_factory: {parent: a, ⟦namespace⟧: b}",
        "SC508",
        "a default_factory with 'parent' takes no 'namespace'",
    ),
    case(
        "max_stores elsewhere",
        "stores: {a: {type: memory, ⟦max_stores⟧: 5}}",
        "SC508",
        "type 'memory' takes no 'max_stores'",
    ),
    case("middleware", "default_factory: {type: memory, middleware: {⟦tll⟧: 3}}", "SC701", "unknown middleware 'tll'"),
]
FIELDS = [
    case("unknown", "stores: {a: {type: memory, ⟦max_entry⟧: 1}}", "SC501", "no field", "did you mean 'max_entries'?"),
    case("of another type", "stores: {a: {type: memory, ⟦path⟧: x}}", "SC508", "'path' belongs to stores of type file"),
    case(
        "of middleware", "stores: {a: {type: memory, ⟦ttl⟧: 3}}", "SC501", "no field 'ttl'", "write it under middleware"
    ),
    case(
        "quite unknown", "stores: {a: {type: memory, ⟦zzz⟧: 3}}", "SC501", "'zzz'", "known fields: description, max_e"
    ),
    case(
        "missing", "stores: {⟦a⟧: {type: file}}", "SC502", "type 'file' needs 'path'", 'for example path: "var/uploads"'
    ),
    case(
        "text for a number", "stores: {a: {type: memory, max_entries: ⟦'5'⟧}}", "SC503", "a whole number", "entries: 5"
    ),
    case("words for a number", "stores: {a: {type: memory, max_entries: ⟦many⟧}}", "SC503", 'not the text "many"'),
    case("flag for a number", "stores: {a: {type: memory, max_entries: ⟦true⟧}}", "SC503", "a whole number, not true"),
    case("fraction", "stores: {a: {type: memory, max_entries: ⟦1.5⟧}}", "SC503", "not the number 1.5"),
    case("number for a flag", "stores: {a: {type: memory, objects: ⟦1⟧}}", "SC503", "must be true or false"),
    case("quoted flag", "stores: {a: {type: memory, objects: ⟦'true'⟧}}", "SC503", "true or false", "objects: true"),
    case("yes for a flag", "stores: {a: {type: memory, objects: ⟦yes⟧}}", "SC503", "true or false", "yes is a text"),
    case("number for a text", f"stores: {{a: {{{REDIS}, client_name: ⟦17⟧}}}}", "SC503", "a text", 'client_name: "17"'),
    case("flag for a text", f"stores: {{a: {{{REDIS}, username: ⟦true⟧}}}}", "SC503", "a text", 'username: "true"'),
    case("mapping for a text", f"stores: {{a: {{{REDIS}, username: ⟦{{a: b}}⟧}}}}", "SC503", "a text, not a mapping"),
    case("text for a list", "stores: {a: {type: redis, namespace: a, cluster: ⟦x⟧}}", "SC503", "a list", '["x"]'),
    case("in a list", "stores: {a: {type: redis, namespace: a, cluster: ['x:1', ⟦3⟧]}}", "SC503", "cluster[1] must be"),
    case("bad in a list", "stores: {a: {type: redis, namespace: a, cluster: ['x:1', ⟦x⟧]}}", "SC504", "host:port"),
    case("bound", "stores: {a: {type: memory, max_entries: ⟦0⟧}}", "SC504", "max_entries must be greater than 0"),
    case("other bound", f"stores: {{a: {{{REDIS}, retries: ⟦101⟧}}}}", "SC504", "retries must be at most 100"),
    case(
        "choice", "stores: {a: {type: file, path: x, durability: ⟦fsnyc⟧}}", "SC504", "'flush' or 'fsync'", "'fsync'?"
    ),
    case(
        "duration", f"stores: {{a: {{{REDIS}, connect_timeout: ⟦3 parsecs⟧}}}}", "SC504", "is not a duration", "seconds"
    ),
    case("no duration", f"stores: {{a: {{{REDIS}, connect_timeout: ⟦true⟧}}}}", "SC503", "a duration, not true"),
    case("size", "stores: {a: {type: memory, max_size: ⟦-1⟧}}", "SC504", "can't be negative"),
    case("pattern", f"stores: {{a: {{{REDIS}, client_name: ⟦a b⟧}}}}", "SC504", "ASCII characters only, and no spaces"),
    case("empty path", "stores: {a: {type: file, path: ⟦''⟧}}", "SC504", "path must be a path, not an empty text"),
    case("nested unknown", f"stores: {{a: {{{REDIS}, tls: {{⟦ca⟧: x}}}}}}", "SC501", "tls has no field 'ca'"),
    case("nested choice", f"stores: {{a: {{{REDIS}, tls: {{verify: ⟦ful⟧}}}}}}", "SC504", "'full', 'chain'", "'full'?"),
    case(
        "nested type",
        f"stores: {{a: {{{REDIS}, tls: {{verify: ⟦3⟧}}}}}}",
        "SC503",
        "'full', 'chain' or 'none', not the",
    ),
    case(
        "nested missing", "stores: {a: {type: redis, namespace: a, ⟦sentinel⟧: {nodes: ['a:1']}}}", "SC502", "'service'"
    ),
    case(
        "neither of a union", f"stores: {{a: {{{REDIS}, tls: ⟦ful⟧}}}}", "SC503", "true or false or a mapping, not the"
    ),
    case(
        "two fields together", "stores: {a: {type: memory, max_size: 1, objects: ⟦true⟧}}", "SC504", "no size in bytes"
    ),
    case("whole model", f"stores: {{a: {{{REDIS}, tls: {{⟦key_file⟧: x}}}}}}", "SC504", "key_file needs cert_file"),
    case("none of three", "stores: {⟦a⟧: {type: redis, namespace: a}}", "SC510", "url, cluster"),
    case(
        "in the URL too", "stores: {a: {type: redis, url: redis://u:p@h, ⟦password⟧: x, namespace: a}}", "SC504", "both"
    ),
]
MIDDLEWARE = [
    case("a list", "stores: {a: {type: memory, middleware: ⟦[ttl]⟧}}", "SC503", "a mapping from kinds to settings"),
    case(
        "unknown kind",
        "stores: {a: {type: memory, middleware: {⟦tlt⟧: 3}}}",
        "SC701",
        "unknown middleware 'tlt'",
        "'ttl'?",
    ),
    case(
        "unknown kind off",
        "stores: {a: {type: memory, middleware: {⟦tlt⟧: false}}}",
        "SC701",
        "unknown middleware 'tlt'",
    ),
    case(
        "setting", "stores: {a: {type: memory, middleware: {ttl: {⟦defualt⟧: 3}}}}", "SC501", "'defualt'", "'default'?"
    ),
    case("scalar", "stores: {a: {type: memory, middleware: {ttl: ⟦soon⟧}}}", "SC504", "is not a duration"),
    case(
        "scalar of a wrong type",
        "stores: {a: {type: memory, middleware: {on_error: ⟦3⟧}}}",
        "SC503",
        "'raise' or 'miss'",
    ),
    case(
        "list for a mapping", "stores: {a: {type: memory, middleware: {ttl: ⟦[1]⟧}}}", "SC503", "ttl must be a mapping"
    ),
    case(
        "missing",
        "stores: {a: {type: memory, middleware: {⟦fallback⟧: {}}}}",
        "SC502",
        "middleware 'fallback' needs 'store'",
    ),
    case(
        "deep", "stores: {a: {type: memory, middleware: {ttl: {jitter: ⟦2⟧}}}}", "SC504", "jitter must be less than 1"
    ),
]
PYDANTIC = [
    case(
        "a mapping for a list",
        "stores: {a: {type: memory, middleware: {encrypt: {⟦keys⟧: {x: y}}}}}",
        "SC503",
        "keys must be a list",
    ),
    case(
        "a number too large",
        f"stores: {{a: {{type: memory, max_entries: ⟦'${{N:-{'9' * 5000}}}'⟧}}}}",
        "SC504",
        "max_entries is too large a number",
    ),
]
OBJECTS = [
    case(
        "compress beside objects",
        "stores: {a: {type: memory, objects: true, middleware: {⟦compress⟧: gzip}}}",
        "SC607",
        "compress works on bytes, and 'a' keeps objects",
        path="stores.a.middleware.compress",
    ),
    case(
        "encrypt in a namespace of objects",
        "stores: {a: {type: memory, objects: true}, b: {use: a}, c: {parent: b, middleware: {⟦encrypt⟧: key}}}",
        "SC607",
        "encrypt works on bytes, and 'a' keeps objects",
        path="stores.c.middleware.encrypt",
    ),
    case(
        "encrypt in the default factory's namespaces",
        "{stores: {a: {type: memory, objects: true}}, default_factory: {parent: a, middleware: {⟦encrypt⟧: key}}}",
        "SC607",
        "encrypt works on bytes, and 'a' keeps objects",
        path="default_factory.middleware.encrypt",
    ),
    case(
        "a default factory of objects",
        "default_factory: {type: memory, objects: true, middleware: {⟦compress⟧: gzip}}",
        "SC607",
        "compress works on bytes, and default_factory keeps objects",
    ),
]
REFERENCES = [
    case(
        "unknown parent",
        "stores: {main: {type: memory}, a: {parent: ⟦mian⟧}}",
        "SC601",
        "unknown store 'mian'",
        "'main'?",
    ),
    case(
        "nothing near", "stores: {main: {type: memory}, a: {use: ⟦xyz⟧}}", "SC601", "'xyz'", "declared stores: main, a"
    ),
    case(
        "unknown fallback", "stores: {a: {type: memory, middleware: {fallback: ⟦xyz⟧}}}", "SC601", "unknown store 'xyz'"
    ),
    case(
        "own parent",
        "stores: {a: {parent: ⟦a⟧}}",
        "SC602",
        "circular store references: a -> a",
        path="stores.a.parent",
    ),
    case(
        "circle",
        "stores: {a: {parent: ⟦b⟧}, b: {use: c}, c: {parent: a}}",
        "SC602",
        "circular store references: a -> b -> c -> a",
    ),
    case("circle further on", "stores: {x: {use: a}, a: {parent: ⟦b⟧}, b: {parent: a}}", "SC602", "a -> b -> a"),
    case(
        "one namespace twice",
        "stores: {m: {type: memory}, a: {parent: m, namespace: n}, b: {parent: m, ⟦namespace⟧: n}}",
        "SC603",
        "'a' and 'b' are the same namespace 'n' of 'm'",
        "write b: {use: a}",
    ),
    case(
        "a name is a namespace",
        "stores: {m: {type: memory}, a: {parent: m}, b: {parent: m, ⟦namespace⟧: a}}",
        "SC603",
        "'a' and 'b' are the same namespace 'a' of 'm'",
    ),
    case(
        "through an alias",
        "stores: {m: {type: memory}, a: {parent: m}, n: {use: m}, b: {parent: n, ⟦namespace⟧: a}}",
        "SC603",
        "the same namespace 'a' of 'm'",
    ),
    case(
        "one path in another",
        "stores: {a: {type: file, path: x}, ⟦b⟧: {type: file, path: x/y}}",
        "SC604",
        "'a' and 'b' would share keys: 'b' is inside 'a'",
        "{use: a}",
    ),
    case(
        "the outer one last",
        "stores: {a: {type: file, path: x/y}, ⟦b⟧: {type: file, path: x}}",
        "SC604",
        "'a' and 'b' would share keys: 'a' is inside 'b'",
    ),
    case(
        "one server, one namespace",
        f"stores: {{x: {{{REDIS}}}, ⟦y⟧: {{type: valkey, url: 'redis://localhost:6379/0', namespace: a}}}}",
        "SC604",
        "'x' and 'y' keep their keys in the same place",
    ),
    *(
        case(
            f"one server as {one} and {other}",
            f"stores: {{x: {{type: redis, url: 'redis://{one}', namespace: a}}, "
            f"⟦y⟧: {{type: redis, cluster: ['{other}'], namespace: a}}}}",
            "SC604",
            "'x' and 'y' keep their keys in the same place",
        )
        for one, other in (
            ("[::1]", "[0:0::1]:6379"),
            ("[2001:DB8:0::1]", "[2001:db8::1]:6379"),
            ("H.example.", "h.EXAMPLE:6379"),
        )
    ),
    case(
        "a root without namespace",
        f"stores: {{x: {{{REDIS}}}, ⟦y⟧: {{type: redis, url: 'redis://localhost', namespace: ''}}}}",
        "SC604",
        "'x' and 'y' would share keys: 'x' is inside 'y'",
    ),
    case(
        "the default factory's root",
        f"stores: {{x: {{{REDIS}}}}}\n⟦default_factory⟧: {{{REDIS}}}",
        "SC604",
        "'x' and default_factory keep their keys in the same place",
        "write default_factory: {parent: x}; if not",
    ),
    case(
        "raw keys",
        "stores: {x: {type: redis, url: 'redis://localhost', namespace: ''}, y: {parent: ⟦x⟧}}",
        "SC605",
        "'x' has no namespace of its own",
        "give 'x' a namespace",
    ),
    case(
        "raw keys for the default factory",
        "stores: {x: {type: redis, url: 'redis://localhost', namespace: ''}}\ndefault_factory: {parent: ⟦x⟧}",
        "SC605",
        "'x' has no namespace of its own",
    ),
    case(
        "falls back to itself",
        "stores: {x: {type: memory, middleware: {fallback: ⟦x⟧}}}",
        "SC602",
        "'x' would need itself for its fallback",
    ),
    case(
        "inherits a fallback to itself",
        "stores: {x: {type: memory, middleware: {fallback: ⟦y⟧}}, y: {parent: x}}",
        "SC602",
        "'y' would need itself for its fallback",
        "y: {middleware: {fallback: false}}",
    ),
    case(
        "falls back in a circle",
        "stores: {x: {type: memory, middleware: {fallback: ⟦y⟧}}, y: {type: memory, middleware: {fallback: x}}}",
        "SC602",
        "circular fallback: x -> y -> x",
    ),
    case(
        "inherits a fallback through an alias",
        "stores: {x: {type: memory, middleware: {fallback: ⟦y⟧}}, z: {use: x}, y: {parent: z}}",
        "SC602",
        "'y' would need itself for its fallback",
    ),
    case(
        "falls back where another one does",
        "stores: {x: {type: memory}, a: {type: file, path: a, middleware: {fallback: x}}, "
        "b: {type: file, path: b, middleware: {fallback: ⟦x⟧}}}",
        "SC606",
        "'b' would share its fallback's keys: 'a' falls back there too",
    ),
    case(
        "falls back into a listed store",
        "stores: {x: {type: memory}, y: {parent: x}, "
        "a: {type: file, namespace: y, path: a, middleware: {fallback: ⟦x⟧}}}",
        "SC606",
        "'a' would share its fallback's keys: 'y' keeps its keys there",
    ),
    case(
        "falls back to raw keys",
        "stores: {r: {type: redis, url: 'redis://localhost', namespace: ''}, "
        "x: {type: memory, namespace: n, middleware: {fallback: ⟦r⟧}}}",
        "SC605",
        "'r' has no namespace of its own",
    ),
]


@pytest.mark.parametrize("example", [*ENVELOPE, *FACTORY, *FIELDS, *MIDDLEWARE, *PYDANTIC, *OBJECTS, *REFERENCES])
def test_one_problem(example: Case) -> None:
    found = the_error(example.text)
    assert (found.code, marked(found)) == (example.code, span(example.text)), str(found)
    assert example.message in found.message
    assert (example.hint or "") in (found.hint or "")
    if example.path is not None:
        assert found.path == example.path
    assert found.file == "storeconf.yaml"
    assert found.layer == "file"
    assert not any(word in str(found).lower() for word in ("pydantic", "input should", "type=", "http"))


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("⟦main⟧: {type: memory}", "if 'main' is a store, write it below 'stores', indented"),
        ("⟦zzz⟧: 1", "known keys: unset, stores, default_factory, acknowledge; those with 'x-' are ignored"),
        ("⟦store⟧: {}", "did you mean 'stores'?"),
    ],
)
def test_a_strange_key_in_an_environment_is_none_of_the_top_level(said: str, hint: str) -> None:
    text = f"environments: {{test: {{{said}}}}}"
    found = the_error(text, environment="test")
    assert (found.code, marked(found), found.hint) == ("SC501", span(text), hint)
    assert found.message.startswith("an environment's section has no key ")


def test_all_problems_come_at_once_in_the_order_of_their_places() -> None:
    report = check("""
        stores:
          b: {parent: nowhere, zzz: 1}
          a: {type: memory, max_entries: x, objects: 3, middleware: {ttl: soon}}
          c: {type: redis, namespace: "x y"}
        default_factory: {use: nothing}
    """)
    places = [(each.code, each.line) for each in report.diagnostics]
    assert places == [
        ("SC601", 3),
        ("SC501", 3),
        ("SC503", 4),
        ("SC503", 4),
        ("SC504", 4),
        ("SC510", 5),
        ("SC509", 5),
        ("SC601", 6),
    ]


def test_unknown_names_show_both_ends() -> None:
    found = the_error("stores:\n  main: {type: memory}\n  a: {parent: mian}")
    (note,) = found.notes
    assert (note.message, note.line, note.column) == ("'main' is declared here", 2, 3)
    assert found.excerpt == ((2, "  main: {type: memory}"), (3, "  a: {parent: mian}"))


def test_a_circle_shows_each_step_with_its_place() -> None:
    found = the_error("stores:\n  a: {parent: b}\n  b: {use: c}\n  c: {parent: a}\n")
    assert [(note.message, note.line) for note in found.notes] == [
        ("'a' has parent 'b'", 2),
        ("'b' uses 'c'", 3),
        ("'c' has parent 'a'", 4),
    ]


def test_several_circles_are_reported_once_each() -> None:
    report = check("stores: {a: {use: b}, b: {use: a}, c: {parent: c}, d: {parent: c}, e: {use: a}, f: {parent: e}}")
    assert [each.message for each in report.diagnostics] == [
        "circular store references: a -> b -> a",
        "circular store references: c -> c",
    ]


def test_fallbacks_in_order_are_no_problem() -> None:
    assert (
        check("""
        stores:
          local: {type: memory}
          main: {type: redis, url: "redis://localhost", namespace: shop, middleware: {fallback: local}}
          cache: {parent: main}
          other: {parent: main, middleware: {fallback: {store: third}}}
          third: {type: memory, middleware: {fallback: false}}
          again: {use: cache}
        default_factory: {parent: main}
    """).diagnostics
        == ()
    )


def test_a_store_in_error_is_declared_all_the_same() -> None:
    found = the_error("stores: {a: {type: memory, max_entries: ⟦x⟧}, b: {parent: a}, c: {use: a}, d: {parent: b}}")
    assert found.path == "stores.a.max_entries"


def test_a_long_chain_of_parents_is_no_problem() -> None:
    chain = "".join(f"  s{number}: {{parent: s{number + 1}}}\n" for number in range(3000))
    assert check(f"stores:\n{chain}  s3000: {{type: memory}}\n").layout is not None
    found = the_error(f"stores:\n{chain}  s3000: {{parent: s0}}\n")
    assert found.code == "SC602"
    assert len(found.notes) == 3001


def test_an_anchor_is_one_place() -> None:
    found = the_error("""
        x-common: &common {type: memory, max_entries: ⟦x⟧}
        stores: {a: *common, b: *common, c: *common}
    """)
    assert found.path == "stores.a.max_entries"


def test_texts_of_variables_have_the_type_that_their_field_wants() -> None:
    environ = {
        "STORECONF__STORES__A__MAX_ENTRIES": "0123",
        "STORECONF__STORES__A__OBJECTS": "true",
        "STORECONF__STORES__A__DESCRIPTION": "0123",
        "STORECONF__STORES__A__MIDDLEWARE__TTL__JITTER": "0.5",
    }
    layout = check("stores: {a: {type: memory, middleware: {ttl: 3}}}", environ=environ).layout
    assert layout is not None
    spec: Any = layout.stores["a"]
    assert spec.backend.max_entries == 123
    assert spec.backend.objects is True
    assert spec.description == "0123"
    assert spec.middleware["ttl"].jitter == 0.5


def test_ill_typed_variables_are_named() -> None:
    found = the_error("stores: {a: {type: memory}}", environ={"STORECONF__STORES__A__MAX_ENTRIES": "many"})
    assert (found.code, found.variable, found.line) == ("SC503", "STORECONF__STORES__A__MAX_ENTRIES", None)
    assert found.message == 'max_entries must be a whole number, not the text "many"'


def test_what_is_substituted_has_the_type_that_its_field_wants() -> None:
    text = "stores: {a: {type: '${T}', max_entries: '${N}', objects: '${O:-false}', namespace: '${N}'}}"
    layout = check(text, environ={"T": "memory", "N": "0123"}).layout
    assert layout is not None
    backend: Any = layout.stores["a"].backend  # type: ignore[union-attr]  # it is a root
    assert (backend.type, backend.max_entries, backend.objects, backend.namespace) == ("memory", 123, False, "0123")


@pytest.mark.parametrize("value", ["true", "{}", "{enabled: true}"])
def test_middleware_can_be_switched_on_with_its_defaults(value: str) -> None:
    layout = check(f"stores: {{a: {{type: memory, middleware: {{read_only: {value}, ttl: false}}}}}}").layout
    assert layout is not None
    links: Any = layout.stores["a"].middleware  # type: ignore[union-attr]  # it is a root
    assert links["read_only"].enabled is True
    assert links["ttl"] is False


def test_paths_are_relative_to_the_file_that_says_them(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base/base.yaml").write_text(
        "stores: {a: {type: file, path: one}, b: {type: redis, namespace: x, url: 'redis://h', tls: {ca_file: ca.pem}}}"
    )
    environ = {"STORECONF__STORES__C__TYPE": "file", "STORECONF__STORES__C__PATH": "three"}
    text = "extends: [base/base.yaml]\nstores: {d: {type: file, path: /four}, e: {type: file, path: five}}"
    layout = check(text, environ=environ, overrides={"stores.e.path": "six"}).layout
    assert layout is not None
    stores: Any = {name: spec.backend for name, spec in layout.stores.items()}  # type: ignore[union-attr]  # all roots
    assert stores["a"].path == tmp_path / "base/one"
    assert stores["b"].tls.ca_file == tmp_path / "base/ca.pem"
    assert stores["c"].path == tmp_path / "three"
    assert stores["d"].path == Path("/four")
    assert stores["e"].path == tmp_path / "six"


def test_warnings_of_backends_are_located() -> None:
    report = check(f"stores:\n  a: {{{REDIS}, tls: {{ca_file: x, verify: none}}}}")
    assert report.layout is not None
    (found,) = report.layout.warnings
    assert (found.code, found.severity, found.path, found.line) == ("SC801", "warning", "stores.a.tls.verify", 2)


def test_placeholders_stand_for_anything() -> None:
    text = """
        stores:
          a: {type: redis, url: "${URL}", namespace: "${NS}", db: "${DB}", password: "${file:/nowhere}"}
          b: {type: redis, url: "${URL}", namespace: "${NS}", tls: {verify: "${V}"}}
          c: {parent: "${P}", namespace: "${NS}"}
          d: {type: "${T}", anything: 1}
          e: {use: "${U}"}
          f: {parent: a, middleware: {ttl: "${TTL}", encrypt: {keys: ["${K}"]}, on_error: "${E}"}}
          g: {type: file, path: "${PATH_}"}
        default_factory: "${F}"
    """
    report = check(text, without_secrets=True)
    assert [str(each) for each in report.diagnostics] == []
    assert {each.code for each in check(text).diagnostics} >= {"SC402", "SC403"}


def test_placeholders_hide_no_other_problem() -> None:
    text = 'stores: {a: {type: redis, url: "${URL}", ⟦urll⟧: 1, namespace: x}}'
    found = the_error(text, without_secrets=True)
    assert (found.code, marked(found)) == ("SC501", span(text))
