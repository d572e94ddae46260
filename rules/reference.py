"""Reference data: parties, campaigns and caller numbers, as every worker holds them whole in memory."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, cast

from rules.events import REFERENCE_KEYS, CallerNumber, Campaign, Party, ReferenceEntry


@dataclass(slots=True)
class Reference:
    """The newest entry of every id. An entry that was removed (tombstone) is absent, and whoever needs it fails closed.

    ``worked_out`` keeps what rules found from these entries alone (``rules.calling_side``); every change empties it.
    """

    parties: dict[str, Party] = field(default_factory=dict)
    campaigns: dict[str, Campaign] = field(default_factory=dict)
    caller_numbers: dict[str, CallerNumber] = field(default_factory=dict)
    worked_out: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    def put(self, topic: str, entry: ReferenceEntry) -> None:
        """Take in an entry; it replaces what stood under its key."""
        self._table(topic)[getattr(entry, REFERENCE_KEYS[topic])] = entry
        self.worked_out.clear()

    def remove(self, topic: str, key: str) -> None:
        """Take out the entry of a key, if there is one."""
        self._table(topic).pop(key, None)
        self.worked_out.clear()

    def brand(self, party_id: str) -> str | None:
        """The brand under which a party calls; None where it has none or is not on file."""
        party = self.parties.get(party_id)
        return (party.brand or None) if party is not None else None

    def same_brand(self, one: str, other: str) -> bool:
        """Whether two different parties share a brand."""
        brand = self.brand(one)
        return brand is not None and one != other and brand == self.brand(other)

    def is_member(self, party_id: str) -> bool:
        """Whether a party belongs to the trade body whose members were bound by the codes of 2020 and 2024 earlier."""
        party = self.parties.get(party_id)
        return party is not None and party.ddma_member is True

    def _table(self, topic: str) -> dict[str, ReferenceEntry]:
        tables = {"parties": self.parties, "campaigns": self.campaigns, "caller-numbers": self.caller_numbers}
        return cast("dict[str, ReferenceEntry]", tables[topic])
