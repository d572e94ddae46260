"""The live view of ``ringfence demo`` and ``ringfence watch``: figures on a terminal, or lines of text over a pipe.

```
Screen          shows snapshots: a full-screen view on a terminal, one line every few seconds elsewhere
live_view()     one frame, for any width and height
status_line()   the same in one line of plain text
summary()       the end: what a terminal keeps; summary_lines() for a pipe
```

On a terminal of 80 by 24 everything fits; from 140 columns on the tables stand side by side. NO_COLOR is respected, and over a
pipe (or TERM=dumb) no control code is written. No telephone number is shown anywhere in it.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ops.snapshot import LatencyKind, PartyCount, Snapshot
from rules.codes import ALL_CODES
from rules.instants import AMSTERDAM, parse_instant

#: From this many columns on, reasons and parties stand side by side.
WIDE_COLUMNS = 140
#: Below this many columns there are no bars.
NARROW_COLUMNS = 72
#: What the parties' table takes at the right of a wide terminal.
_PARTIES_COLUMNS = 62
FRAME_S = 0.25
LINE_S = 5.0

#: What each code says, in plain words that fit into the 36 columns which 80 leave.
MEANINGS = {
    "S_REQUEST_EXPIRED": "asked too long ago to answer",
    "S_DIAL_TOO_FAR": "dial time too far ahead",
    "S_STATE_UNAVAILABLE": "facts cannot be read now",
    "S_STATE_STALE": "newer facts not yet taken in",
    "S_QUARANTINED": "an objection came in unreadable",
    "E_FACTS_INCOMPLETE": "campaign, party or field missing",
    "E_CLI_FALSE": "shows another party's number",
    "E_SERVICE_NOT_NECESSARY": "service call nobody needed",
    "E_SERVICE_PROMOTIONAL": "service call that sells",
    "E_CLI_WITHHELD": "caller number withheld",
    "E_SOLICITED_CONSUMED": "call-me request old or used",
    "E_SOLICITED_UNCLEAR": "call-me request names no company",
    "E_SOLICITED_NOT_OWN_INITIATIVE": "call-me box of a survey or draw",
    "E_OBJECTION": "the person objected",
    "E_CONSENT_WITHDRAWN": "the person withdrew consent",
    "E_BMNR": "in the do-not-call register",
    "E_BMNR_SCRUB_STALE": "register check too old",
    "E_AUTOMATED_NO_CONSENT": "robot call without consent",
    "E_CONSENT_NOT_PRIOR": "consent came after the call",
    "E_CONSENT_PRETICKED": "consent box was pre-ticked",
    "E_CONSENT_HIDDEN": "consent hidden in the terms",
    "E_CONSENT_BUNDLED": "consent bundled with other things",
    "E_CONSENT_NOT_NAMED": "consent names other parties only",
    "E_CONSENT_CHANNEL": "consent not for the telephone alone",
    "E_CONSENT_SUBJECT": "consent about something else",
    "E_CONSENT_EXPIRED_OWN_TERMS": "consent ran out by its own text",
    "E_CONSENT_FIRST_CONTACT_LATE": "no first call within 6 months",
    "E_CONSENT_UNVERIFIED": "not checked who gave consent",
    "E_CONSENT_UNPROVEN": "no proof of consent",
    "E_CHARITY_NO_LINK": "no donor or volunteer of theirs",
    "E_CHARITY_NOT_OWN_PURPOSE": "not for the charity's own purpose",
    "E_EXEMPT_NOT_PERIODICAL": "publishes too seldom to be exempt",
    "E_EXEMPT_NOT_LICENSED": "licence of another kind",
    "E_REL_ABOLISHED": "customer basis ended 1 July 2026",
    "E_REL_NO_TRANSACTION": "never bought anything",
    "E_REL_OTHER_ENTITY": "customer of a sister company",
    "E_REL_NOT_INFORMED": "customer was not told of calls",
    "E_REL_NO_OPTOUT": "customer got no way to opt out",
    "E_REL_NOT_SIMILAR": "not a similar product of its own",
    "E_REL_TERM_EXCEEDED": "customer left over 3 years ago",
    "E_REL_NO_BALANCE_TEST": "no balance of interests on file",
    "E_REL_BALANCE_TERM_EXCEEDED": "left longer ago than own term",
    "E_INTERMEDIARY_BASIS": "intermediary has no basis of its own",
    "E_NO_BASIS": "no consent, nothing else either",
    "E_OBJECTION_OFFER_MISSING": "script offers no way to object",
    "E_CLI_NOT_CALLABLE": "number cannot be called back",
    "E_CLI_PREMIUM": "calling back costs extra",
    "E_CLI_NOT_PUBLISHED": "number not on the caller's site",
    "E_MINOR": "too young to be called",
    "E_DAY_SUNDAY": "Sunday",
    "E_DAY_HOLIDAY": "public holiday",
    "E_DAY_SPECIAL": "day or hour of remembrance or feast",
    "E_TIME_WINDOW": "outside calling hours",
    "P_ATTEMPT_CAP": "called often enough (policy)",
    "P_COOLDOWN": "not interested lately (policy)",
    "P_ABANDON_RATE": "dialler drops calls (policy)",
    "OK_CONSENT": "consent",
    "OK_RELATIONSHIP": "customer",
    "OK_CHARITY_RELATION": "donor",
    "OK_PERIODICAL_PUBLISHER": "subscriber",
    "OK_LOTTERY_LICENSEE": "lottery player",
    "OK_SOLICITED": "asked to be called",
    "OK_SERVICE": "service call",
    "OK_NOT_TELEMARKETING": "research",
    "OK_LEGAL_ENTITY": "company",
    "OK_PUBLISHED_FOR_MARKETING": "published number",
    "OK_NON_EEA_PROFESSIONAL": "business outside the EEA",
    "OK_OPTOUT_PRE2021": "opt-out (before July 2021)",
    "OK_OWN_CUSTOMER_PRE2021": "customer (before July 2021)",
    "W_SERVICE_TINT": "service call with a touch of selling",
    "W_LEGALFORM_ASSUMED_NP": "taken for a natural person",
}
assert set(MEANINGS) == set(ALL_CODES)  # a code without a meaning would show up as a gap on the screen

_LATENCY_LABELS: dict[LatencyKind, str] = {
    "due_to_read": "request due to decision read",
    "log_times": "request logged to decision logged",
    "producer_times": "by two producers' clocks",
    "none": "not measured",
}
_LATENCY_NOTES: dict[LatencyKind, str] = {
    "due_to_read": "from when a request was due to when its decision was read back (one clock)",
    "log_times": "from the broker's log time of the request to that of its decision",
    "producer_times": "from the request's own time stamp to the decision's (two clocks)",
    "none": "not measured",
}
_SPARKS = "▁▂▃▄▅▆▇█"
_PLAIN_SPARKS = "._-=+*#@"


# --- parts ----------------------------------------------------------------------------------------


def guard_time(snapshot: Snapshot) -> str:
    """The guard's clock as of its last decision, in Amsterdam: ``Mon 23 Nov 2026 14:00:42``."""
    if snapshot.decided_at is None:
        return "no decision yet"
    try:
        instant = parse_instant(snapshot.decided_at)
    except ValueError:
        return "clock unreadable"
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant)
    return moment.astimezone(AMSTERDAM).strftime("%a %d %b %Y %H:%M:%S")


