"""deploy/grafana against metrics scraped from a run: promtool reads them, and what is asked for exists."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana"
PROMTOOL = shutil.which("promtool") or shutil.which("promtool", path=str(Path(sys.executable).parent))
METRIC = re.compile(r"\b(?:fairlane|process)_[a-z_]+")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="no promtool on this machine: it is in Debian's package prometheus (make test fetches it)"
)


def promtool(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL is not None
    return subprocess.run(
        [PROMTOOL, *arguments], cwd=FOLDER, input=text, capture_output=True, text=True, timeout=60, check=False
    )


def panels() -> Iterator[tuple[str, str]]:
    """(title, expression) of every query of the dashboard."""
    for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def rules() -> list[Any]:
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


async def scrape(serve: Any, request_of: Any, get: Any) -> str:
    served = await serve()
    for tenant in ("acme", 'a"b\\c'):
        await served.infer(request_of([[1], [2]]), metadata=(("x-tenant-id", tenant),))
    _, text = await get(served, "/metrics")
    return str(text)


@needs_promtool
async def test_scraped_metrics_pass_promtools_linter(serve: Any, request_of: Any, get: Any) -> None:
    result = promtool("check", "metrics", text=await scrape(serve, request_of, get))
    # prometheus_client's own are not ours to name.
    complaints = [line for line in (result.stdout + result.stderr).splitlines() if not line.startswith("process_")]
    assert complaints == []


async def test_every_metric_asked_for_is_one_that_a_run_has(
    serve: Any,
    request_of: Any,
    get: Any,
) -> None:
    families = text_string_to_metric_families(await scrape(serve, request_of, get))
    there = {sample.name for family in families for sample in family.samples}
    # There from the first of its kind on.
    there |= {"fairlane_invalid_requests_total", "fairlane_retries_total", "fairlane_breaker_state"}
    there |= {"fairlane_first_response_seconds_bucket", "fairlane_merging_stopped"}
    asked = {name for _, expression in panels() for name in METRIC.findall(expression)}
    asked |= {name for rule in rules() for name in METRIC.findall(rule["expr"])}
    assert len(asked) > 20
    assert asked - there == set()


@needs_promtool
def test_rules_are_valid_and_fire_when_they_should() -> None:
    for arguments in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts.test.yml")):
        result = promtool(*arguments)
        assert result.returncode == 0, result.stdout + result.stderr


@needs_promtool
def test_every_query_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    expressions = [expression.replace("$__rate_interval", "1m") for _, expression in panels()]
    written = [{"record": f"panel:{place}", "expr": expression} for place, expression in enumerate(expressions)]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": written}]}))
    result = promtool("check", "rules", str(path))
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_says_what_to_make_of_it() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert all(alert["annotations"]["summary"] and alert["labels"]["severity"] for alert in alerts)


def test_every_alert_is_made_to_fire() -> None:
    groups = yaml.safe_load((FOLDER / "alerts.test.yml").read_text())["tests"]
    fired = {each["alertname"] for group in groups for each in group.get("alert_rule_test", ()) if each["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules() if "alert" in rule}


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    placed = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in placed}) == len(placed)
    cells = [
        (x, y)
        for panel in placed
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
