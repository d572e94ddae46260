"""What is given to Prometheus and Grafana names only what is there, and each alert fires when it should.

The rules are run by Prometheus' own ``promtool``; where that is not installed, those tests say so and are left out.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops import metrics
from ops.exposition import Family
from ops.gateway import metrics as gateway_metrics
from tests.test_docs import anchors

ROOT = Path(__file__).resolve().parent.parent
MONITORING = ROOT / "monitoring"
BOARD = json.loads((MONITORING / "grafana" / "ringfence.json").read_text(encoding="utf-8"))
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
]
SCENARIOS = yaml.safe_load((MONITORING / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]

HISTOGRAMS = metrics.HISTOGRAMS | gateway_metrics.HISTOGRAMS
FAMILIES = metrics.COUNTERS | metrics.GAUGES | gateway_metrics.COUNTERS | gateway_metrics.GAUGES | HISTOGRAMS
#: What Prometheus itself adds to a series.
ADDED_LABELS = {"instance", "job", "le"}
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: apt-get install prometheus): alerts are not run"
)


def samples() -> dict[str, Family]:
    """Every name that a scrape of a worker or gateway may show, with its family."""
    return FAMILIES | {f"{name}_{part}": family for name, family in HISTOGRAMS.items() for part in ("bucket", "sum", "count")}


def panels() -> list[dict[str, Any]]:
    """The panels of the dashboard, without the headings between them."""
    return [panel for panel in BOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression in the alerts, their tests' series and the dashboard, under a name for messages."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for scenario in SCENARIOS:
        for series in scenario["input_series"]:
            yield scenario["name"], series["series"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def told(rule: dict[str, Any]) -> str:
    """What an alert says to whoever is woken."""
    return " ".join(rule["annotations"].values())


def test_every_metric_that_is_named_exists() -> None:
    """In expressions, and in the words of the alerts."""
    named = [(where, name) for where, text in expressions() for name in re.findall(r"\bringfence_\w+", text)]
    named += [(rule["alert"], name) for rule in RULES for name in re.findall(r"\bringfence_\w+", told(rule))]
    assert len(named) > 100
    assert [(where, name) for where, name in named if name not in samples()] == []


def test_every_label_that_is_asked_for_exists() -> None:
    """Those that select, and those that an expression sums by."""
    wrong = []
    for where, text in expressions():
        families = [samples()[name] for name in re.findall(r"\bringfence_\w+", text)]
        known = {label for family in families for label in family.labels} | ADDED_LABELS
        selected = re.findall(r'[{,]\s*(\w+)\s*(?:=~|!~|!=|=)\s*"', text)
        summed = [label for group in re.findall(r"\bby \(([^)]*)\)", text) for label in re.split(r",\s*", group)]
        wrong += [(where, label) for label in [*selected, *summed] if label not in known]
    assert wrong == []


def test_every_family_has_its_panel() -> None:
    """What is counted can be looked at."""
    shown = {name for panel in panels() for target in panel["targets"] for name in re.findall(r"\bringfence_\w+", target["expr"])}
    families = {name.removesuffix("_bucket") for name in shown}
    assert FAMILIES.keys() - families == set()


def test_every_refusal_of_the_gateway_is_shown_from_the_start() -> None:
    """A reason that is missing would appear when it first counts, and no alert would see that rise."""
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "ops" / "gateway").glob("*.py"))
    assert set(re.findall(r'reason="([a-z]+)"', code)) == set(gateway_metrics.REFUSALS)


def test_every_alert_says_what_it_means_and_where_to_read_on() -> None:
    """Summary, description and severity; the runbook is a heading of a page of this project."""
    for rule in RULES:
        assert rule["labels"]["severity"] in {"page", "ticket"}, rule["alert"]
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}, rule["alert"]
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert anchor in anchors((ROOT / page).read_text(encoding="utf-8")), rule["alert"]


def test_every_alert_is_seen_to_fire_and_to_be_quiet() -> None:
    """Each is expected by a scenario, at one instant and not at another, and no scenario expects one that does not exist."""
    known = {rule["alert"] for rule in RULES}
    fired, quiet = set(), set()
    for scenario in SCENARIOS:
        expected = [set(re.findall(r'alertname="(\w+)"', str(check["exp_samples"]))) for check in scenario["promql_expr_test"]]
        fired |= set.union(*expected)
        quiet |= {alert for alert in set.union(*expected) if any(alert not in one for one in expected)}
    assert fired == quiet == known


def test_the_dashboard_can_be_read() -> None:
    """Panels do not overlap, each says what it shows, and none is bound to somebody's own data source."""
    taken: dict[tuple[int, int], str] = {}
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for cell in ((x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])):
            assert taken.setdefault(cell, panel["title"]) == panel["title"], panel["title"]
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    sources = {json.dumps(one["datasource"]) for panel in panels() for one in [panel, *panel["targets"]]}
    assert sources == {'{"type": "prometheus", "uid": "${datasource}"}'}


def promtool(*arguments: str) -> None:
    """Run it; an error shows what it said."""
    done = subprocess.run(["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_configuration_and_rules() -> None:
    """As promtool reads them."""
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "alerts.yml")


@needs_promtool
def test_the_alerts_fire_as_their_scenarios_say() -> None:
    """Each scenario names all alerts that fire at an instant, and no other does."""
    promtool("test", "rules", "alerts_test.yml")
