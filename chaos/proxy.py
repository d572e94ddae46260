"""A TCP proxy on loopback that can be cut and slowed: what a worker sees of a network that fails.

```
worker -> Proxy.port ... Proxy.target -> server
```

It runs in a thread of its own, so that whatever else its process does is not felt as a fault.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Self, cast

_LOOPBACK = "127.0.0.1"
_START_WITHIN_S = 10.0


class Proxy:
    """Forwards every connection to ``target``, a port on loopback; use as a context manager.

    ``cut`` drops every connection and refuses new ones until ``mend``. ``slow`` lets every answer of the server come later by some
    seconds, in order; 0 ends it. All of them may be called from any thread, and return when it is so.
    """

    def __init__(self) -> None:
        self.port = 0
        self.target = 0
        self._whole = True
        self._late_s = 0.0
        self._halves: set[_Half] = set()
        self._loop = asyncio.new_event_loop()
        self._connecting: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-proxy", daemon=True)

    def start(self) -> None:
        """Listen on a free port, ``port``; connections are refused until ``target`` is set."""
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(_START_WITHIN_S)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Drop every connection and listen no more."""
        self.cut()
        self._in_loop(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Drop every connection and refuse new ones."""
        self._in_loop(self._cut)

    def mend(self) -> None:
        """Let connections through again."""
        self._whole = True

    def slow(self, late_s: float) -> None:
        """Let each answer from now on come ``late_s`` seconds later."""
        self._late_s = late_s

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def _listen(self) -> asyncio.Server:
        return await self._loop.create_server(lambda: _Half(self, self._connect), _LOOPBACK, 0)

    def _in_loop(self, act: Callable[[], None]) -> None:
        done = Future[None]()

        def run() -> None:
            act()
            done.set_result(None)

        self._loop.call_soon_threadsafe(run)
        done.result(_START_WITHIN_S)

    def _cut(self) -> None:
        self._whole = False
        for half in [*self._halves]:
            half.transport.abort()

    def _connect(self, client: _Half) -> None:
        """A client has come in: connect it through, or drop it."""
        if not self._whole or not self.target:
            client.transport.abort()
            return
        client.transport.pause_reading()
        task = self._loop.create_task(self._connect_through(client))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect_through(self, client: _Half) -> None:
        try:
            _, server = await self._loop.create_connection(lambda: _Half(self), _LOOPBACK, self.target)
        except OSError:
            client.transport.abort()
            return
        if client.transport.is_closing():
            server.transport.abort()
            return
        client.peer, server.peer = server, client
        client.take_up()
        client.transport.resume_reading()

    @property
    def late_s(self) -> float:
        """By how much answers are held back now."""
        return self._late_s

    def made(self, half: _Half) -> None:
        """A side of a connection is there."""
        self._halves.add(half)

    def lost(self, half: _Half) -> None:
        """A side of a connection is gone."""
        self._halves.discard(half)


class _Half(asyncio.Protocol):
    """One side of a connection; what comes in goes out at the ``peer``.

    Args:
        proxy: whose connection it is.
        came_in: called once it is there; given for the client's side alone.
    """

    transport: asyncio.Transport

    def __init__(self, proxy: Proxy, came_in: Callable[[_Half], None] | None = None) -> None:
        self.peer: _Half | None = None
        self._proxy = proxy
        self._came_in = came_in
        self._early: list[bytes] = []
        self._held: deque[tuple[float, bytes]] = deque()
        self._last_due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._proxy.made(self)
        if self._came_in is not None:
            self._came_in(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._proxy.lost(self)
        if self.peer is not None:
            self.peer.transport.close()

    def take_up(self) -> None:
        """Pass on what came before the other side was there."""
        early, self._early = self._early, []
        for data in early:
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        if self.peer is None:  # Python 3.11.2 begins to read although the transport was paused when the connection was made
            self._early.append(data)
            return
        late_s = 0.0 if self._came_in is not None else self._proxy.late_s
        if not late_s and not self._held:
            self.peer.transport.write(data)
            return
        loop = asyncio.get_running_loop()
        # Never before what came earlier, also when the delay has just become shorter.
        self._last_due = max(loop.time() + late_s, self._last_due)
        self._held.append((self._last_due, data))
        loop.call_at(self._last_due, self._pass_on)

    def pause_writing(self) -> None:
        if self.peer is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None:
            self.peer.transport.resume_reading()

    def _pass_on(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._held and self._held[0][0] <= now:
            _, data = self._held.popleft()
            if self.peer is not None and not self.peer.transport.is_closing():
                self.peer.transport.write(data)
