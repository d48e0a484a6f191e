"""A headless Chromium, driven over its DevTools protocol on a pipe: no driver and no library besides the browser."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")

KEYS = {
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    "Tab": (9, ""),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
}


def browser() -> str:
    """The installed Chromium."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    assert found is not None, "needs Chromium: `apt-get install chromium`, which `make test-browser` names"
    return found


class Page:
    """One page of a browser. Every error on it fails the test at `close`."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = send, receive
        self._buffer = b""
        self._number = 0
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session: str | None = None
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        self.size(1440, 900)

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if getattr(self, "_session", None) is not None:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = os.read(self._receive, 1 << 20)
            assert more, "the browser has ended"
            self._buffer += more
        first, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(first)
        about = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif message.get("method") == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.errors.append(about["entry"]["text"])
        elif message.get("method") == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        return message

    def open(self, address: str) -> None:
        """Load a page and wait for it."""
        self._call("Page.navigate", url="about:blank")
        self._call("Page.navigate", url=address)
        self.wait(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(address[:200])})")

    def size(self, width: int, height: int) -> None:
        """Set the size of the window."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def media(self, media: str = "", scheme: str = "light") -> None:
        """Emulate a medium and a preferred colour scheme."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", media=media, features=features)

    def js(self, expression: str) -> Any:
        """The value of an expression."""
        result = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + 20
        while not self.js(condition):
            assert time.monotonic() < until, condition
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """The visible text of an element, nothing if it is hidden."""
        found = self.js(
            f"(() => {{ const found = document.querySelector({json.dumps(selector)});"
            "return found.checkVisibility() ? found.innerText ?? found.textContent : ''; })()"
        )
        return str(found)

    def _point(self, selector: str) -> tuple[float, float]:
        found = self.js(
            f"(() => {{ const found = document.querySelector({json.dumps(selector)}); if (!found) return null;"
            "found.scrollIntoView({block: 'nearest', inline: 'nearest'}); const box = found.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        assert found is not None, selector
        return found[0], found[1]

    def hover(self, selector: str) -> None:
        """Move the mouse over an element."""
        x, y = self._point(selector)
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector: str) -> None:
        """Click on an element."""
        self.hover(selector)
        x, y = self._point(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def choose(self, selector: str, text: str) -> None:
        """Choose the option of a list that has this text."""
        self.js(
            f"(() => {{ const list = document.querySelector({json.dumps(selector)});"
            f"list.value = [...list.options].find((each) => each.text === {json.dumps(text)}).value;"
            "for (const kind of ['input', 'change']) list.dispatchEvent(new Event(kind, {bubbles: true})); })()"
        )

    def type(self, text: str) -> None:
        """Type a text into what has the focus."""
        for letter in text:
            self._call("Input.dispatchKeyEvent", type="keyDown", text=letter, key=letter)
            self._call("Input.dispatchKeyEvent", type="keyUp", key=letter)

    def press(self, key: str) -> None:
        """Press a key that has a name."""
        code, text = KEYS[key]
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self._call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **about)
        self._call("Input.dispatchKeyEvent", type="keyUp", **about)

    def screenshot(self, path: Path) -> None:
        """Write what the window shows to a PNG file."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self._call("Page.printToPDF", printBackground=True)["data"])


@contextmanager
def opened(profile: Path) -> Iterator[Page]:
    """Start a browser with an empty profile, and end it."""
    ours, theirs = os.pipe(), os.pipe()
    # The protocol is on the descriptors 3 and 4; a shell puts them there, and they must not be in its way.
    receive, send = (fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (theirs[0], ours[1]))
    for fd in (theirs[0], ours[1]):
        os.close(fd)
    command = [
        browser(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--hide-scrollbars",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
    ]
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$0" "$@" 3<&{receive} 4>&{send}', *command],
        pass_fds=(receive, send),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for fd in (receive, send):
        os.close(fd)
    try:
        yield Page(theirs[1], ours[0])
    finally:
        os.close(theirs[1])  # which ends it
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        os.close(ours[0])