def sparkline(counts: Sequence[int], width: int, *, unicode: bool = True) -> str:
    """Counts as a line of ``width`` characters at most, one a count, the newest at the right; the highest fills its cell."""
    shown = counts[-width:] if width > 0 else []
    marks = _SPARKS if unicode else _PLAIN_SPARKS
    top = max(shown, default=0)
    return "".join(marks[min(len(marks) - 1, count * len(marks) // (top + 1))] if count else " " for count in shown)


def duration(seconds: float) -> str:
    """A latency for people: ``8.7 ms``, ``140 ms``, ``2.1 s``."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.0f} ms" if milliseconds >= 100 else f"{milliseconds:.1f} ms"  # noqa: PLR2004  # three digits


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"


def _latency_text(snapshot: Snapshot) -> str:
    label = _LATENCY_LABELS[snapshot.latency_kind]
    recent, whole = snapshot.latency_last_minute, snapshot.latency
    if whole is None:
        return "latency: none measured yet"
    shown = recent or whole
    return f"latency p50 {duration(shown.p50)}, p99 {duration(shown.p99)}{' (last minute)' if recent else ''}, {label}"


def _bar(part: int, whole: int, width: int, *, unicode: bool) -> str:
    cells = round(width * part / whole) if whole else 0
    return ("█" if unicode else "#") * max(cells, 1 if part else 0)


def _header(snapshot: Snapshot, title: str, state: str, width: int, *, unicode: bool) -> list[Text]:
    first = Text(no_wrap=True, overflow="crop")
    first.append(title, style="bold")
    narrow = width < NARROW_COLUMNS
    clock = guard_time(snapshot) if narrow else f"{guard_time(snapshot)} Amsterdam"
    if len(title) + len(clock) + len(state) + 4 > width:
        clock = clock.rpartition(" ")[2]
    gap = width - len(title) - len(clock) - len(state)
    first.append(f"{' ' * max(2, gap // 2)}{clock}{' ' * max(2, gap - gap // 2)}", style="cyan")
    first.append(state, style="dim")
    second = Text(no_wrap=True, overflow="crop")
    second.append(f"{snapshot.rate:,.0f}", style="bold")
    second.append("/s  " if narrow else " decisions/s  ")
    second.append(f"{snapshot.approved:,}", style="bold green")
    second.append(f" approved ({_share(snapshot.approved, snapshot.decisions)})  ")
    second.append(f"{snapshot.blocked:,}", style="bold red")
    second.append(" blocked  ")
    second.append(f"{snapshot.recalls:,}", style="bold yellow")
    second.append(" recalled  ")
    room = width - second.cell_len
    if room >= 8:  # noqa: PLR2004  # shorter says nothing
        second.append(sparkline(snapshot.per_second, room, unicode=unicode), style="blue")
    return [first, second]


def _reasons(snapshot: Snapshot, width: int, rows: int, *, unicode: bool) -> Table:
    """The commonest reasons; the last row says how much is not shown."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), expand=True, header_style="bold dim", width=width)
    table.add_column("why blocked", no_wrap=True, min_width=14)
    table.add_column("calls", justify="right", no_wrap=True, min_width=6)
    bars = width >= NARROW_COLUMNS
    bar_width = max(5, min(24, width - 73)) if bars else 0
    if bars:
        table.add_column("", no_wrap=True, width=bar_width)
    table.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
    top = snapshot.reasons[0][1] if snapshot.reasons else 0
    for code, count in _first(snapshot.reasons, rows):
        cells: list[RenderableType] = [Text(code, style="yellow"), f"{count:,}"]
        if bars:
            cells.append(Text(_bar(count, top, bar_width, unicode=unicode), style="red"))
        table.add_row(*cells, Text(MEANINGS.get(code, "")))
    rest = snapshot.reasons[max(0, rows - 1) :]
    if len(snapshot.reasons) > rows:
        filler = [""] if bars else []
        total = sum(count for _, count in rest)
        table.add_row(Text(f"and {len(rest)} more", style="dim"), Text(f"{total:,}", style="dim"), *filler, "")
    return table


def _first(items: Sequence[tuple[str, int]], rows: int) -> Sequence[tuple[str, int]]:
    return items if len(items) <= rows else items[: max(0, rows - 1)]


def _parties(snapshot: Snapshot, width: int, rows: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), expand=True, header_style="bold dim", width=width)
    table.add_column("who calls", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("as", no_wrap=True, min_width=12)
    table.add_column("approved", justify="right", no_wrap=True, min_width=8)
    table.add_column("blocked", justify="right", no_wrap=True, min_width=8)
    table.add_column("share", justify="right", no_wrap=True, min_width=5)
    for party in _chosen(snapshot.parties, rows):
        role = Text(party.role, style="" if party.role == "advertiser" else "magenta")
        cells = (f"{party.approved:,}", f"{party.blocked:,}", _share(party.approved, party.total))
        table.add_row(Text(party.name), role, Text(cells[0], style="green"), Text(cells[1], style="red"), cells[2])
    return table


def _chosen(parties: Sequence[PartyCount], rows: int) -> list[PartyCount]:
    """The busiest of each role, so that a few rows show intermediaries and call centres too."""
    if len(parties) <= rows:
        return list(parties)
    others = [party for party in parties if party.role != "advertiser"]
    kept = sorted(others, key=lambda party: -party.total)[: max(1, rows // 3)]
    advertisers = [party for party in parties if party.role == "advertiser"][: rows - len(kept)]
    return [*advertisers, *(party for party in others if party in kept)]


def _bases(snapshot: Snapshot) -> Text:
    text = Text("approved for: ", style="dim", no_wrap=True, overflow="ellipsis")
    parts = [f"{MEANINGS.get(code, code)} {count:,}" for code, count in snapshot.bases]
    return text.append(", ".join(parts) if parts else "-", style="green")


def _footer(snapshot: Snapshot) -> list[Text]:
    odd = [f"{sum(count for _, count in snapshot.rejected):,} rejected records", f"{snapshot.repeats:,} repeated"]
    if snapshot.contradictions:
        odd.append(f"{snapshot.contradictions:,} SECOND DECISIONS")
    if snapshot.unreadable:
        odd.append(f"{snapshot.unreadable:,} unreadable")
    latency = Text(_latency_text(snapshot), no_wrap=True, overflow="ellipsis")
    return [latency, Text("  ".join(odd), style="dim", no_wrap=True, overflow="ellipsis")]


# --- frames and lines -----------------------------------------------------------------------------


def live_view(
    snapshot: Snapshot, width: int, height: int, *, title: str = "ringfence", state: str = "", unicode: bool = True
) -> RenderableType:
    """One frame of ``width`` columns and at most ``height`` rows. ``state`` stands at the right of the first row."""
    parts: list[RenderableType] = [*_header(snapshot, title, state, width, unicode=unicode), _bases(snapshot), Text("")]
    footer = _footer(snapshot)
    rows = max(4, height - len(parts) - len(footer) - 1)
    if width >= WIDE_COLUMNS:
        side = _PARTIES_COLUMNS
        columns = Table.grid(padding=0)
        columns.add_column(width=width - side - 3)
        columns.add_column(width=3)
        columns.add_column(width=side)
        reasons = _reasons(snapshot, width - side - 3, rows - 2, unicode=unicode)
        columns.add_row(reasons, "", _parties(snapshot, side, rows - 2))
        parts += [columns, Text("")]
    else:
        # Two headings and an empty row between the tables; parties get less than half.
        party_rows = min(len(snapshot.parties), max(1, (rows - 3) * 3 // 7))
        reasons = _reasons(snapshot, width, max(1, rows - 3 - party_rows), unicode=unicode)
        parts += [reasons, Text(""), _parties(snapshot, width, party_rows)]
    return Group(*parts, *footer)


def status_line(snapshot: Snapshot, state: str = "") -> str:
    """The figures in one line of plain text."""
    reasons = ", ".join(f"{code} {count:,}" for code, count in snapshot.reasons[:3]) or "-"
    latency = snapshot.latency_last_minute or snapshot.latency
    times = f"p50 {duration(latency.p50)}, p99 {duration(latency.p99)}" if latency is not None else "latency unknown"
    return (
        f"{state + ': ' if state else ''}{guard_time(snapshot)}, {snapshot.rate:,.0f} decisions/s, "
        f"{snapshot.approved:,} approved ({_share(snapshot.approved, snapshot.decisions)}), {snapshot.blocked:,} blocked, "
        f"{snapshot.recalls:,} recalled; {times}; top reasons: {reasons}"
    )


def summary_lines(snapshot: Snapshot, verdict: Iterable[str] = ()) -> list[str]:
    """The end of a run as lines of plain text, of 80 columns where the names allow."""
    rate = snapshot.decisions / snapshot.seconds if snapshot.seconds else 0.0
    approved = f"approved {snapshot.approved:,} ({_share(snapshot.approved, snapshot.decisions)})"
    lines = [
        f"{snapshot.decisions:,} decisions in {snapshot.seconds:.0f} s ({rate:,.0f} a second)",
        f"  {approved}, blocked {snapshot.blocked:,}, recalled {snapshot.recalls:,}",
        f"  rejected records {sum(count for _, count in snapshot.rejected):,}, repeated answers {snapshot.repeats:,}",
        "",
        "approved for",
        *(f"  {code:<28}{count:>8,}  {MEANINGS.get(code, '')}" for code, count in snapshot.bases),
        "",
        "blocked because (a call may have several reasons)",
        *(f"  {code:<28}{count:>8,}  {MEANINGS.get(code, '')}" for code, count in snapshot.reasons[:12]),
    ]
    if len(snapshot.reasons) > 12:  # noqa: PLR2004  # as many as are shown
        lines.append(f"  and {len(snapshot.reasons) - 12} more")
    lines += ["", f"{'who calls':<28}{'as':<14}{'approved':>9}{'blocked':>9}{'share':>7}"]
    for party in snapshot.parties[:20]:
        counts = f"{party.approved:>9,}{party.blocked:>9,}{_share(party.approved, party.total):>7}"
        lines.append(f"{party.name[:27]:<28}{party.role:<14}{counts}")
    lines.append("")
    if snapshot.latency is not None:
        times = f"p50 {duration(snapshot.latency.p50)}, p99 {duration(snapshot.latency.p99)}"
        lines += [f"latency {times} ({snapshot.latency.count:,} decisions)", f"  {_LATENCY_NOTES[snapshot.latency_kind]}"]
    else:
        lines.append("latency: none measured")
    return [*lines, *verdict]


class Screen:
    """Shows snapshots until it is left: ``with Screen("ringfence demo") as screen: screen.show(snapshot, "00:10 of 01:00")``.

    Raises nothing of its own; a pipe that its reader closed raises BrokenPipeError, as print does.
    """

    def __init__(self, title: str, out: TextIO | None = None) -> None:
        """Nothing is shown yet. ``out``: standard output by default."""
        self._title = title
        self._out = sys.stdout if out is None else out
        # Our own look at the terminal: FORCE_COLOR would make rich write control codes into a pipe.
        self.terminal = self._out.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")
        self._unicode = (getattr(self._out, "encoding", None) or "ascii").lower().startswith("utf")
        self._console = Console(file=self._out, highlight=False, force_terminal=self.terminal)
        self._live: Live | None = None
        self._shown_at = float("-inf")
        self._stderr = sys.stderr
        self._kept = io.StringIO()

    def __enter__(self) -> Self:
        if self.terminal:
            # What a dying worker has to say would smear the frame and vanish with it: it is kept for when the view is left.
            self._stderr, sys.stderr = sys.stderr, self._kept
            self._live = Live(console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
            self._live.__enter__()
        else:
            self._shown_at = time.monotonic()  # the first line has something to tell
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, traceback)
            self._live = None
            sys.stderr = self._stderr
            sys.stderr.write(self._kept.getvalue())

    @property
    def due(self) -> bool:
        """Whether it is time for the next frame, or line."""
        return time.monotonic() - self._shown_at >= (FRAME_S if self.terminal else LINE_S)

    def show(self, snapshot: Snapshot, state: str = "") -> None:
        """Show a snapshot now."""
        self._shown_at = time.monotonic()
        if self._live is None:
            self.say(status_line(snapshot, state))
            return
        width, height = self._console.size
        frame = live_view(snapshot, width, height, title=self._title, state=state, unicode=self._unicode)
        self._live.update(frame, refresh=True)

    def say(self, text: str) -> None:
        """Write a line of plain text."""
        encoding = getattr(self._out, "encoding", None) or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding), file=self._out, flush=True)

    def close_with(self, lines: Iterable[str]) -> None:
        """Write the summary below; call it after the view has been left."""
        for line in lines:
            self.say(line)
