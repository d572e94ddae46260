"""Publishes requests and finds their answers: the output record that names partition and offset of the request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaError

from config.settings import Settings
from ops.client_log import connecting
from ops.load import producer_for
from rules.errors import CannotStart, DeliveryFailed
from rules.events import REQUEST_TOPIC, read_event
from streams.outputs import INPUT_OFFSET

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_Place = tuple[int, bytes]


class _Waiting:
    """One published request. Its answer may be read before the broker has said where the request is."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._place: _Place | None = None
        self._read: dict[_Place, bytes] = {}

    def read(self, place: _Place, value: bytes) -> None:
        if self._place is None:
            self._read[place] = value
        elif place == self._place and not self.answer.done():
            self.answer.set_result(value)

    def published(self, place: _Place) -> None:
        self._place = place
        if place in self._read:
            self.answer.set_result(self._read[place])


class Asking:
    """Lifecycle: ``start`` -> ``stop``. Whoever reads the outputs hands every record to :meth:`read`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._waiting: dict[str, list[_Waiting]] = {}
        # Keyed by murmur2, like Java's: the guard looks for a number in its own partition.
        self._producer = producer_for(settings)

    async def start(self) -> None:
        """Connect.

        Raises:
            CannotStart: the broker does not answer.
        """
        try:
            with connecting(self._settings):
                await self._producer.start()
        except CannotStart:
            await self._producer.stop()
            raise

    async def stop(self) -> None:
        """Disconnect; requests that are being published are waited for."""
        await self._producer.stop()

    async def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Publish a request and wait for its answer, for as long as the caller lets it.

        Returns: the decision record.

        Raises:
            rules.errors.InputError: the request is none; nothing was published.
            DeliveryFailed: Kafka did not acknowledge it. It may be there all the same.
        """
        key, value = str(request.get("number", "")).encode(), _encode(request)
        read_event(REQUEST_TOPIC, key, value)
        waiting, request_id = _Waiting(), request["request_id"]
        self._waiting.setdefault(request_id, []).append(waiting)
        try:
            try:
                there = await self._producer.send_and_wait(self._settings.topic(REQUEST_TOPIC), value, key)
            except (KafkaError, OSError) as error:
                raise DeliveryFailed(f"the broker did not take the request: {error!r}") from None
            waiting.published((there.partition, str(there.offset).encode()))
            return _decode(await waiting.answer)
        finally:
            self._waiting[request_id].remove(waiting)
            if not self._waiting[request_id]:
                del self._waiting[request_id]

    def read(self, request_id: str, record: ConsumerRecord[bytes, bytes]) -> None:
        """An output record was read."""
        for waiting in self._waiting.get(request_id, ()):
            offset = next((value for name, value in record.headers if name == INPUT_OFFSET), b"")
            waiting.read((record.partition, offset), record.value or b"")
