"""docker-compose.yml and what it mounts, read and not started: it asks for keys, publishes on loopback alone, and fits its Prometheus.

tests/test_compose.py starts it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from config.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
SCRAPED = {
    job["job_name"]: job
    for job in yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
}
GRAFANA = ROOT / "monitoring" / "grafana" / "provisioning"


def test_nothing_is_published_beyond_this_machine() -> None:
    """Kafka and Redis have no password there, and metrics are not published at all."""
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert [port for port in published if not re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z]+_PORT:-\d+\}:\d+", port)] == []
    assert [port for port in published if port.endswith(":9100")] == []


def test_the_gateway_has_no_key_that_everybody_knows() -> None:
    """Compose refuses where it is not given."""
    assert re.fullmatch(r"\$\{RINGFENCE_API_KEYS:\?[^}]+\}", SERVICES["gateway"]["environment"]["RINGFENCE_API_KEYS"])
    assert "changeme" not in (ROOT / "docker-compose.yml").read_text(encoding="utf-8").lower()


def test_whatever_keeps_running_says_whether_it_is_healthy() -> None:
    """All but the one that makes the topics; who needs another waits until it is healthy, or done."""
    assert {name for name, service in SERVICES.items() if "healthcheck" not in service} == {"topics"}
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other == "topics" else "service_healthy"
            assert how == {"condition": wanted}, (name, other)


def test_two_workers_and_images_of_one_version_each() -> None:
    """No image moves by itself."""
    assert SERVICES["worker"]["deploy"]["replicas"] == 2
    images = {service["image"] for service in SERVICES.values()}
    assert [image for image in images if not re.fullmatch(r"[a-z/]+:v?\d+(\.\d+)+|\$\{RINGFENCE_IMAGE:-ringfence\}", image)] == []
    assert {name for name, service in SERVICES.items() if service.get("profiles") == ["monitoring"]} == {"prometheus", "grafana"}


def test_settings_are_those_that_a_guard_has() -> None:
    """A misspelt variable would be passed over."""
    known = {f"RINGFENCE_{name.upper()}" for name in Settings.model_fields}
    given = {name for service in SERVICES.values() for name in service.get("environment", {}) if name.startswith("RINGFENCE_")}
    assert given - known == set()


def test_prometheus_scrapes_what_shows_figures() -> None:
    """Every service with metrics, at its port, under the job name that the alerts ask for."""
    worker, gateway = SCRAPED["ringfence-worker"]["dns_sd_configs"][0], SCRAPED["ringfence-gateway"]["static_configs"][0]
    asked = {f"{worker['names'][0]}:{worker['port']}", *gateway["targets"]}
    shown = {name: service["environment"]["RINGFENCE_METRICS"] for name, service in SERVICES.items() if name in {"worker", "gateway"}}
    assert asked == {f"{name}:{address.rpartition(':')[2]}" for name, address in shown.items()}


def test_what_is_mounted_is_there_and_is_where_it_is_looked_for() -> None:
    """Read-only; Grafana's provisioning names the mounted dashboard's folder and the Prometheus of the file."""
    mounts = [mount.split(":") for service in SERVICES.values() for mount in service.get("volumes", []) if mount.startswith("./")]
    assert mounts
    assert [mount for mount in mounts if not (ROOT / mount[0]).exists() or mount[2:] != ["ro"]] == []
    inside = {mount[1] for mount in mounts}
    provider = yaml.safe_load((GRAFANA / "dashboards" / "ringfence.yml").read_text(encoding="utf-8"))["providers"][0]
    assert f"{provider['options']['path']}/ringfence.json" in inside
    assert SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] in inside
    source = yaml.safe_load((GRAFANA / "datasources" / "prometheus.yml").read_text(encoding="utf-8"))["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
