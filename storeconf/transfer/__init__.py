"""Copying a store into another one, dumping it, and restoring it, each entry with the expiry that it has left.

`Endpoint` is a store of a layout with all namespaces below it; `copy`, `dump` and `restore` work on endpoints and
return a `TransferResult`. `lines_of` reads the lines of a dump from a file or pipe, `put` writes to one, and `new_file`
gives a dump its name when it is complete.
"""

from __future__ import annotations

from storeconf.transfer.dump_format import Address, lines_of, new_file, put
from storeconf.transfer.endpoint import Endpoint, overlap
from storeconf.transfer.transfer import Failure, TransferResult, copy, dump, restore

__all__ = [
    "Address",
    "Endpoint",
    "Failure",
    "TransferResult",
    "copy",
    "dump",
    "lines_of",
    "new_file",
    "overlap",
    "put",
    "restore",
]
