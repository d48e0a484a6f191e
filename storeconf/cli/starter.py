"""The files that `storeconf init` writes: the same layout in YAML and in TOML."""

from __future__ import annotations

from typing import Final

from storeconf.config.schema import SCHEMA_ID

__all__ = ["STARTERS"]

_YAML: Final = f"""\
# yaml-language-server: $schema={SCHEMA_ID}
# The key/value stores of this application.
#   storeconf validate   finds what is wrong with this file, in every environment
#   storeconf tree       shows what it means
version: 1

stores:
  main:                                  # a root: it owns the place where the bytes are
    type: memory                         # or file, redis, valkey, or a plugin's
    namespace: app                       # all its keys lie in this namespace

  sessions:                              # a child: the namespace "sessions" of main
    description: Who is logged in
    parent: main
    middleware:
      ttl: {{default: 14d, renew_on_get: true}}

  cache:
    description: Everything that can be computed again
    parent: main
    middleware:
      ttl: 15m                           # short for {{default: 15m}}

  pages: {{parent: cache}}                 # namespaces nest: app > cache > pages

  uploads:
    description: What customers upload, until it is processed
    type: file
    path: var/uploads                    # relative to this file

default_factory: {{parent: main}}          # a name that is not listed becomes a namespace of main

environments:                            # what differs; --env, STORECONF_ENV or load(environment=...) chooses one
  development: {{}}
  production:
    stores:
      main:
        type: valkey
        # The variable if it is set, else what follows; "${{VALKEY_URL:?production needs it}}" makes it required.
        url: "${{VALKEY_URL:-valkey://localhost:6379/0}}"
      uploads: {{path: /srv/app/uploads, durability: fsync}}
"""

_TOML: Final = f"""\
#:schema {SCHEMA_ID}
# The key/value stores of this application.
#   storeconf validate   finds what is wrong with this file, in every environment
#   storeconf tree       shows what it means
version = 1
default_factory = {{ parent = "main" }}    # a name that is not listed becomes a namespace of main

[stores.main]                            # a root: it owns the place where the bytes are
type = "memory"                          # or file, redis, valkey, or a plugin's
namespace = "app"                        # all its keys lie in this namespace

[stores.sessions]                        # a child: the namespace "sessions" of main
description = "Who is logged in"
parent = "main"
middleware.ttl = {{ default = "14d", renew_on_get = true }}

[stores.cache]
description = "Everything that can be computed again"
parent = "main"
middleware.ttl = "15m"                   # short for {{ default = "15m" }}

[stores.pages]                           # namespaces nest: app > cache > pages
parent = "cache"

[stores.uploads]
description = "What customers upload, until it is processed"
type = "file"
path = "var/uploads"                     # relative to this file

# What differs; --env, STORECONF_ENV or load(environment=...) chooses one.
[environments.development]

[environments.production.stores.main]
type = "valkey"
# The variable if it is set, else what follows; "${{VALKEY_URL:?production needs it}}" makes it required.
url = "${{VALKEY_URL:-valkey://localhost:6379/0}}"

[environments.production.stores.uploads]
path = "/srv/app/uploads"
durability = "fsync"
"""

STARTERS: Final = {".yaml": _YAML, ".yml": _YAML, ".toml": _TOML}
"""What to write, by the suffix of the file."""
