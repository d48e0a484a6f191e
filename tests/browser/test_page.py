"""The page of `storeconf graph --format html` in a real Chromium: what it shows, and what a click or key does."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.chromium import Page, opened
from tests.cli.running import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LAYOUT = """
stores:
  local: {type: memory, max_size: 64MiB}
  main:
    type: redis
    url: redis://app:hunter2@db:6379/0
    namespace: shop
    description: <b id="injected">sessions</b> & "more" </script><script>window.injected = 1</script>
    middleware: {ttl: 14d, fallback: local}
  cache: {parent: main, middleware: {compress: zstd}}
  pages: {parent: cache, namespace: html}
  end: {use: pages}
default_factory: {parent: cache}
environments:
  development:
    stores: {main: {type: memory}, extra: {parent: main}}
    default_factory: forbid
  production:
    stores:
      main: {url: "redis://app:hunter3@db:6379/0", middleware: {ttl: 7d}}
      other: {type: redis, url: "${OTHER_URL:?production needs OTHER_URL}", namespace: n}
  staging: {}
  broken:
    stores: {main: {timeout: 3}}
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with opened(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def show(browser: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Page]]:
    """Opens the page of a layout; nothing on it may have failed, and nothing may have been fetched."""
    monkeypatch.chdir(tmp_path)
    browser.size(1440, 900)
    browser.media()
    address = (tmp_path / "page.html").as_uri()

    def opening(text: str, *arguments: str, name: str = "storeconf.yaml") -> Page:
        (tmp_path / name).write_text(text)
        done = run("graph", "--format", "html", "-f", name, *arguments)
        assert done.status == 0, done.err
        (tmp_path / "page.html").write_text(done.out)
        browser.open(address)
        return browser

    browser.errors.clear()
    browser.requests.clear()
    yield opening
    browser.js("localStorage.clear()")
    assert browser.errors == []
    assert set(browser.requests) <= {"about:blank", address}


def names(page: Page) -> list[str]:
    found: list[str] = page.js("[...document.querySelectorAll('#graph .node .name')].map((each) => each.textContent)")
    return sorted(found)


def marks(page: Page) -> dict[str, str]:
    found: dict[str, str] = page.js(
        "Object.fromEntries([...document.querySelectorAll('#graph .node:has(.mark)')]"
        ".map((each) => [each.dataset.store, each.querySelector('.mark').textContent]))"
    )
    return found


def edges(page: Page) -> dict[tuple[str, str], tuple[float, list[str]]]:
    """The edges with their opacity and classes."""
    found: list[Any] = page.js(
        "[...document.querySelectorAll('#graph .edge')].map((each) => [each.dataset.start, each.dataset.end,"
        "Number(getComputedStyle(each).opacity), [...each.classList]])"
    )
    return {(start, end): (opacity, classes) for start, end, opacity, classes in found}


def overlapping(page: Page) -> list[Any]:
    """The texts of the graph that share some area, as pairs, and texts that leave their box."""
    texts: list[Any] = page.js(
        "[...document.querySelectorAll('#graph text')].map((each) => { const at = each.getBoundingClientRect();"
        "const box = each.parentNode.querySelector('rect').getBoundingClientRect();"
        "return [each.textContent, at.left, at.top + 1, at.right, at.bottom - 1, at.left >= box.left &&"
        "at.right <= box.right && at.top >= box.top && at.bottom <= box.bottom]; })"
    )
    texts.sort(key=lambda each: float(each[1]))
    found: list[Any] = [text for text, *_, inside in texts if not inside]
    active: list[Any] = []
    for text, left, top, right, bottom, _ in texts:
        active = [each for each in active if each[3] > left]
        found += [(text, each[0]) for each in active if each[2] < bottom and top < each[4]]
        active.append((text, left, top, right, bottom))
    return found


def test_a_switch_shows_every_environment(show: Callable[..., Page]) -> None:
    page = show(LAYOUT)
    assert page.text("#environments").split() == ["development", "production", "staging", "broken"]
    assert page.text("h1").split() == ["development", "storeconf.yaml"]
    assert names(page) == ["any other name", "cache", "end", "extra", "local", "main", "pages"]
    assert "is an error (forbid)" in page.text('[data-store="*"]')
    page.click("#environments label:nth-of-type(2)")
    assert names(page) == ["any other name", "cache", "end", "local", "main", "other", "pages"]
    assert page.text("h1").startswith("production")
    assert "shop:cache:<name>" in page.text('[data-store="*"]')
    assert "missing when this page was made" in page.text("#note")
    page.click('[data-store="other"]')
    assert "${OTHER_URL:?production needs OTHER_URL}" in page.text("#details")
    page.type("e")
    assert page.text("h1").startswith("staging")
    assert page.js("document.querySelector('#note').hidden")
    page.click("#environments label:nth-of-type(4)")
    assert page.text("#note").splitlines()[0] == "broken is not valid:"
    assert "SC501  storeconf.yaml:24:21" in page.text("#note")
    assert names(page) == []


