"""A real Kafka and a real Redis for the tests, looked for in a fixed order.

1. An address: ``RINGFENCE_TEST_KAFKA`` (``host:port``), ``RINGFENCE_TEST_REDIS`` (``redis://host:port/0``). Only these names: the
   variables of a guard in production (``RINGFENCE_KAFKA``) are never read, so a test cannot write there by accident.
2. A container engine that answers: Kafka and Redis from their images, through testcontainers.
3. The embedded servers of ``streams.embedded``, from packages.

Kafka and Redis are looked for one by one and started when a test first asks. A test that needs one is never skipped: where
nothing starts, it fails with the reason.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import time
import warnings
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing
from functools import cached_property
from typing import Literal

import docker

from tests import containers

Name = Literal["Kafka", "Redis"]

ADDRESS_VARIABLES: dict[Name, str] = {"Kafka": "RINGFENCE_TEST_KAFKA", "Redis": "RINGFENCE_TEST_REDIS"}
IMAGES: dict[Name, str] = {"Kafka": containers.KAFKA_IMAGE, "Redis": containers.REDIS_IMAGE}
# A dead DOCKER_HOST must not hold up a session that can do without an engine.
ENGINE_TIMEOUT_S = 5


class NotReached(AssertionError):
    """A condition did not come true in time."""


async def wait_for(condition: Callable[[], object | Awaitable[object]], *, within_s: float = 10, every_s: float = 0.02):
    """Wait until ``condition`` gives something true, and return it.

    Args:
        condition: called again and again; plain or a coroutine function. It may raise ``AssertionError``, which means "not yet".
        within_s: bound in seconds of the monotonic clock.
        every_s: pause between two calls.

    Raises:
        NotReached: the bound passed; the message holds what the condition gave last.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            last = condition()
            if inspect.isawaitable(last):
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    last = await last
            if last:
                return last
        except (AssertionError, TimeoutError) as not_yet:
            last = not_yet
        if time.monotonic() >= deadline:
            message = f"{getattr(condition, '__qualname__', condition)} was not true within {within_s} s; last: {last!r}"
            raise NotReached(message)
        await asyncio.sleep(every_s)


def engine_answers() -> bool:
    """Whether a container engine (``DOCKER_HOST`` or the default socket) answers now."""
    with warnings.catch_warnings():
        # docker 7.2 leaves a refused connection's socket to the garbage collector, whose warning would be the next test's error.
        warnings.simplefilter("ignore", ResourceWarning)
        answers = _pings()
        gc.collect()
    return answers


def _pings() -> bool:
    try:
        with closing(docker.from_env(timeout=ENGINE_TIMEOUT_S)) as client:
            return bool(client.ping())
    except (docker.errors.DockerException, OSError):
        return False


def image_at_hand(image: str) -> bool:
    """Whether the engine has the image or can pull it; an engine may have no way to an image registry."""
    with closing(docker.from_env()) as client:
        try:
            client.images.get(image)
        except docker.errors.ImageNotFound:
            try:
                client.images.pull(image)
            except docker.errors.APIError:
                return False
    return True


class Servers:
    """The Kafka and the Redis of one test session; each starts when it is first asked for and stops with :meth:`close`."""

    def __init__(self) -> None:
        self._running = ExitStack()
        self._addresses: dict[Name, str] = {}
        # What was asked for up to now, for the session's last lines.
        self.used: dict[Name, str] = {}

    @cached_property
    def engine(self) -> bool:
        """Whether a container engine answered when the session first asked."""
        return engine_answers()

    def plan(self, name: Name) -> str:
        """Where the server will come from, by the order above."""
        if os.environ.get(ADDRESS_VARIABLES[name]):
            return f"address in {ADDRESS_VARIABLES[name]}"
        return "container" if self.engine else "embedded"

    def address(self, name: Name) -> str:
        """``host:port`` of Kafka, URL of Redis; started at the first call."""
        if name not in self._addresses:
            self._addresses[name], self.used[name] = self._find(name)
        return self._addresses[name]

    def close(self) -> None:
        """Stop what was started, in reverse order."""
        self._running.close()

    def _find(self, name: Name) -> tuple[str, str]:
        """The address, and what to say of it; a given one may hold a password and is not repeated."""
        if given := os.environ.get(ADDRESS_VARIABLES[name]):
            return given, self.plan(name)
        if self.engine and image_at_hand(IMAGES[name]):
            address = self._container(name)
            return address, f"{address} (container)"
        address = self._embedded(name)
        return address, f"{address} (embedded{f'; the engine cannot get {IMAGES[name]}' if self.engine else ''})"

    def _container(self, name: Name) -> str:
        if name == "Kafka":
            return self._running.enter_context(containers.Kafka()).address
        return self._running.enter_context(containers.Redis()).url

    def _embedded(self, name: Name) -> str:
        from streams.embedded import EmbeddedKafka, EmbeddedRedis  # noqa: PLC0415 - tests of the rules alone start without it

        # Without a folder of their own both use a temporary one, which goes when they stop.
        if name == "Kafka":
            return self._running.enter_context(EmbeddedKafka()).address
        return self._running.enter_context(EmbeddedRedis()).url
