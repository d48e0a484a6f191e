"""Where each value came from, and what it shadows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.config.assembling import Workplace, events, place, work
from tests.config.sized import MEMORY

if TYPE_CHECKING:
    from storeconf.config.pipeline import Assembly

__all__ = ["work"]


class TestOrigins:
    def test_a_change_of_kind_removes(self, work: Workplace) -> None:
        work.write(
            storeconf__yaml="stores: {a: {type: redis, url: 'redis://a', namespace: n}}\n",
            storeconf__dev__yaml="stores: {a: {type: memory}}\n",
        )
        assembly = work.assemble(environment="dev")
        assert events(assembly.history.of(("stores", "a", "url"))) == [
            ("overlay", "storeconf.dev.yaml:1:20", ...),
            ("file", "storeconf.yaml:1:32", "redis://a"),
        ]
        assert events(assembly.history.of(("stores", "a", "namespace"))) == [("file", "storeconf.yaml:1:56", "n")]
        assert events(assembly.history.of(("stores", "a", "type"))) == [
            ("overlay", "storeconf.dev.yaml:1:20", "memory"),
            ("file", "storeconf.yaml:1:20", "redis"),
        ]

    def test_an_exclusive_field_removes(self, work: Workplace) -> None:
        work.write(
            storeconf__yaml="stores: {a: {type: redis, url: 'redis://a'}}\n",
            storeconf__dev__yaml="stores: {a: {cluster: ['x:1']}}\n",
        )
        assert events(work.assemble(environment="dev").history.of(("stores", "a", "url"))) == [
            ("overlay", "storeconf.dev.yaml:1:23", ...),
            ("file", "storeconf.yaml:1:32", "redis://a"),
        ]

    def test_null_and_a_scalar_remove(self, work: Workplace) -> None:
        work.write(
            storeconf__yaml="""\
                stores: {a: {type: redis, tls: {verify: none}}, b: {type: memory}}
                default_factory: {use: a}
            """,
            storeconf__dev__yaml="stores: {a: {tls: true}, b: null}\ndefault_factory: forbid\n",
        )
        assembly = work.assemble(environment="dev")
        assert events(assembly.history.of(("stores", "a", "tls", "verify"))) == [
            ("overlay", "storeconf.dev.yaml:1:19", ...),
            ("file", "storeconf.yaml:1:41", "none"),
        ]
        assert events(assembly.history.of(("stores", "b", "type")))[0] == (
            "overlay",
            "storeconf.dev.yaml:1:26",
            ...,
        )
        assert events(assembly.history.of(("default_factory", "use")))[0] == (
            "overlay",
            "storeconf.dev.yaml:2:18",
            ...,
        )

    def test_a_shorthand_sets_the_main_setting(self, work: Workplace) -> None:
        work.write(
            storeconf__yaml="stores: {a: {type: memory, middleware: {ttl: {default: 1d, max: 2d}}}}\n",
            storeconf__dev__yaml="stores: {a: {middleware: {ttl: 7d}}}\n",
        )
        assembly = work.assemble(environment="dev")
        path = ("stores", "a", "middleware", "ttl", "default")
        assert events(assembly.history.of(path)) == [
            ("overlay", "storeconf.dev.yaml:1:32", "7d"),
            ("file", "storeconf.yaml:1:56", "1d"),
        ]
        assert place(assembly.history.place(path)) == ("storeconf.dev.yaml", 1, 32)
        assert place(assembly.history.place((*path[:-1], "max"))) == ("storeconf.yaml", 1, 65)

    def test_a_shorthand_is_removed(self, work: Workplace) -> None:
        work.write(
            storeconf__yaml="stores: {a: {type: memory, middleware: {ttl: 1d}}}\n",
            storeconf__dev__yaml="stores: {a: {middleware: {ttl: {default: null, max: 2d}}}}\n",
        )
        assert events(work.assemble(environment="dev").history.of(("stores", "a", "middleware", "ttl", "default"))) == [
            ("overlay", "storeconf.dev.yaml:1:33", ...),
            ("file", "storeconf.yaml:1:46", "1d"),
        ]

    def test_items_of_lists(self, work: Workplace) -> None:
        work.write(storeconf__yaml="stores: {a: {type: redis, cluster: ['x:1', 'y:1']}}\n")
        assembly = work.assemble(environ={"STORECONF__STORES__A__CLUSTER__1": "z:1"})
        assert assembly.tree["stores"]["a"]["cluster"] == ["x:1", "z:1"]
        assert events(assembly.history.of(("stores", "a", "cluster", 0))) == [("file", "storeconf.yaml:1:37", "x:1")]
        assert events(assembly.history.of(("stores", "a", "cluster", 1))) == [
            ("variable", "$STORECONF__STORES__A__CLUSTER__1", "z:1"),
            ("file", "storeconf.yaml:1:44", "y:1"),
        ]
        assert events(assembly.history.of(("stores", "a", "cluster"))) == [
            ("variable", "$STORECONF__STORES__A__CLUSTER__1", ["x:1", "z:1"]),
            ("file", "storeconf.yaml:1:36", ["x:1", "y:1"]),
        ]

    def test_values_are_masked_by_who_knows_what_is_secret(self, work: Workplace) -> None:
        work.write(storeconf__yaml="stores: {a: {type: redis, password: geheim}}\n", secret="hush\n")
        assembly = work.assemble(environ={"STORECONF__STORES__A__PASSWORD_FILE": "secret"})
        path = ("stores", "a", "password")
        masked = assembly.history.of(path, lambda path, value: f"<{path[-1]}>")
        assert events(masked) == [
            ("variable", "$STORECONF__STORES__A__PASSWORD_FILE", "***"),
            ("file", "storeconf.yaml:1:37", "<password>"),
        ]

    def test_nobody_said_anything(self, work: Workplace) -> None:
        work.write(storeconf__yaml=MEMORY)
        assembly = work.assemble()
        assert assembly.history.of(("stores", "a", "max_size")) is None
        assert assembly.history.of(("stores", "b")) is None
        assert assembly.history.of(("default_factory", "use")) is None
        assert assembly.history.of(()) is None

    def test_the_place_of_a_mapping_is_its_first(self, work: Workplace) -> None:
        work.write(
            base__yaml="stores:\n  a: {type: redis}\n  b: {type: redis, db: 1}\n",
            storeconf__yaml="extends: [base.yaml]\nstores:\n  a: {db: 1}\n  b: {type: memory}\n",
        )
        assembly = work.assemble()
        assert place(assembly.history.place(("stores", "a"), key=True)) == ("base.yaml", 2, 3)
        assert place(assembly.history.place(("stores", "b"), key=True)) == ("storeconf.yaml", 4, 3)
        # What is not there stands where it would have to: in the nearest mapping that is.
        assert place(assembly.history.place(("stores", "a", "url"))) == ("base.yaml", 2, 3)
        assert place(assembly.history.place(("stores", "c", "url"))) == ("base.yaml", 1, 1)

    def test_relative_paths(self, work: Workplace) -> None:
        work.file("conf/base.yaml", "stores: {a: {type: file, path: x}, b: {type: file, path: x}}\n")
        work.write(storeconf__yaml="extends: [conf/base.yaml]\nstores: {b: {path: y}}\n")
        work.file("deploy/storeconf.yaml", "extends: [../storeconf.yaml]\n")
        assembly = work.assemble("deploy/storeconf.yaml", environ={"STORECONF__STORES__C__TYPE": "file"})
        assert directory(assembly, "a", "path").resolve() == (work.path / "conf").resolve()
        assert directory(assembly, "b", "path").resolve() == work.path.resolve()
        assert directory(assembly, "c", "type") == Path.cwd()
        source = {"stores": {"a": {"type": "file", "path": "x"}}}
        assert directory(work.assemble(source), "a", "path") == Path.cwd()


def directory(assembly: Assembly, *path: str) -> Path:
    """What relative paths in a store are relative to."""
    layer = assembly.history.layer(("stores", *path))
    assert layer is not None
    return layer.directory
