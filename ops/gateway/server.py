"""``ringfence gateway``: wires a gateway together and serves it until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import structlog
import uvicorn

from config.clock import Clock
from config.rulebook import load_rulebook
from config.settings import Settings
from ops.exposition import MetricsServer
from ops.gateway import site
from ops.gateway.api import operations
from ops.gateway.asking import Asking
from ops.gateway.feed import Feed
from ops.gateway.gateway import Gateway
from ops.gateway.keys import KeyRing
from ops.gateway.metrics import GatewayCollector
from ops.gateway.publishing import Publishing
from ops.gateway.serving import Application
from ops.service import Ending, spare_the_collector
from ops.tracing import start as start_tracing
from rules.errors import CannotStart
from streams import redis_client
from streams.log_reader import LogReader
from streams.state import Store
from streams.topics import check_topics

log = structlog.get_logger(__name__)

_STOP_WITHIN_S = 10
_IDLE_S = 75
_LOOPBACK = ("127.", "::1", "localhost")


class _Uvicorn(uvicorn.Server):
    """Leaves the signals to us: a gateway also has to let go of Kafka."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class Server:
    """One gateway process. ``failed`` holds what ended it, if something did; ``port`` is where it listens."""

    def __init__(self, settings: Settings) -> None:
        """Listen, but answer nobody yet.

        Raises:
            CannotStart: a key, a certificate or the address is not usable.
        """
        self._settings = settings
        self.failed: BaseException | None = None
        keys = KeyRing.from_settings(settings)
        publishing = Publishing(settings)
        asking = Asking(settings, publishing)
        self.gateway = Gateway(
            settings=settings,
            keys=keys,
            clock=Clock.from_settings(settings),
            book=load_rulebook(overrides=settings.rulebook_overrides),
            publishing=publishing,
            asking=asking,
            feed=Feed(settings, asking, self.fail),
            store=Store(settings),
            redis=redis_client.from_settings(settings),
            log=LogReader(settings, "read_committed"),
        )
        self.tls = settings.gateway_tls_cert is not None
        config = uvicorn.Config(
            application(self.gateway),
            http="httptools",
            lifespan="off",
            log_config=None,
            access_log=False,  # paths hold numbers
            server_header=False,
            proxy_headers=False,  # nobody looks at where a request comes from
            timeout_keep_alive=_IDLE_S,
            timeout_graceful_shutdown=_STOP_WITHIN_S,
            ssl_certfile=settings.gateway_tls_cert,
            ssl_keyfile=settings.gateway_tls_key,
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise CannotStart(f"RINGFENCE_GATEWAY_TLS_CERT, RINGFENCE_GATEWAY_TLS_KEY: {error}") from None
        self._server = _Uvicorn(config)
        self._socket, self.host = _listening(settings.gateway)
        self.port = int(self._socket.getsockname()[1])
        if not self.tls and not self.host.startswith(_LOOPBACK):
            log.warning("keys and numbers travel in clear text: set RINGFENCE_GATEWAY_TLS_CERT, or put TLS in front", host=self.host)

    @property
    def url(self) -> str:
        """Where it answers."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def fail(self, error: BaseException) -> None:
        """End because of an error that must not be passed over."""
        if self.failed is None:
            log.error("the gateway ends", error=repr(error), exc_info=error)
            self.failed = error
        self.stop()

    def stop(self) -> None:
        """Take no more requests, finish those that are being answered, and end."""
        self.gateway.feed.hub.close()
        self._server.should_exit = True

    async def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Serve until :meth:`stop` or a failure.

        Raises:
            CannotStart: Kafka or its topics are not usable.
        """
        with self._socket:
            async with self._connected():
                on_ready()
                await self._server.serve([self._socket])

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        gateway = self.gateway
        async with contextlib.AsyncExitStack() as opened:
            if self._settings.metrics is not None:
                metrics = await asyncio.to_thread(MetricsServer, self._settings.metrics, [GatewayCollector(gateway)])
                opened.push_async_callback(asyncio.to_thread, metrics.stop)
            gateway.tracing = start_tracing(self._settings, "ringfence-gateway")
            opened.push_async_callback(asyncio.to_thread, gateway.tracing.stop)
            opened.push_async_callback(gateway.store.close)
            opened.push_async_callback(redis_client.close, gateway.redis)
            problems = await check_topics(self._settings)
            if problems:
                raise CannotStart("the topics are not usable:\n  " + "\n  ".join(problems))
            for service in (gateway.publishing, gateway.feed, gateway.log):
                await service.start()
                opened.push_async_callback(service.stop)
            yield


def application(gateway: Gateway) -> Application:
    """The ASGI application of a gateway: its operations, and its pages."""
    return Application([operation.route(gateway) for operation in operations()] + site.routes(gateway))


def _listening(address: str) -> tuple[socket.socket, str]:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
        listening.listen(1024)
    except (OSError, OverflowError) as error:
        raise CannotStart(f"RINGFENCE_GATEWAY: cannot listen at {address}: {error}; give a free address of this machine") from None
    return listening, host


def run_gateway(settings: Settings) -> int:
    """Serve until SIGTERM (returns 0), Ctrl-C (130) or a failure (1).

    Prints ``ready URL`` on standard output once it answers.

    Raises:
        CannotStart: a key, the address, Kafka or a topic is not usable.
    """
    return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    server = Server(settings)
    ending = Ending(server.stop)
    spare_the_collector()

    def say_ready() -> None:
        sys.stdout.write(f"ready {server.url}\n")
        sys.stdout.flush()

    await server.run(say_ready)
    return 1 if server.failed is not None else ending.code
