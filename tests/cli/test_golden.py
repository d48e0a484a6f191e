"""What the commands print for the example shop, word for word, and that its twin in TOML is the very same layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from storeconf.layout import check_layout, read_layout
from tests.cli import golden

if TYPE_CHECKING:
    from pathlib import Path


def test_the_shop_looks_as_it_did() -> None:
    """`python -m tests.cli.golden` writes the files anew; the difference is for a person to read."""
    produced = golden.produce()
    assert sorted(produced) == sorted(path.name for path in golden.DIRECTORY.iterdir())
    for name, text in produced.items():
        assert text == (golden.DIRECTORY / name).read_text(), name


@pytest.mark.parametrize("environment", [None, "development", "staging", "production"])
def test_the_shop_in_toml_is_the_same_layout(environment: str | None, directory: Path) -> None:
    examples = golden.SHOP.parent
    for source, target in (("shop/storeconf.yaml", "shop.yaml"), ("shop-toml/storeconf.toml", "shop.toml")):
        (directory / target).write_text((examples / source).read_text())
    in_yaml, in_toml = (
        read_layout(directory / name, environment=environment, environ={}) for name in ("shop.yaml", "shop.toml")
    )
    assert in_yaml == in_toml
    assert in_yaml.dump(masked=False) == in_toml.dump(masked=False)
    assert str(in_yaml.plan()) == str(in_toml.plan())


def test_both_shops_are_without_a_fault() -> None:
    for file in (golden.SHOP / "storeconf.yaml", golden.SHOP.parent / "shop-toml/storeconf.toml"):
        report = check_layout(file, all_environments=True, environ={})
        assert report.environments == ("development", "staging", "production")
        assert report.diagnostics == ()
