"""Every store of py-key-value as a storeconf backend: `type: key-value`, and `store: dynamodb`, say."""

from __future__ import annotations

import difflib
import hashlib
import json
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from storeconf import Backend, BuildContext, ConfigPath, PluginError, Secret, Store
from storeconf_key_value.kinds import KINDS

if TYPE_CHECKING:
    from storeconf_key_value.store import KeyValueStore

__all__ = ["KeyValueBackend", "KeyValueStore"]

StoreKind = Literal[
    "aerospike", "azure_tables", "chdb", "disk", "duckdb", "dynamodb", "elasticsearch", "filetree", "firestore",
    "keyring", "memcached", "memory", "mongodb", "opensearch", "postgresql", "redis", "rocksdb", "s3", "valkey",
    "vault",
]  # fmt: skip


class KeyValueBackend(Backend):
    """Keeps everything in a store of py-key-value."""

    type: Literal["key-value"] = "key-value"
    store: StoreKind = Field(description="Which of py-key-value's stores.", examples=["dynamodb"])
    path: ConfigPath | None = Field(
        default=None,
        description="The directory or file, for the stores that keep one: chdb, disk, duckdb, filetree, rocksdb.",
        examples=["var/sessions"],
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="What else that store's constructor takes, by the names that py-key-value gives.",
        examples=[{"table_name": "sessions", "region_name": "eu-central-1"}],
    )
    secrets: dict[str, Secret] = Field(
        default_factory=dict,
        description="More of the same, masked wherever it is shown: passwords, tokens, URLs that hold them.",
        examples=[{"aws_secret_access_key": "${AWS_SECRET_ACCESS_KEY}"}],
    )

    @field_validator("options", "secrets")
    @classmethod
    def _known(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        kind = KINDS.get(info.data.get("store", ""))
        if kind is None or not value:
            return value
        try:
            known = kind.options()
        except ImportError:
            return value  # building says what to install
        for name in value:
            if name not in known:
                if name == kind.path:
                    raise ValueError(f"{name} is given as `path`, beside `store`")
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(sorted(known))}"
                raise ValueError(f"the store {info.data['store']!r} has no option {name!r}; {hint}")
        return value

    @model_validator(mode="after")
    def _path(self) -> Self:
        takes = KINDS[self.store].path is not None
        if takes and self.path is None:
            raise ValueError(f"the store {self.store!r} needs a path")
        if self.path is not None and not takes:
            raise ValueError(f"the store {self.store!r} takes no path")
        twice = self.options.keys() & self.secrets.keys()
        if twice:
            raise ValueError(f"{', '.join(sorted(twice))}: give it in options or in secrets, not in both")
        return self

    def build(self, context: BuildContext) -> Store:
        """Make the store; the library's own is made when it opens."""
        from storeconf_key_value.store import KeyValueStore

        kind = KINDS[self.store]
        try:
            make: Any = kind.load()
        except ImportError as error:
            raise PluginError(
                f"the store {self.store!r} needs a package that is not installed: "
                f"pip install 'py-key-value-aio[{kind.extra}]'",
                code="SC702",
            ) from error
        secrets = {name: value.get_secret_value() for name, value in self.secrets.items()}
        arguments = {**self.options, **secrets}
        if kind.path is not None:
            arguments[kind.path] = self.path
        return KeyValueStore(partial(make, **arguments), capabilities=kind.capabilities, secrets=secrets.values())

    def location(self) -> tuple[str, ...] | None:
        """The path, or a digest of all that says where; a memory store is its own place."""
        if self.store == "memory":
            return None
        where = str(self.path)
        if self.path is None:
            secrets = {name: value.get_secret_value() for name, value in self.secrets.items()}
            text = json.dumps([self.options, secrets], sort_keys=True, default=str)
            where = hashlib.sha256(text.encode()).hexdigest()
        base = ("key-value", self.store, where)
        return (*base, self.namespace) if self.namespace else base


def __getattr__(name: str) -> Any:
    if name == "KeyValueStore":
        from storeconf_key_value.store import KeyValueStore

        return KeyValueStore
    raise AttributeError(name)
