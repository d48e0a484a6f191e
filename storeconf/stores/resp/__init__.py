"""Stores on servers that speak RESP: Redis and Valkey, standalone, behind Sentinel, or as a Cluster.

The layers, each of which knows only those below it: `protocol` (bytes), `driver` (the client library's description of a
connection), `connect` and `connection` (one multiplexed connection), `transport`, `sentinel` and `cluster` (how a
command finds its server), `transports` (which of them a root has), `store` (the promises).
Knows nothing of configuration.
"""
