"""What a store tells of itself: its capabilities, its rules for expiries, and the outcome of a ping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from storeconf.operations import named

__all__ = ["NO_RULES", "Capabilities", "ExpiryRules", "PingResult"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a kind of store can do, declared by its author and held to by the conformance suite.

    ``persistent``: values survive the process. ``shared``: other processes see the same values, each as soon as it is
    written. ``resolution``: seconds by which an expiry may be late. ``atomic``: those of ``add``, ``touch``, ``pop``,
    ``increment``, ``compare_and_set`` and ``renew`` (``get`` with ``renew_for``) that are atomic; any of the first five
    that is absent raises `UnsupportedOperationError`. ``objects``: the store keeps Python objects, not only bytes.
    """

    persistent: bool = False
    shared: bool = False
    resolution: float = 0.001
    atomic: frozenset[str] = frozenset()
    objects: bool = False

    ALL_ATOMIC: ClassVar[frozenset[str]] = named(lambda operation: operation.atomic)


@dataclass(frozen=True, slots=True)
class ExpiryRules:
    """How a store's middleware changes expiries; in seconds, None where it does not.

    ``default``: the expiry of an entry that is stored without one. ``max``: the longest expiry of any entry; what would
    have none gets it. ``renewal``: the expiry that reading gives an entry that has one.
    """

    default: float | None = None
    max: float | None = None
    renewal: float | None = None


NO_RULES = ExpiryRules()


@dataclass(frozen=True, slots=True)
class PingResult:
    """The outcome of one real round trip to a store.

    ``latency`` is in seconds and None when the store did not answer; ``error`` says why, without secrets; ``server``
    describes what answered (kind, version, topology, TLS), where there is a server.
    """

    ok: bool
    latency: float | None = None
    error: str | None = None
    server: str | None = None
