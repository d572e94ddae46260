"""The ceiling: aiokafka alone reads requests in batches and writes the same bytes back, with acks=all and a commit a batch."""

from __future__ import annotations

import asyncio
import contextlib
import signal

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from config.settings import Settings
from rules.events import REQUEST_TOPIC
from streams.topics import BLOCKED

_MOST_RECORDS = 2000


async def echo(settings: Settings) -> None:
    """Echo until cancelled."""
    consumer = AIOKafkaConsumer(
        settings.topic(REQUEST_TOPIC),
        **settings.kafka_client(),
        group_id=settings.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    producer = AIOKafkaProducer(**settings.kafka_client(), acks="all", max_batch_size=1_000_000)
    async with consumer, producer:
        while True:
            fetched = await consumer.getmany(timeout_ms=200, max_records=_MOST_RECORDS)
            sent = []
            for tp, records in fetched.items():
                batch = producer.create_batch()
                for record in records:
                    if batch.append(key=record.key, value=record.value, timestamp=None) is None:
                        raise RuntimeError(f"{len(records)} records of {len(record.value)} bytes do not fit into one batch")
                batch.close()
                sent.append(await producer.send_batch(batch, settings.topic(BLOCKED), partition=tp.partition))
            await asyncio.gather(*sent)
            if fetched:
                await consumer.commit()


async def main() -> None:
    """Echo until SIGTERM or SIGINT."""
    work = asyncio.create_task(echo(Settings()))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await work


if __name__ == "__main__":
    asyncio.run(main())
