"""deploy/prometheus.yml: promtool reads it, and what it sends opens /metrics of a service that asks for keys."""

import re
import shutil
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import yaml

from tests.deploy.test_grafana import FOLDER, needs_promtool, promtool, rules
from tests.edge.test_access import hashed

CONFIGURATION = FOLDER.parent / "prometheus.yml"
PAGE = FOLDER.parents[1] / "docs" / "how-to" / "prometheus.md"


@pytest.fixture
def deployed(tmp_path: Path) -> Path:
    """The configuration where Prometheus would have it, with its rules, and with a key as `openssl rand` makes it."""
    (tmp_path / "grafana").mkdir()
    shutil.copy(FOLDER / "alerts.yml", tmp_path / "grafana")
    (tmp_path / "fairlane.key").write_text("0f" * 32)
    return Path(shutil.copy(CONFIGURATION, tmp_path))


def job(path: Path) -> Any:
    (told,) = yaml.safe_load(path.read_text())["scrape_configs"]
    return told


@needs_promtool
def test_configuration_is_valid_with_its_rules(deployed: Path) -> None:
    result = promtool("check", "config", str(deployed))
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(rules())} rules found" in result.stdout


@needs_promtool
def test_key_that_is_not_there_is_named(deployed: Path) -> None:
    (deployed.parent / "fairlane.key").unlink()
    result = promtool("check", "config", str(deployed))
    assert result.returncode != 0
    assert "fairlane.key" in result.stdout + result.stderr


async def test_what_prometheus_sends_opens_the_metrics_and_nothing_else(
    serve: Any, request_of: Any, deployed: Path
) -> None:
    key = (deployed.parent / job(deployed)["authorization"]["credentials_file"]).read_text()
    example = re.search(r"^tenants:\n  prometheus: .*$", PAGE.read_text(), re.MULTILINE)
    assert example is not None
    served = await serve(**yaml.safe_load(re.sub(r'"sha256:.*"', hashed(key), example[0])))
    assert await scraped(served, {}) == 401
    scheme = job(deployed)["authorization"].get("type", "Bearer")
    assert await scraped(served, {"Authorization": f"{scheme} {key}"}) == 200
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await served.infer(request_of([[1]]), metadata=(("authorization", f"Bearer {key}"),))
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def scraped(served: Any, headers: dict[str, str]) -> int:
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"http://{served.addresses.http}/metrics") as reply,
    ):
        return reply.status


def test_alerts_go_by_the_jobs_name(deployed: Path) -> None:
    jobs = {name for rule in rules() for name in re.findall(r'job="([^"]+)"', rule["expr"])}
    assert jobs == {job(deployed)["job_name"]}