def test_the_environment_of_the_call_is_shown_first(show: Callable[..., Page]) -> None:
    assert show(LAYOUT, "--env", "staging").text("h1").startswith("staging")
    assert run("graph", "--format", "html", "--env", "broken").status == 1
    assert run("graph", "--format", "html", "--env", "production").status == 1
    page = show("stores: {a: {type: memory}}\n")
    assert page.text("h1").split() == ["no", "environment", "storeconf.yaml"]
    assert not page.text("#environments")
    assert "a hidden memory store" in page.text('[data-store="*"]')


def test_what_differs_between_two_environments_is_marked(show: Callable[..., Page]) -> None:
    page = show(LAYOUT, "--env", "production", "--without-secrets")
    page.choose("#compare", "development")
    assert marks(page) == {"main": "~", "extra": "\N{MINUS SIGN}", "other": "+", "*": "~"}
    assert edges(page)["main", "extra"][1] == ["edge", "namespace", "removed"]
    assert edges(page)["cache", "*"][1] == ["edge", "namespace", "added"]
    assert edges(page)["main", "cache"][1] == ["edge", "namespace"]
    page.click('[data-store="main"]')
    changes = page.text("#details section")
    assert changes.startswith("development → production")
    for line in ("type\tmemory → redis", "middleware.ttl\t14d → 7d", "url\tredis://app:***@db:6379/0"):
        assert line in changes, changes
    assert "storeconf.yaml:9:23 → storeconf.yaml:20:70" in changes
    page.choose("#compare", "staging")
    assert marks(page) == {"main": "~", "other": "+"}
    assert "redis://app:***@db:6379/0 → redis://app:***@db:6379/0 (they differ)" in page.text("#details")
    page.click("#changed")
    assert names(page) == ["main", "other"]
    assert page.text("#count") == "2 of 6 stores"


def test_search_and_filters_leave_what_matches_and_its_parents(show: Callable[..., Page]) -> None:
    page = show(LAYOUT, "--env", "staging")
    assert page.text("#count") == "5 stores"
    page.type("/")
    page.type("zstd html")
    assert names(page) == ["cache", "main", "pages"]
    assert page.text("#count") == "1 of 5 stores"
    assert page.js("document.querySelector('[data-store=main]').classList.contains('context')")
    assert page.js("[...document.querySelectorAll('#table [data-row]')].map((row) => row.dataset.row)") == ["pages"]
    page.press("Enter")
    assert page.text("#details h2") == "pages"
    page.click("#search")
    page.press("Escape")
    assert page.text("#count") == "5 stores"
    page.choose("#type", "memory")
    assert names(page) == ["local"]
    page.choose("#type", "all")
    page.choose("#middleware", "compress")
    assert names(page) == ["any other name", "cache", "main", "pages"]
    page.click("#search")
    page.type("no such thing")
    assert (names(page), page.text("#count")) == ([], "0 of 5 stores")


def test_a_click_shows_chain_and_settings_with_file_and_line(show: Callable[..., Page]) -> None:
    page = show(LAYOUT, "--env", "production", "--without-secrets", "--set", "stores.local.max_size=32MiB")
    assert page.js("document.querySelector('#details').hidden")
    page.click('[data-store="cache"]')
    assert page.text("#details h2") == "cache"
    details = page.text("#details")
    assert "namespace of main" in details
    links = ["ttl 7d, inherited from main\n", "fallback local, inherited from main\n", "compress zstd\n"]
    assert sorted(links, key=details.index) == links
    assert "ttl\t7d\tstoreconf.yaml:20:70 (environment)" in details
    assert "\t14d\tstoreconf.yaml:9:23, shadowed" in details
    assert "parent\tmain\tstoreconf.yaml:10:19" in details
    page.click('[data-store="local"]')
    assert "max_size\t33554432\t--set (override)" in page.text("#details")
    assert "Called by\n\nmain (fallback), cache (fallback), pages (fallback), any other name (fallback)" in page.text(
        "#details"
    )
    page.click("#details section:last-of-type button.link")
    assert page.text("#details h2") == "main"
    assert '<b id="injected">sessions</b> & "more" </script>' in page.text("#details")
    assert page.js("window.injected ?? document.getElementById('injected')") is None
    assert "hunter" not in page.js("document.documentElement.outerHTML")
    page.press("Escape")
    assert page.js("document.querySelector('#details').hidden")


def test_hovering_emphasises_the_edges_of_one_store(show: Callable[..., Page]) -> None:
    page = show(LAYOUT, "--env", "staging")
    page.hover('[data-store="cache"]')
    shown = edges(page)
    near = {edge for edge in shown if "cache" in edge}
    assert near == {("main", "cache"), ("cache", "local"), ("cache", "pages"), ("cache", "*")}
    assert all(shown[edge][0] == 1 for edge in near)
    assert all(opacity <= 0.2 for edge, (opacity, _) in shown.items() if edge not in near)
    assert len(shown) > len(near)
    page.hover("h1")
    shown = edges(page)
    assert shown["main", "local"][0] > 0.5
    assert shown["cache", "local"][0] == 0  # inherited: the same as its parent's
    assert all(opacity > 0.5 for opacity, classes in shown.values() if "inherited" not in classes)


