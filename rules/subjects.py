"""Subjects of calls: paths in the operator's own vocabulary, where ``energy`` covers ``energy`` and ``energy/solar``."""

from collections.abc import Iterable


def covers(subject: str, asked: str | None) -> bool:
    """Whether a subject on a fact covers the subject of a request; a request without a subject is covered by none."""
    return asked is not None and (asked == subject or asked.startswith(subject + "/"))


def covered(asked: str | None, subjects: Iterable[str]) -> bool:
    """Whether one of the subjects on a fact covers the subject of a request."""
    return any(covers(subject, asked) for subject in subjects)
