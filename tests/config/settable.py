"""A layout with a store of each kind, which variables and overrides change."""

from __future__ import annotations

from typing import Any

import pytest

from tests.config.assembling import Workplace, work

__all__ = ["work"]


LAYOUT = """\
stores:
  main: {type: redis, url: 'redis://a', namespace: shop, middleware: {ttl: {max: 30d}}}
  many: {type: redis, cluster: ['a:1', 'b:1'], namespace: shop, tls: {ca_file: ca.pem}}
  watched: {type: valkey, sentinel: {nodes: ['a:1'], service: s}, namespace: shop}
  rate-limit: {parent: main}
  same: {use: rate-limit}
default_factory: {parent: main}
"""


@pytest.fixture
def layout(work: Workplace) -> Workplace:
    return work.write(storeconf__yaml=LAYOUT)


def set_by(work: Workplace, **variables: str) -> dict[str, Any]:
    """The tree of the layout with variables whose names lack the prefix."""
    return work.tree(environ={f"STORECONF__{name}": value for name, value in variables.items()})


def stores(work: Workplace, **variables: str) -> Any:
    return set_by(work, **{f"STORES__{name}": value for name, value in variables.items()})["stores"]
