"""What type checkers see of the integration of py-key-value."""

from typing import Any, assert_type

from key_value.aio.adapters.pydantic import PydanticAdapter
from key_value.aio.protocols.key_value import AsyncEnumerateKeysProtocol, AsyncKeyValue
from pydantic import BaseModel

import storeconf
from storeconf.integrations.key_value import StoreconfKeyValue


class Note(BaseModel):
    text: str


storage: AsyncKeyValue = StoreconfKeyValue("notes", "storeconf.yaml", environment="production")
listed: AsyncEnumerateKeysProtocol = StoreconfKeyValue(storeconf.MemoryStore(), default_collection="notes")
notes = PydanticAdapter(storage, Note)


async def use(given: StoreconfKeyValue) -> None:
    async with given as opened:
        assert_type(opened, StoreconfKeyValue)
        assert_type(await opened.get("k"), dict[str, Any] | None)
        assert_type(await opened.ttl("k", collection="c"), tuple[dict[str, Any] | None, float | None])
    assert_type(given.store, storeconf.Store)
    await notes.put("k", Note(text=""))
