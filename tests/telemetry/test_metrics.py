"""/metrics of a whole service, and its table."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from scheduler.telemetry.metrics import document
from scheduler.telemetry.table import METRICS

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    return samples(text)[name, frozenset(labels.items())]


def test_document_is_written_from_the_table() -> None:
    assert DOCUMENT.read_text() == document()


def test_names_follow_the_conventions() -> None:
    names = [metric.published for metric in METRICS]
    assert len(set(names)) == len(names)
    assert all(name.startswith("fairlane_") for name in names)
    assert all(metric.meaning.endswith(".") for metric in METRICS)


async def test_every_metric_is_there_after_a_request(serve: Any, request_of: Any, get: Any) -> None:
    served = await serve()
    await served.infer(request_of([[1]]), metadata=(("x-tenant-id", "acme"),))
    with pytest.raises(grpc.aio.AioRpcError):
        await served.infer(request_of([[1]], model="unknown"))
    status, text = await get(served, "/metrics")
    assert status == 200
    families = {family.name for family in text_string_to_metric_families(text)}
    assert {metric.name for metric in METRICS} <= families
    assert "process_cpu_seconds" in families
    request = {"class": "interactive", "model": "identity", "outcome": "completed"}
    assert value(text, "fairlane_requests_total", tenant="acme", **request) == 1
    assert value(text, "fairlane_request_duration_seconds_count", **request) == 1
    assert value(text, "fairlane_invalid_requests_total", reason="UNKNOWN_MODEL") == 1
    assert value(text, "fairlane_batches_total", backend="fake", model="identity", verdict="succeeded") == 1
    assert value(text, "fairlane_instances", backend="fake", model="two_instances") == 2
    assert value(text, "fairlane_backend_ready", backend="fake") == 1


async def test_durations_have_buckets_from_a_tenth_of_a_millisecond_to_a_minute(
    serve: Any, request_of: Any, get: Any
) -> None:
    served = await serve()
    await served.infer(request_of([[1]]))
    _, text = await get(served, "/metrics")
    for name in ("fairlane_request_duration_seconds", "fairlane_queue_duration_seconds"):
        buckets = [dict(labels)["le"] for metric, labels in samples(text) if metric == f"{name}_bucket"]
        assert buckets.pop() == "+Inf"
        bounds = [float(bound) for bound in buckets]
        assert (bounds[0], len(bounds)) == (0.0001, 30)
        assert bounds[-1] >= 60
        assert max(after / before for before, after in pairwise(bounds)) <= 1.61


async def test_what_waits_and_what_is_refused_is_seen(serve: Any, request_of: Any, get: Any, eventually: Any) -> None:
    served = await serve(tenants={"default": {"max_queued": 1}}, models={"identity": {"merge": False}})
    served.triton.hold()
    calls = []
    # One after the other: two that arrive within one turn of the loop are both queued before either is dispatched.
    for n in range(2):
        calls.append(asyncio.ensure_future(served.infer(request_of([[n]]))))
        await served.triton.until(lambda triton, at_triton=n + 1: len(triton.in_flight) == at_triton)
    calls += [asyncio.ensure_future(served.infer(request_of([[n]]))) for n in range(2)]
    await eventually(lambda: served.app.snapshot().ended["TENANT_QUEUE_FULL"] == 1)
    _, text = await get(served, "/metrics")
    assert value(text, "fairlane_queue_depth", **{"class": "interactive", "model": "identity"}) == 1
    assert value(text, "fairlane_in_flight", **{"class": "interactive", "model": "identity"}) == 2
    assert value(text, "fairlane_in_flight", **{"class": "background", "model": "identity"}) == 0
    waiting_bytes = request_of([[3]]).ByteSize()
    assert 0 < value(text, "fairlane_queue_bytes", **{"class": "interactive"}) <= waiting_bytes
    assert value(text, "fairlane_queue_bytes", **{"class": "background"}) == 0
    assert value(text, "fairlane_tenant_in_flight", tenant="default") == 2
    refused = {"class": "interactive", "model": "identity", "tenant": "default", "outcome": "tenant_queue_full"}
    assert value(text, "fairlane_requests_total", **refused) == 1
    served.triton.release()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_hostile_tenant_names_stay_within_the_bound_and_parse(serve: Any, request_of: Any, get: Any) -> None:
    served = await serve(telemetry={"tenants": 3})
    names = ['a"} 1\\', "<script>", *(f"made-up-{number}" for number in range(20))]
    for name in names:
        await served.infer(request_of([[1]]), metadata=(("x-tenant-id", name),))
    _, text = await get(served, "/metrics")
    tenants = {dict(labels)["tenant"] for name, labels in samples(text) if name == "fairlane_requests_total"}
    assert tenants == {'a"} 1\\', "<script>", "made-up-0", "other"}


async def test_telemetry_that_is_off_serves_health_and_the_snapshot_alone(
    serve: Any, request_of: Any, get: Any
) -> None:
    served = await serve(telemetry={"enabled": False})
    await served.infer(request_of([[1]]))
    assert [(await get(served, path))[0] for path in ("/healthz", "/debug/snapshot", "/metrics", "/", "/events")] == [
        200,
        200,
        404,
        404,
        404,
    ]
