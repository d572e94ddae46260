"""Which rule and which facts gave each code, noted while a decision is taken again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from rules.findings import Finding, Findings


class Trace(Findings):
    """Findings that keep, for each code, the rules that gave it and the event_ids behind each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.causes: defaultdict[str, dict[str, set[str]]] = defaultdict(dict)

    def add(self, code: str, rule_id: str, evidence: Iterable[str] = ()) -> None:
        """Report one code."""
        event_ids = set(evidence)
        super().add(code, rule_id, event_ids)
        self.causes[code].setdefault(rule_id, set()).update(event_ids)

    def add_all(self, found: Iterable[Finding]) -> None:
        """Report codes behind which there is no fact of the number's own."""
        for code, rule_id in found:
            self.add(code, rule_id)
