"""The net under the log: what has the form of a number is masked in every line, whoever wrote it.

Our own calls mask numbers themselves. An exception that a library raised may quote its input, and its text stands in the log.
"""

from __future__ import annotations

import logging
from typing import Any

from structlog.typing import EventDict, WrappedLogger

from rules.e164 import masked_e164_in


def mask_numbers(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A processor of structlog, to stand behind the one that writes exceptions out. ``request_id`` stays as it is."""
    return {name: value if name == "request_id" else _masked(value) for name, value in event.items()}


class MaskingFormatter(logging.Formatter):
    """The same for lines of libraries, their tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """A line as text."""
        return masked_e164_in(super().format(record))


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return masked_e164_in(value)
    if isinstance(value, list | tuple):
        return [_masked(one) for one in value]
    if isinstance(value, dict):
        return {_masked(name): _masked(one) for name, one in value.items()}
    return value
