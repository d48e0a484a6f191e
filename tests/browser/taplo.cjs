// Runs taplo's language server, which npm has as a library, over stdin and stdout. The first argument is the
// directory that contains node_modules.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { fileURLToPath } = require("node:url");
const { TaploLsp } = require(path.join(process.argv[2], "node_modules/@taplo/lsp"));

globalThis.fetch = () => Promise.reject(new Error("fetches nothing")); // not even its catalog of schemas

const environment = {
  now: () => new Date(),
  envVar: (name) => process.env[name],
  envVars: () => Object.entries(process.env),
  stdErrAtty: () => false,
  stdin: process.stdin,
  stdout: process.stderr, // stdout belongs to the protocol
  stderr: process.stderr,
  glob: () => [],
  readFile: (file) => fs.promises.readFile(file),
  writeFile: () => Promise.reject(new Error("writes nothing")),
  urlToFilePath: (url) => (url.startsWith("file:") ? fileURLToPath(url) : url), // taplo: is one of its own
  isAbsolute: (file) => path.isAbsolute(file),
  cwd: () => process.cwd(),
  findConfigFile: () => undefined,
  fetch: { fetch: globalThis.fetch, Headers, Request, Response },
};

function onMessage(message) {
  const content = Buffer.from(JSON.stringify(message));
  process.stdout.write(Buffer.concat([Buffer.from(`Content-Length: ${content.length}\r\n\r\n`), content]));
}

TaploLsp.initialize(environment, { onMessage }).then((server) => {
  let buffer = Buffer.alloc(0);
  process.stdin.on("data", (more) => {
    buffer = Buffer.concat([buffer, more]);
    for (;;) {
      const end = buffer.indexOf("\r\n\r\n");
      if (end < 0) return;
      const length = Number(/Content-Length: (\d+)/i.exec(buffer.toString("latin1", 0, end))[1]);
      if (buffer.length < end + 4 + length) return;
      const message = JSON.parse(buffer.toString("utf8", end + 4, end + 4 + length));
      buffer = buffer.subarray(end + 4 + length);
      server.send(message);
    }
  });
});
