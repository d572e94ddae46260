"""How long a running guard takes, by the log times of requests and decisions.

A broker's log time (LogAppendTime) is one clock for both. Where topics keep the producers' own time (CreateTime) these are two
clocks, and the measurement says so. ``decided_at`` is of no use: it is the guard's clock, which a rehearsal sets to another day.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from aiokafka import ConsumerRecord

from ops.snapshot import LatencyKind

#: Records of either side that wait for the other's: five minutes at 300 requests a second.
WAITING_MAX = 100_000
_LOG_APPEND_TIME = 1

# (partition, offset of the request) -> (milliseconds, kind of time stamp)
_Waiting = OrderedDict[tuple[int, int], tuple[int, int]]


class Measured(NamedTuple):
    """The time between a request and its decision, and the clocks it was taken from."""

    kind: LatencyKind
    latency_s: float


class LogTimes:
    """Pairs requests with their decisions, in whichever order they are read.

    Leaving out the decisions that are read first would leave out the fastest.
    """

    def __init__(self) -> None:
        self._requests: _Waiting = OrderedDict()
        self._decisions: _Waiting = OrderedDict()

    def __len__(self) -> int:
        return len(self._requests) + len(self._decisions)

    def request(self, record: ConsumerRecord[bytes, bytes]) -> Measured | None:
        """Take in a call request; measured if its decision has been read before."""
        return self._pair(self._requests, self._decisions, record.offset, record)

    def decision(self, record: ConsumerRecord[bytes, bytes]) -> Measured | None:
        """Take in a decision, which lies in the partition of its request; measured if that has been read before."""
        return self._pair(self._decisions, self._requests, _input_offset(record), record)

    def _pair(self, own: _Waiting, other: _Waiting, offset: int, record: ConsumerRecord[bytes, bytes]) -> Measured | None:
        key = record.partition, offset
        counterpart = other.pop(key, None)
        if counterpart is None:
            own[key] = record.timestamp, record.timestamp_type
            if len(own) > WAITING_MAX:
                own.popitem(last=False)
            return None
        timestamp, kind = counterpart
        one_clock = kind == record.timestamp_type == _LOG_APPEND_TIME
        # A request is written before its decision: where one clock says otherwise it has been set back, and 0 is meant.
        elapsed_ms = record.timestamp - timestamp if own is self._decisions else timestamp - record.timestamp
        return Measured("log_times" if one_clock else "producer_times", max(0, elapsed_ms) / 1000)


def _input_offset(decision: ConsumerRecord[bytes, bytes]) -> int:
    """Offset of the request that a decision answers; -1 where the header is missing."""
    header = dict(decision.headers).get("input-offset", b"")
    return int(header) if header.isdigit() else -1
