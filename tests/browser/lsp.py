"""A client of language servers, as an editor is one: it opens a text, and asks for problems, completions and hovers."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


class Editor:
    """An editor with one language server and one open text."""

    def __init__(
        self, process: subprocess.Popen[bytes], folder: Path, language: str, settings: Mapping[str, Any]
    ) -> None:
        self._process = process
        self._folder = folder
        self._language = language
        self._settings = settings
        self._buffer = b""
        self._number = 0
        self._published: list[list[dict[str, Any]]] = []
        self._address = ""
        capabilities = {
            "textDocument": {
                "completion": {"completionItem": {"snippetSupport": True, "documentationFormat": ["markdown"]}},
                "hover": {"contentFormat": ["markdown", "plaintext"]},
                "publishDiagnostics": {"versionSupport": True},
            },
            "workspace": {"configuration": True, "workspaceFolders": True, "didChangeConfiguration": {}},
        }
        folders = [{"uri": folder.as_uri(), "name": folder.name}]
        self.ask("initialize", processId=os.getpid(), rootUri=folder.as_uri(), capabilities=capabilities,
                 workspaceFolders=folders, initializationOptions={})  # fmt: skip
        self._tell("initialized")
        self._tell("workspace/didChangeConfiguration", settings=settings)

    def _send(self, message: dict[str, Any]) -> None:
        content = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(content), content))
        self._process.stdin.flush()

    def _tell(self, method: str, **parameters: Any) -> None:
        self._send({"method": method, "params": parameters})

    def ask(self, method: str, **parameters: Any) -> Any:
        """Call a method of the server, and return its result."""
        self._number += 1
        self._send({"id": self._number, "method": method, "params": parameters})
        while True:
            message = self._next()
            if message.get("id") == self._number and "method" not in message:
                assert "error" not in message, message
                return message["result"]

    def _next(self, wait: float = 20) -> dict[str, Any]:
        """The next message; what the server asks is answered meanwhile."""
        until = time.monotonic() + wait
        while True:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if found:
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                if len(rest) >= length:
                    self._buffer = rest[length:]
                    return self._handled(json.loads(rest[:length]))
            assert self._process.stdout is not None
            ready, _, _ = select.select([self._process.stdout], [], [], max(0, until - time.monotonic()))
            if not ready:
                raise TimeoutError
            more = os.read(self._process.stdout.fileno(), 1 << 16)
            assert more, "the server has ended"
            self._buffer += more

    def _handled(self, message: dict[str, Any]) -> dict[str, Any]:
        method, about = message.get("method"), message.get("params", {})
        if method == "textDocument/publishDiagnostics" and about["uri"] == self._address:
            self._published.append(about["diagnostics"])
        elif method == "workspace/configuration":
            sections = [self._settings.get(each.get("section", ""), {}) for each in about["items"]]
            self._send({"id": message["id"], "result": sections})
        elif method is not None and "id" in message:
            self._send({"id": message["id"], "result": None})
        return message

    def open(self, text: str, *, wrong: bool = False) -> list[str]:
        """Open a text as a new file, and return the messages of its problems, each with its line from 1.

        With ``wrong``, wait until there are some.
        """
        self._number += 1
        file = self._folder / f"layout-{self._number}.{self._language}"
        file.write_text(text)
        self._address = file.as_uri()
        self._published.clear()
        document = {"uri": self._address, "languageId": self._language, "version": 1, "text": text}
        self._tell("textDocument/didOpen", textDocument=document)
        while not self._published or (wrong and not self._published[-1]):
            self._next()
        with suppress(TimeoutError):  # taplo first publishes that there are none, and then those by the schema
            while True:
                self._next(0.4)
        return [f"{each['range']['start']['line'] + 1}: {each['message']}" for each in self._published[-1]]

    def complete(self, line: int, column: int) -> dict[str, dict[str, Any]]:
        """The completions at a position, which is counted from 0, by label."""
        position = {"line": line, "character": column}
        found = self.ask("textDocument/completion", textDocument={"uri": self._address}, position=position) or []
        items: Sequence[dict[str, Any]] = found if isinstance(found, list) else found["items"]
        return {each["label"]: each for each in items}

    def hover(self, line: int, column: int) -> str:
        """The text that is shown at a position."""
        position = {"line": line, "character": column}
        found = self.ask("textDocument/hover", textDocument={"uri": self._address}, position=position)
        if found is None:
            return ""
        contents = found["contents"]
        return str(contents["value"] if isinstance(contents, dict) else contents)


@contextmanager
def editing(command: Sequence[str], folder: Path, language: str, settings: Mapping[str, Any]) -> Iterator[Editor]:
    """Start a language server for a folder, and end it."""
    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        yield Editor(process, folder, language, settings)
    finally:
        process.kill()
        process.communicate()
