"""The Faust app: consumer group, topics and agents' scaffolding, without any agent yet."""

from __future__ import annotations

import faust

from config.settings import Settings
from streams import transport

_REQUEST_TIMEOUT_S = 30.0


class GuardApp(faust.App):
    """A Faust app that keeps nothing in files."""

    def _create_directories(self) -> None:
        """Faust would make a folder for its tables' files where the worker was started."""


def create_app(settings: Settings) -> faust.App:
    """A Faust app that reads whole batches, commits by hand and keeps its hands off the topics."""
    app = GuardApp(
        settings.group,
        broker=[f"kafka://{address}" for address in settings.kafka.split(",")],
        store="memory://",  # hot state lives in Redis tables of our own: Faust has no Redis table store, and its stores block
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_buffer_maxsize=64,  # batches, not records
        stream_wait_empty=False,  # what is under way at a rebalance is fenced by the epoch, and read again by the next owner
        broker_commit_interval=0.25,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.heartbeat_s,
        broker_request_timeout=_REQUEST_TIMEOUT_S,
        table_standby_replicas=1,  # with 0 Faust would fall back on an assignor that does not co-partition
        consumer_auto_offset_reset="earliest",
    )
    transport.install(app, settings)
    return app
