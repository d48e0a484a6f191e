"""What type checkers see of the clients that stores give, where the drivers are installed."""

from typing import assert_type

from redis.asyncio import Redis, RedisCluster
from valkey.asyncio import Valkey, ValkeyCluster

from storeconf import RedisStore, ValkeyStore

assert_type(RedisStore.with_client().new_client(), Redis | RedisCluster)
assert_type(ValkeyStore.with_client().new_client(), Valkey | ValkeyCluster)
