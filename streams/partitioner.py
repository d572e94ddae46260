"""Where a number's records belong: the partition that Kafka's default partitioner gives (murmur2 of the key)."""

from __future__ import annotations

from aiokafka.partitioner import murmur2


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key among ``partitions``, as Java's and aiokafka's producers compute it."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions
