"""Random bytes, random texts and mutated documents: a document or a `ConfigError` with places, and nothing else.

``python -m tests.fuzz_readers`` runs the same for as long as one likes.
"""

from __future__ import annotations

import random
from itertools import islice
from typing import TYPE_CHECKING, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from storeconf.config.language import Format
from storeconf.config.readers import yaml_reader
from tests.fuzz_readers import SEEDS, TOKENS, check, check_layout, mutations

if TYPE_CHECKING:
    from pathlib import Path

FORMATS: tuple[Format, ...] = get_args(Format)


@pytest.mark.parametrize(("form", "text"), [(form, text) for form in FORMATS for text in SEEDS[form]])
def test_what_the_mutations_begin_with_is_right(form: Format, text: str) -> None:
    assert check(text.encode(), form) is not None


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_bytes(form: Format, data: bytes) -> None:
    check(data, form)


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=100)
@given(st.lists(st.sampled_from(TOKENS) | st.text(max_size=3), max_size=30).map("".join))
def test_tokens(form: Format, text: str) -> None:
    check(text.encode("utf-8", "surrogatepass"), form)


@pytest.mark.parametrize("libyaml", [True, False])
def test_mutated_documents(libyaml: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not libyaml:
        monkeypatch.setattr(yaml_reader, "_LOADER", yaml.SafeLoader)
    seed = random.randrange(2**32)
    for data, form in islice(mutations(random.Random(seed)), 2_000 if libyaml else 1_000):
        try:
            check(data, form)
        except BaseException:
            print(f"{form} {data!r}")
            raise


def test_layouts_of_mutated_documents(tmp_path: Path) -> None:
    source = random.Random(random.randrange(2**32))
    for data, form in islice(mutations(source), 1_000):
        try:
            check_layout(data, form, tmp_path, source.choice((None, "development", "production")))
        except BaseException:
            print(f"{form} {data!r}")
            raise
