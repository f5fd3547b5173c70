"""A model whose rows do not stand by themselves is found out by its own answers, and its requests ride alone then."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from scheduler.edge.merge_check import CLEARED
from scheduler.triton.fake import FakeModel, Tensors

# A check that was lucky is followed by the next one after two seconds.
ROUNDS = 10_000


def mixes(tensors: Tensors) -> Tensors:
    """Points of a cloud, seen from its centre: the first axis is no batch."""
    rows = tensors["INPUT"]
    return {"OUTPUT": rows - rows.mean(axis=0, keepdims=True)}


def steady(tensors: Tensors) -> Tensors:
    """Each row by itself, with the last bits of a batch's size."""
    rows = tensors["INPUT"]
    return {"OUTPUT": (rows * (1 + 1e-6 * len(rows))).astype(np.float32)}


class Random:
    """Noise of its own in every answer."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)

    def __call__(self, tensors: Tensors) -> Tensors:
        return {"OUTPUT": self._random.normal(size=tensors["INPUT"].shape).astype(np.float32)}


def cloud(n: int) -> list[list[int]]:
    return [[10 * n, 5 * n], [10 * n + 4, 0]]


def floats(rows: Any, model: str) -> Any:
    array = np.array(rows, dtype=np.float32)
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="INPUT", datatype="FP32", shape=array.shape)
    request.raw_input_contents.append(array.tobytes())
    return request


def numbers(answer: Any) -> list[float]:
    found: list[float] = np.frombuffer(answer.raw_output_contents[0], dtype=np.float32).tolist()
    return found


class Flood:
    """Four requests at a time to one model, over and over."""

    def __init__(self, served: Any, model: str, compute: Callable[[Tensors], Tensors]) -> None:
        self.served = served
        self.model = model
        self.checks = served.app._service._checks
        served.triton.models[model] = FakeModel(model, datatype="FP32", dims=(2,), compute=compute)

    @classmethod
    async def of(cls, served: Any, model: str, compute: Callable[[Tensors], Tensors]) -> "Flood":
        """Of a new model."""
        flood = cls(served, model, compute)
        await served.app._catalog.refresh()
        return flood

    async def once(self) -> list[list[float]]:
        requests = [floats(cloud(n), self.model) for n in range(4)]
        return [numbers(answer) for answer in await asyncio.gather(*(self.served.infer(each) for each in requests))]

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(ROUNDS):
            if condition():
                return
            await self.once()
        raise AssertionError("never happened")

    def results(self) -> dict[str, int]:
        checks = self.served.app._service._telemetry.measures.merge_checks
        return {result.value: count for (model, result), count in checks.items() if model == self.model}


async def test_rows_that_belong_together_are_found_out_and_ride_alone_then(serve: Any, caplog: Any) -> None:
    served = await serve()
    flood = await Flood.of(served, "mixes", mixes)
    with caplog.at_level(logging.ERROR):
        await flood.until(lambda: flood.checks.stopped("mixes"))
    (record,) = [each for each in caplog.records if each.name == "scheduler.edge.merge_check"]
    assert "model mixes: a merged request was answered otherwise than alone: output OUTPUT" in record.getMessage()
    assert flood.results()["differed"] == 2
    before = len(served.triton.requests)
    for n, answer in enumerate(await flood.once()):
        rows = np.array(cloud(n), dtype=np.float32)
        assert answer == (rows - rows.mean(axis=0)).flatten().tolist()
    assert [request.inputs[0].shape[0] for request in served.triton.requests[before:]] == [2] * 4


async def test_what_was_queued_before_that_was_known_rides_alone_too(serve: Any) -> None:
    served = await serve()
    flood = await Flood.of(served, "mixes", mixes)
    served.triton.hold()
    sent = [asyncio.create_task(served.infer(floats([[n, 1], [0, 0]], "mixes"))) for n in range(12)]
    await served.triton.until(lambda triton: len(triton.in_flight) == 2)
    known = flood.checks._models["mixes"]
    flood.checks._stop(known, "as if it had been found out")
    held = len(served.triton.requests)
    served.triton.release()
    await asyncio.gather(*sent)
    assert {request.inputs[0].shape[0] for request in served.triton.requests[held:]} == {2}


async def test_last_bits_are_no_reason_and_checks_grow_rare(serve: Any) -> None:
    served = await serve()
    flood = await Flood.of(served, "steady", steady)
    await flood.until(lambda: flood.results().get("agreed", 0) == 1)
    known = flood.checks._models["steady"]
    assert not flood.checks.stopped("steady")
    assert (known.doublings, known.strikes) == (1, 0)
    # The next one needs twice as many batches, and its time.
    for _ in range(20):
        await flood.once()
        known.next_at = float("inf")
    assert flood.results() == {"agreed": 1}


async def test_a_model_that_differs_from_itself_is_not_accused(serve: Any) -> None:
    served = await serve()
    flood = await Flood.of(served, "random", Random())
    await flood.until(lambda: flood.results().get("undecided", 0) == 1)
    assert not flood.checks.stopped("random")
    assert flood.checks._models["random"].strikes == 0


async def test_a_claim_of_being_invariant_is_held_to_more(serve: Any) -> None:
    def ranged(tensors: Tensors) -> Tensors:
        """Off by some tenths of the spread, by the size of the batch, as where all rows have one range."""
        rows = tensors["INPUT"]
        return {"OUTPUT": (rows + 0.18 * len(rows)).astype(np.float32)}

    served = await serve(models={"claims": {"batch_invariant": True}})
    claims, admits = await Flood.of(served, "claims", ranged), await Flood.of(served, "admits", ranged)
    await claims.until(lambda: claims.checks.stopped("claims"))
    await admits.until(lambda: bool(admits.results()))
    assert admits.results() == {"agreed": 1}


async def test_a_check_can_be_switched_off_and_a_reload_or_a_load_begins_anew(serve: Any) -> None:
    served = await serve(models={"unchecked": {"check_merging": False}})
    unchecked, flood = await Flood.of(served, "unchecked", mixes), await Flood.of(served, "mixes", mixes)
    for _ in range(20):
        await unchecked.once()
    assert unchecked.results() == {}
    await flood.until(lambda: flood.checks.stopped("mixes"))
    served.app.reload(lambda: served.app._config)
    assert not flood.checks.stopped("mixes")
    await flood.until(lambda: flood.checks.stopped("mixes"))
    flood.checks.forget("mixes")
    assert not flood.checks.stopped("mixes")
    measures = served.app._service._telemetry.measures
    assert measures.merging_stopped == {"mixes": False}


async def test_a_full_queue_is_not_asked_again(serve: Any) -> None:
    served = await serve()
    flood = await Flood.of(served, "mixes", mixes)
    flood.checks._most_queued = -1
    for _ in range(20):
        await flood.once()
    assert flood.results() == {}


async def test_a_check_that_is_refused_told_nothing(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    served = await serve(tenants={"fairlane": {"max_queued": 1, "rate_per_s": 1e-6, "burst": 1}})
    flood = await Flood.of(served, "mixes", mixes)
    await flood.until(lambda: bool(flood.results()))
    assert flood.results() == {"unanswered": 1}
    assert not flood.checks.stopped("mixes")
    assert flood.checks._models["mixes"].doublings == 1  # less often from now on


async def test_one_difference_is_forgotten_after_four_checks_that_agree(serve: Any) -> None:
    served = await serve()
    flood = await Flood.of(served, "steady", steady)
    await flood.once()
    known = flood.checks._models["steady"]
    known.strikes = 1
    await flood.until(lambda: not known.strikes)
    assert flood.results() == {"agreed": CLEARED}
    assert not flood.checks.stopped("steady")
