"""Stores on servers that speak RESP: Redis and Valkey, standalone, behind Sentinel, or as a Cluster.

The layers, each of which knows only those below it: `reader` and `commands` (bytes), `settings` (what the client
library says about a connection), `connection` (one multiplexed connection), `standalone`, `sentinel`, `cluster` and
`foreign` (transports: how a command finds its server), `store` (the promises). Knows nothing of configuration.
"""
