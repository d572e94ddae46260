"""The connection to Redis: its address, behind Sentinel or not, and what a Redis must be like to be trusted.

``redis://[[USER]:PASSWORD@]HOST:PORT/DB``, ``rediss://`` for TLS; behind Sentinel
``redis+sentinel://[[USER]:PASSWORD@]HOST:PORT,HOST:PORT/NAME?db=0&sentinel_password=...``, ``rediss+sentinel://`` for TLS to all.
"""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis.asyncio as redis
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError, ResponseError

from config.settings import Settings
from rules.errors import CannotStart, StateError
from streams.clocks import Comparison, steady

_SENTINEL_SCHEMES = {"redis+sentinel": False, "rediss+sentinel": True}
_SENTINEL_OPTIONS = {"db", "sentinel_username", "sentinel_password"}
_SENTINEL_PORT = 26379
_WANTED = "want redis://HOST:PORT/DB or redis+sentinel://HOST:PORT,HOST:PORT/NAME?db=0"


def from_settings(settings: Settings) -> redis.Redis:
    """A client for the address in the settings; it connects when it is first used.

    Raises:
        CannotStart: the address cannot be read.
    """
    url = settings.redis.get_secret_value()
    timeouts: dict[str, Any] = {"socket_timeout": settings.redis_timeout_s, "socket_connect_timeout": settings.redis_timeout_s}
    try:
        if urlsplit(url).scheme in _SENTINEL_SCHEMES:
            return _behind_sentinel(url, timeouts)
        return redis.Redis.from_url(url, **timeouts)
    except ValueError as error:
        raise CannotStart(f"RINGFENCE_REDIS: {error}; {_WANTED}") from None


async def close(client: redis.Redis) -> None:
    """Let go of a client's connections, those to Sentinels included."""
    await client.aclose()
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for sentinel in manager.sentinels if manager is not None else ():
        await sentinel.aclose()


def _behind_sentinel(url: str, timeouts: dict[str, Any]) -> redis.Redis:
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    unknown = sorted(options.keys() - _SENTINEL_OPTIONS)
    if unknown:
        raise ValueError(f"behind Sentinel there is no option {unknown[0]!r}, only {', '.join(sorted(_SENTINEL_OPTIONS))}")
    name = unquote(parts.path.strip("/"))
    if not name or "/" in name:
        raise ValueError("the name under which Sentinel knows the primary is missing, as in .../mymaster")
    tls = {"ssl": True} if _SENTINEL_SCHEMES[parts.scheme] else {}
    known_to_sentinel = {"username": options.get("sentinel_username"), "password": options.get("sentinel_password")}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis-py leaves its arguments without types
        [_address(host) for host in hosts.split(",")],
        sentinel_kwargs=timeouts | tls | known_to_sentinel,
        username=unquote(username) or None,
        password=unquote(password) or None,
        db=int(options.get("db", "0")),
        **timeouts,
        **tls,
    )
    client: redis.Redis = sentinel.master_for(name)
    return client


def _address(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a Sentinel has no host name")
    return parts.hostname, parts.port or _SENTINEL_PORT


async def problems(client: redis.Redis, prefix: str, *, note: bool = False) -> dict[str, str]:
    """What makes this Redis unfit to be trusted with the guard's state.

    A Redis that has evicted keys may have forgotten an objection, and nothing in the state shows it. Its own count of evictions
    starts anew with the server, the state need not; so a running guard notes them beside the state, to be dropped with it.

    Args:
        client: any connection to it.
        prefix: what the guard's keys begin with.
        note: keep under ``PREFIX:evicted`` that keys were evicted.

    Returns:
        By a short code, a sentence each with its remedy.

    Raises:
        RedisError, OSError: it does not answer.
    """
    key = f"{prefix}:evicted"
    pipeline = client.pipeline(transaction=False)
    for section in ("memory", "stats", "cluster", "replication"):
        pipeline.info(section)
    memory, stats, cluster, replication = await pipeline.execute()
    if cluster.get("cluster_enabled"):  # which does not answer for every key
        return {"redis-cluster": "Redis Cluster is not supported: one read spans partitions; use one server, or one behind Sentinel"}
    found = {}
    if replication.get("role") != "master":
        found["redis-replica"] = "Redis is a read-only replica: give the address of the primary, or that of Sentinel"
    policy = memory.get("maxmemory_policy")
    if policy != "noeviction":
        found["redis-policy"] = f"Redis runs with maxmemory-policy {policy}: it would forget objections by itself; set noeviction"
    evicted = int(stats.get("evicted_keys", 0))
    noted = await client.exists(key)
    if evicted or noted:
        if note and not noted:
            with contextlib.suppress(ResponseError):  # it takes no writes, so nothing is decided on it either
                await client.set(key, evicted)
        found["redis-evicted"] = (
            f"Redis evicted keys ({evicted or 'earlier'}) and may have forgotten objections: set noeviction, CONFIG RESETSTAT, then "
            f"delete all keys {prefix}:* (FLUSHDB if there are no others); the state is read again from Kafka"
        )
    return found


async def check(client: redis.Redis, prefix: str) -> None:
    """Refuse a Redis that cannot be trusted with the guard's state.

    Raises:
        CannotStart: with what is wrong and the remedy.
    """
    try:
        found = await problems(client, prefix)
    except (RedisError, OSError) as error:
        raise CannotStart(f"no Redis answers (RINGFENCE_REDIS): {error}") from None
    if found:
        raise CannotStart("\n  ".join(found.values()))


class RedisWatch:
    """Looks at Redis while the guard runs, on a connection of its own: does it answer, may it be trusted, what time has it."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.redis_prefix
        self._client = from_settings(settings)
        self.clock = Comparison()

    async def stop(self) -> None:
        """Let go of the connection."""
        await close(self._client)

    async def look(self) -> dict[str, str]:
        """What makes Redis unfit to be trusted now; see :func:`problems`.

        Raises:
            StateError: it does not answer.
        """
        try:
            asked = steady()
            seconds, microseconds = await self._client.time()
            told = seconds + microseconds / 1e6
            self.clock.answered(told, told, asked)
            return await problems(self._client, self._prefix, note=True)
        except (RedisError, OSError) as error:
            raise StateError(f"Redis does not answer: {error}") from None