def test_the_keyboard_reaches_everything(show: Callable[..., Page]) -> None:
    page = show(LAYOUT, "--env", "staging")
    focused = "document.activeElement.dataset?.store ?? document.activeElement.id"
    for _ in range(30):
        page.press("Tab")
        if page.js("document.activeElement.classList.contains('node')"):
            break
    assert page.js(focused) == "local"
    for key, store in (("Down", "main"), ("Right", "cache"), ("Right", "*"), ("Down", "pages"), ("Left", "cache")):
        page.press(f"Arrow{key}")
        assert page.js(focused) == store, key
    assert edges(page)["main", "cache"][0] == 1
    assert edges(page)["main", "local"][0] <= 0.2
    page.press("Enter")
    assert page.text("#details h2") == "cache"
    page.press("Tab")
    assert page.js("document.activeElement.closest('#details') !== null")
    page.press("Escape")
    assert page.js(focused) == "cache"
    assert page.js("document.querySelector('#details').hidden")


def test_the_address_names_what_is_shown(show: Callable[..., Page], tmp_path: Path) -> None:
    page = show(LAYOUT, "--env", "production", "--without-secrets")
    page.choose("#compare", "staging")
    page.click('[data-store="main"]')
    address = str(page.js("location.href"))
    assert address.endswith("#env=production&compare=staging&store=main")
    page.open(address)
    assert marks(page) == {"main": "~", "other": "+"}
    assert page.text("#details h2") == "main"
    page.requests = [each.split("#")[0] for each in page.requests]


def test_light_dark_and_print(show: Callable[..., Page]) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    page = show(LAYOUT, "--env", "staging")
    light = page.js(background)
    page.media(scheme="dark")
    page.wait(f"{background} !== {light!r}")
    dark = page.js(background)
    page.click("#theme")
    assert page.js(background) == light
    page.media(media="print", scheme="dark")
    page.click("#theme") if page.js("document.documentElement.dataset.theme !== 'dark'") else None
    assert page.js(background) == "rgb(255, 255, 255)"
    assert page.js("getComputedStyle(document.querySelector('.controls')).display") == "none"
    assert page.js("document.querySelector('#table').offsetHeight > 0")
    assert page.pdf().startswith(b"%PDF")
    assert dark != light


def many(number: int) -> str:
    """So many stores: a tenth of them roots, the others their namespaces, and one store that all fall back to."""
    roots = max(1, number // 10)
    lines = ["stores:", "  local: {type: memory}"]
    for at in range(number - 1):
        if at < roots:
            lines.append(f"  root-{at}: {{type: memory, namespace: n{at}, middleware: {{ttl: 14d, fallback: local}}}}")
        else:
            lines.append(
                f"  store-{'x' * (at % 30)}{at}: {{parent: root-{at % roots}, middleware: {{compress: gzip}}}}"
            )
    lines.append("default_factory: {parent: root-0}")
    return "\n".join([*lines, "environments: {one: {}, two: {stores: {root-0: {max_entries: 5}}}}\n"])


@pytest.mark.parametrize("number", [10, 90, 1000])
def test_no_label_covers_another(number: int, show: Callable[..., Page], tmp_path: Path) -> None:
    page = show(many(number))
    assert page.text("#count") == f"{number:,} stores"
    assert overlapping(page) == []
    page.choose("#compare", "two")
    assert marks(page) == {"root-0": "~"}
    assert overlapping(page) == []
    page.screenshot(tmp_path / f"{number}.png")
    assert (tmp_path / f"{number}.png").stat().st_size > 20_000
    page.hover('[data-store="root-0"]')
    shown = edges(page)
    assert all(opacity == 1 if "root-0" in edge else opacity <= 0.2 for edge, (opacity, _) in shown.items())
    page.type("/")
    page.type(str(number - 2))
    page.wait(f"document.querySelector('#count').value === '1 of {number:,} stores'")
    assert overlapping(page) == []


def test_stores_in_every_shape_stay_apart(show: Callable[..., Page]) -> None:
    """Long names, long lines, deep trees, many aliases, and ninety stores with one fallback without a common parent."""
    chain = ["stores:", "  a0: {type: memory}"]
    chain += [f"  a{at}: {{parent: a{at - 1}}}" for at in range(1, 30)]
    chain += [f"  {'long-name-' * 6}{at}: {{use: a3}}" for at in range(20)]
    chain += [
        f"  b{at}: {{type: memory, namespace: {'n' * (3 * at)}x, middleware: {{fallback: a0}}}}" for at in range(90)
    ]
    page = show("\n".join([*chain, "default_factory: {type: memory, middleware: {fallback: a0, ttl: 1d}}\n"]))
    assert page.text("#count") == "140 stores"
    assert overlapping(page) == []
    widths = page.js("[...document.querySelectorAll('#graph rect')].map((each) => each.width.baseVal.value)")
    assert max(widths) < 400
    for key in "+", "-", "0":
        page.type(key)
    sizes = [page.js("document.querySelector('#graph').width.baseVal.value")]
    for key in "++":
        page.type(key)
        sizes.append(page.js("document.querySelector('#graph').width.baseVal.value"))
    assert all(before < after for before, after in pairwise(sizes))
