"""Facts of the same instant that disagree: read together, field by field as what allows less.

Each reducer takes the values of one field over all equal facts and gives the one that allows least.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from rules.records import BUSINESS_PERSONS, SALE_KINDS, Callee, Published, Relationship
from rules.subjects import covered


def _same_or_none(values: list[Any]) -> Any:  # one of the values, whatever the field holds
    return values[0] if all(value == values[0] for value in values) else None


def _latest_or_none(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def _latest_known(values: list[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _earliest_known(values: list[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _in_all(values: list[tuple[str, ...]]) -> tuple[str, ...]:
    offered = {subject for subjects in values for subject in subjects}
    return tuple(sorted(subject for subject in offered if all(covered(subject, subjects) for subjects in values)))


def _least_form(values: list[str]) -> str:
    """A consumer is protected most, then a form that nobody knows, then a business person, then a legal person."""
    rank = {"natural_person": 0, "unknown": 1} | dict.fromkeys(BUSINESS_PERSONS, 2)
    return min(values, key=lambda form: (rank.get(form, 3), form))


def _least_kind(values: list[str | None]) -> str | None:
    """Two kinds of sale are a sale still; otherwise facts that disagree about the kind show none."""
    sales = [value for value in values if value is not None and value in SALE_KINDS]
    if len(sales) == len(values):
        return min(sales)
    return values[0] if len(set(values)) == 1 else None


def _least_published(values: list[Published | None]) -> Published | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return Published(max(value.at for value in known), _in_all([value.subjects for value in known]))


def _all_refs(values: list[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(sorted({ref for refs in values for ref in refs}))


_STRICTER_RELATIONSHIP: dict[str, Callable[[list[Any]], object]] = {
    "advertiser_id": _same_or_none,
    "kind": _least_kind,
    "paid": all,
    "number_given_in_sale": all,
    "started_on": _latest_known,
    "ended_on": _earliest_known,
    "collected_on": _latest_or_none,
    "informed": all,
    "optout_at_collection": all,
    "subjects": _in_all,
    "rationale": all,
}

_STRICTER_CALLEE: dict[str, Callable[[list[Any]], object]] = {
    "legal_form": _least_form,
    "person_refs": _all_refs,
    "age": _earliest_known,
    "age_suspected_minor": any,
    "published": _least_published,
    "country": _same_or_none,
    "local_rules_met": all,
    "deceased": any,
    "registered_on": _earliest_known,
}


def stricter_relationship(versions: list[Relationship]) -> Relationship:
    """One relationship out of versions with the same id and ``at``; ``event_id`` is that of the first in order of ids."""
    return _stricter(versions, _STRICTER_RELATIONSHIP)


def stricter_callee(callees: list[Callee]) -> Callee | None:
    """One callee out of facts with the same ``at``; None if there is none."""
    return _stricter(callees, _STRICTER_CALLEE) if callees else None


_R = TypeVar("_R", Relationship, Callee)


def _stricter(records: list[_R], reducers: dict[str, Callable[[list[Any]], object]]) -> _R:
    if len(records) == 1:
        return records[0]
    ordered = sorted(records, key=lambda record: record.event_id)
    merged = {name: reduce([getattr(record, name) for record in ordered]) for name, reduce in reducers.items()}
    return msgspec.structs.replace(ordered[0], **merged)
