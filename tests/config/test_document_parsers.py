"""What storeconf says of a broken file does not hang on its parsers' own limits and wording, which change with them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from yaml.scanner import ScannerError

from storeconf.config.document import parse
from storeconf.config.readers import yaml_reader
from storeconf.errors import ConfigError


def codes(data: bytes, form: Any) -> list[tuple[str, int | None]]:
    with pytest.raises(ConfigError) as caught:
        parse(data, form, "a")
    return [(each.code, each.line) for each in caught.value.diagnostics]


class Shallow(yaml.SafeLoader):
    """A parser that refuses to look further ahead than 120 brackets, as PyYAML 6.0.4 does from 1,000 on."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803  # its name there
        if self.flow_level >= 120:
            raise ScannerError("in a part of the text", self.get_mark(), "that is enough", self.get_mark())
        super().fetch_flow_collection_start(TokenClass)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stores: " + "[" * 5_000 + "]" * 5_000, [("SC109", 1)]),
        ("a: 1\nb: " + "[" * 130, [("SC109", 2)]),
        ("a: 1\na: " + "{b: " * 130, [("SC108", 2), ("SC109", 2)]),
        ("{" * 130, [("SC114", 1), ("SC109", 1)]),
        ("a: [" + "[], " * 200 + "}", [("SC107", 1)]),
    ],
    ids=["closed", "open", "after-another", "keys", "not-deep"],
)
def test_our_limit_is_found_where_the_parser_reaches_one_of_its_own(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: list[tuple[str, int]]
) -> None:
    monkeypatch.setattr(yaml_reader, "_LOADER", Shallow)
    assert codes(text.encode(), "yaml") == expected
