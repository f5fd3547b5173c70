"""ModelInfer through a whole service in front of a fake Triton."""

import asyncio
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from scheduler.triton.fake import FakeTriton


def trailers(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    return dict(tuple(error.trailing_metadata()))


def details(error: grpc.aio.AioRpcError) -> tuple[Any, Any]:
    """ErrorInfo and RetryInfo (or None) of a refusal."""
    status = status_pb2.Status.FromString(trailers(error)["grpc-status-details-bin"])
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    found = [None, None]
    for detail in status.details:
        if detail.Unpack(info):
            found[0] = info
        elif detail.Unpack(retry):
            found[1] = retry
    assert status.code == error.code().value[0]
    return tuple(found)


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_answer_and_ids_come_back(serve: Any, request_of: Any, rows_of: Any) -> None:
    served = await serve()
    call = served.stub.ModelInfer(request_of([[1, 2], [3, 4]], id="abc"))
    answer = await call
    assert rows_of(answer) == [[1, 2], [3, 4]]
    assert (answer.model_name, answer.model_version, answer.id) == ("identity", "1", "abc")
    assert dict(tuple(await call.trailing_metadata()))["x-request-id"] == "abc"


async def test_header_request_id_is_echoed_in_the_message(serve: Any, request_of: Any) -> None:
    served = await serve()
    answer = await served.infer(request_of([[1]]), metadata=(("x-request-id", "from-header"),))
    assert answer.id == "from-header"


async def test_waiting_requests_are_merged_and_answered_each_with_its_own_rows(
    serve: Any, eventually: Any, request_of: Any, rows_of: Any
) -> None:
    served = await serve()
    served.triton.hold()
    calls = [asyncio.ensure_future(served.infer(request_of([[n, n]] * (n % 3 + 1), id=str(n)))) for n in range(12)]
    await served.triton.until(lambda triton: len(triton.in_flight) == 2)
    await eventually(lambda: served.app.snapshot().queued > 0)
    served.triton.release()
    answers = await asyncio.gather(*calls)
    for number, answer in enumerate(answers):
        assert rows_of(answer) == [[number, number]] * (number % 3 + 1)
        assert answer.id == str(number)
    assert len(served.triton.requests) < 12


async def test_different_shapes_are_never_merged(serve: Any, request_of: Any, rows_of: Any) -> None:
    served = await serve()
    answers = await asyncio.gather(*(served.infer(request_of([[n] * (n + 1)])) for n in range(6)))
    assert [rows_of(answer) for answer in answers] == [[[n] * (n + 1)] for n in range(6)]
    assert len(served.triton.requests) == 6


async def test_merge_off_sends_every_request_alone(serve: Any, request_of: Any) -> None:
    served = await serve(models={"identity": {"merge": False}})
    await asyncio.gather(*(served.infer(request_of([[n]])) for n in range(8)))
    assert len(served.triton.requests) == 8


async def test_batch_never_exceeds_max_batch_size(serve: Any, request_of: Any) -> None:
    served = await serve()
    await asyncio.gather(*(served.infer(request_of([[n]] * 3)) for n in range(20)))
    assert max(request.inputs[0].shape[0] for request in served.triton.requests) <= 8


async def test_model_without_batch_dimension_passes_untouched(serve: Any, request_of: Any, rows_of: Any) -> None:
    served = await serve()
    request = request_of([1, 2], model="unbatched")
    assert rows_of(await served.infer(request)) == [1, 2]


async def test_bad_content_fails_only_its_own_request(serve: Any, request_of: Any, rows_of: Any) -> None:
    served = await serve()
    served.triton.hold()
    values = (1, 2, 3, 7, 5, 6)
    calls = [asyncio.ensure_future(served.infer(request_of([[v]], model="no_sevens"))) for v in values]
    await served.triton.until(lambda triton: len(triton.in_flight) >= 1)
    served.triton.release()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for value, answer in zip(values, answers, strict=True):
        if value == 7:
            assert isinstance(answer, grpc.aio.AioRpcError)
            assert answer.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert answer.details() == "model no_sevens: seven is not in the vocabulary"
        else:
            assert rows_of(answer) == [[value]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.inputs[0].shape.__setitem__(0, 9), ["input INPUT", "expected 72 bytes", "got 8"]),
        (lambda r: setattr(r.inputs[0], "datatype", "FP32"), ["input INPUT", "expected datatype INT64", "got FP32"]),
        (lambda r: r.inputs[0].shape.append(1), ["input INPUT", "expected shape [any, any]", "got [1, 1, 1]"]),
        (lambda r: setattr(r.inputs[0], "name", "WRONG"), ["expected inputs INPUT", "got WRONG"]),
        (lambda r: r.ClearField("inputs"), ["expected inputs INPUT", "got none"]),
        (lambda r: r.raw_input_contents.append(b""), ["expected raw contents for 1 inputs, got 2"]),
        (lambda r: r.inputs.add(name="INPUT", datatype="INT64", shape=[1, 1]), ["given twice"]),
        (lambda r: r.parameters["priority"].__setattr__("string_param", "high"), ["'priority'", "got string_param"]),
        (lambda r: r.parameters["timeout"].__setattr__("int64_param", -5), ["'timeout'", "got -5"]),
    ],
)
async def test_invalid_request_is_refused_with_what_was_expected_and_never_reaches_triton(
    serve: Any, request_of: Any, change: Any, words: list[str]
) -> None:
    served = await serve()
    request = request_of([[1]])
    change(request)
    error = await refusal(served.infer(request))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    for word in words:
        assert word in error.details()
    assert details(error)[0].reason == "INVALID_REQUEST"
    assert served.triton.requests == []


async def test_batch_over_the_models_limit_is_named(serve: Any, request_of: Any) -> None:
    served = await serve()
    error = await refusal(served.infer(request_of([[1]] * 9)))
    assert error.details() == "model identity: expected a batch of 1 to 8, got 9"


async def test_unknown_model_version_and_class(serve: Any, request_of: Any) -> None:
    served = await serve()
    unknown = await refusal(served.infer(request_of([[1]], model="nope")))
    assert unknown.code() is grpc.StatusCode.NOT_FOUND
    assert "unknown model 'nope'" in unknown.details()
    version = await refusal(served.infer(request_of([[1]], model_version="9")))
    assert version.code() is grpc.StatusCode.NOT_FOUND
    assert "unknown version '9'" in version.details()
    no_class = await refusal(served.infer(request_of([[1]]), metadata=(("x-priority", "urgent"),)))
    assert no_class.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "unknown class 'urgent'; expected one of interactive, background" in no_class.details()


async def test_model_that_appears_while_running_is_found_at_once(serve: Any, request_of: Any, rows_of: Any) -> None:
    served = await serve()
    model = served.triton.models["identity"]
    served.triton.models["late"] = type(model)("late")
    assert rows_of(await served.infer(request_of([[4]], model="late"))) == [[4]]


async def test_full_queue_is_refused_with_pushback_and_reason(serve: Any, request_of: Any) -> None:
    classes = [{"name": "interactive", "wait_ms": 50}, {"name": "background", "max_queued": 2}]
    served = await serve(classes=classes, models={"identity": {"merge": False}})
    served.triton.hold()
    background = (("x-priority", "background"), ("x-tenant-id", "batch"))
    calls = [asyncio.ensure_future(served.infer(request_of([[n]], id="q"), metadata=background)) for n in range(8)]
    done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    error = done.pop().exception()
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    about = trailers(error)
    assert about["fairlane-reason"] == "QUEUE_FULL"
    assert int(about["grpc-retry-pushback-ms"]) >= 1
    assert about["x-request-id"] == "q"
    info, retry = details(error)
    assert (info.reason, info.domain) == ("QUEUE_FULL", "fairlane")
    assert dict(info.metadata) == {"class": "background", "tenant": "batch", "model": "identity"}
    assert retry.retry_delay.ToMilliseconds() == int(about["grpc-retry-pushback-ms"])
    # An interactive request still has room.
    interactive = asyncio.ensure_future(served.infer(request_of([[1]])))
    served.triton.release()
    await interactive
    await asyncio.gather(*calls, return_exceptions=True)


async def test_kserve_timeout_expires_in_the_queue(serve: Any, request_of: Any) -> None:
    served = await serve(models={"identity": {"merge": False}})
    served.triton.hold()
    held = [asyncio.ensure_future(served.infer(request_of([[n]]))) for n in range(2)]
    await served.triton.until(lambda triton: len(triton.in_flight) == 2)
    request = request_of([[3]])
    request.parameters["timeout"].int64_param = 20_000
    error = await refusal(served.infer(request))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert trailers(error)["fairlane-reason"] == "DEADLINE_EXPIRED"
    assert trailers(error)["grpc-retry-pushback-ms"] == "-1"
    served.triton.release()
    await asyncio.gather(*held)
    assert len(served.triton.requests) == 2


async def test_client_deadline_is_forwarded_and_frees_the_place(serve: Any, eventually: Any, request_of: Any) -> None:
    served = await serve()
    served.triton.hold()
    error = await refusal(served.infer(request_of([[1]]), timeout_s=0.05))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    # The upstream call carried the same deadline, so the held call ends without being released.
    await served.triton.until(lambda triton: not triton.in_flight)
    await eventually(lambda: not served.app.snapshot().in_flight)


async def test_cancelled_client_frees_its_place_in_the_queue(serve: Any, eventually: Any, request_of: Any) -> None:
    served = await serve(models={"identity": {"merge": False}})
    served.triton.hold()
    held = [asyncio.ensure_future(served.infer(request_of([[n]]))) for n in range(2)]
    await served.triton.until(lambda triton: len(triton.in_flight) == 2)
    waiting = served.stub.ModelInfer(request_of([[3]]))
    await eventually(lambda: served.app.snapshot().queued > 0)
    waiting.cancel()
    await eventually(lambda: not served.app.snapshot().queued)
    served.triton.release()
    await asyncio.gather(*held)
    assert len(served.triton.requests) == 2


async def test_in_flight_batches_are_instances_plus_one(serve: Any, eventually: Any, request_of: Any) -> None:
    served = await serve(models={"identity": {"merge": False}, "two_instances": {"merge": False}})
    for model, limit in (("identity", 2), ("two_instances", 3)):
        served.triton.hold()
        calls = [asyncio.ensure_future(served.infer(request_of([[n]], model=model))) for n in range(8)]
        await eventually(lambda limit=limit: served.app.snapshot().queued >= 8 - limit)
        await served.triton.until(lambda triton, limit=limit: len(triton.in_flight) == limit)
        served.triton.release()
        await asyncio.gather(*calls)


async def test_capped_tenant_never_has_more_at_triton_and_blocks_nobody(serve: Any, request_of: Any) -> None:
    served = await serve(tenants={"capped": {"max_in_flight": 2}})
    most = 0

    def count(triton: Any) -> bool:
        nonlocal most
        # The capped tenant's rows are ones, everybody else's twos.
        ones = sum(request.raw_input_contents[0][::8].count(1) for request in triton.in_flight)
        most = max(most, ones)
        return len(triton.requests) >= 40 and not triton.in_flight

    watch = asyncio.ensure_future(served.triton.until(count))
    for _ in range(20):
        served.triton.hold()
        calls = [
            asyncio.ensure_future(served.infer(request_of([[1]]), metadata=(("x-tenant-id", "capped"),)))
            for _ in range(8)
        ]
        calls += [asyncio.ensure_future(served.infer(request_of([[2]]))) for _ in range(8)]
        await served.triton.until(lambda triton: len(triton.in_flight) == 2)
        served.triton.release()
        await asyncio.gather(*calls)
    await watch
    assert most == 2


async def test_priority_levels_and_headers_choose_the_class(serve: Any, eventually: Any, request_of: Any) -> None:
    classes = [{"name": "a"}, {"name": "b"}, {"name": "c", "max_queued": 1}]
    served = await serve(classes=classes, models={"identity": {"merge": False}})
    served.triton.hold()
    held = [asyncio.ensure_future(served.infer(request_of([[n]]))) for n in range(2)]
    await served.triton.until(lambda triton: len(triton.in_flight) == 2)

    def tagged(level: int = 0, **headers: str) -> Any:
        request = request_of([[9]])
        request.parameters["priority"].uint64_param = level
        metadata = tuple((key.replace("_", "-"), value) for key, value in headers.items())
        return asyncio.ensure_future(served.infer(request, metadata=metadata))

    calls = [
        tagged(),  # a: untagged
        tagged(2),  # b
        tagged(9),  # c: beyond the last level is the last
        tagged(1, x_priority="b"),  # b: the header wins
        tagged(x_llm_d_inference_objective="a"),  # a
    ]
    await eventually(lambda: served.app.snapshot().queued >= 5)
    assert {each.name: each.queued for each in served.app.snapshot().classes} == {"a": 2, "b": 2, "c": 1}
    served.triton.release()
    await asyncio.gather(*calls, *held)


async def test_hostile_tenant_name_is_refused(serve: Any, request_of: Any) -> None:
    served = await serve()
    error = await refusal(served.infer(request_of([[1]]), metadata=(("x-tenant-id", "x" * 200),)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "x-tenant-id: expected at most 128 printable characters, got 200" in error.details()


async def test_backend_error_keeps_its_code_and_names_the_model(serve: Any, request_of: Any) -> None:
    served = await serve()
    served.triton.failures = [(grpc.StatusCode.INTERNAL, "out of luck")]
    error = await refusal(served.infer(request_of([[1]])))
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "model identity: out of luck")


async def test_of_a_name_without_end_no_more_is_told_than_its_beginning(serve: Any, request_of: Any) -> None:
    served = await serve()
    long = "\x01" * 1_000_000
    asking = request_of([[1]])
    asking.outputs.add(name=long)
    for request in (request_of([[1]], model=long), request_of([[1]], model_version=long), asking):
        error = await refusal(served.infer(request))
        assert str(error.details()).count("\\x01") == 128


@pytest.mark.parametrize("character", ["x", "\u4e2d"])
async def test_long_error_of_a_model_arrives_as_far_as_a_client_can_read_it(
    serve: Any, request_of: Any, character: str, wire: str
) -> None:
    served = await serve()
    served.triton.failures = [(grpc.StatusCode.INTERNAL, "why: " + character * 20_000)]
    error = await refusal(served.infer(request_of([[1]])))
    assert error.code() is grpc.StatusCode.INTERNAL
    # nghttp2 reads no header field of more than 64 KiB: only that it was too long is known.
    unread = wire == "native" and len(character.encode()) > 1
    told = "the answer's header fields cannot be read" if unread else "why: " + 100 * character
    assert str(error.details()).startswith("model identity: " + told)


async def test_model_that_says_cancelled_has_its_answer_passed_on_and_harms_nobody(
    serve: Any, request_of: Any, rows_of: Any
) -> None:
    served = await serve()
    served.triton.failures = [(grpc.StatusCode.CANCELLED, "not today")] * 2
    error = await refusal(served.infer(request_of([[1]])))
    assert (error.code(), error.details()) == (grpc.StatusCode.CANCELLED, "model identity: not today")
    assert len(served.triton.requests) == 2
    (backend,) = served.app.snapshot().backends
    assert {breaker.state for breaker in backend.breakers.values()} == {"closed"}
    assert rows_of(await served.infer(request_of([[2]]))) == [[2]]


async def test_lost_backend_is_unavailable_with_pushback(serve: Any, eventually: Any, request_of: Any) -> None:
    served = await serve(limits={"drain_s": 1.0, "outage_s": 0.1})
    await served.infer(request_of([[1]]))
    await served.triton.stop()
    await eventually(lambda: not served.app.ready)
    error = await refusal(served.infer(request_of([[1]])))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert trailers(error)["fairlane-reason"] == "NO_BACKEND"
    assert int(trailers(error)["grpc-retry-pushback-ms"]) >= 1


async def test_stop_answers_what_cannot_be_finished(serve: Any, eventually: Any, request_of: Any) -> None:
    served = await serve(limits={"drain_s": 0.05}, models={"identity": {"merge": False}})
    served.triton.hold()
    calls = [asyncio.ensure_future(served.infer(request_of([[n]]))) for n in range(4)]
    await served.triton.until(lambda triton: len(triton.in_flight) == 2)
    await eventually(lambda: served.app.snapshot().queued >= 2)
    assert not await served.app.stop()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [answer.code() for answer in answers] == [grpc.StatusCode.UNAVAILABLE] * 4
    assert {trailers(answer)["fairlane-reason"] for answer in answers} == {"DRAINING"}


@pytest.mark.parametrize("request_id", ["\u00e9t\u00e9", "line\nbreak", "x" * 10_000])
async def test_id_that_no_header_can_carry_is_echoed_in_the_answer_alone(
    serve: Any, request_of: Any, request_id: str
) -> None:
    served = await serve()
    call = served.stub.ModelInfer(request_of([[1]], id=request_id))
    assert (await call).id == request_id
    assert "x-request-id" not in dict(tuple(await call.trailing_metadata()))
    error = await refusal(served.infer(request_of([[1]] * 9, id=request_id)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_timeout_beyond_all_reason_is_no_limit(serve: Any, request_of: Any, rows_of: Any) -> None:
    served = await serve()
    request = request_of([[1]])
    request.parameters["timeout"].uint64_param = 2**64 - 1
    assert rows_of(await served.stub.ModelInfer(request)) == [[1]]
    request.parameters["timeout"].int64_param = 2**63 - 1
    assert rows_of(await served.stub.ModelInfer(request)) == [[1]]


async def test_tensor_in_shared_memory_is_left_to_triton(serve: Any, request_of: Any) -> None:
    served = await serve(tenants={"default": {"admin": True}})
    request = request_of([[1]])
    request.ClearField("raw_input_contents")
    request.inputs[0].parameters["shared_memory_region"].string_param = "region"
    await refusal(served.infer(request))  # the fake has no shared memory; the request reaches it untouched
    assert served.triton.requests == [request]


async def test_backend_that_comes_back_elsewhere_is_found_again(serve: Any, request_of: Any, rows_of: Any) -> None:
    served = await serve()
    pool, catalog = served.app._pool, served.app._catalog
    other = FakeTriton(list(served.triton.models.values()))
    address = await other.start()
    # Connected anew while a probe is under way: the probe's channel is closed under it.
    probing = asyncio.ensure_future(catalog.refresh())
    await asyncio.sleep(0)
    await pool.connect("fake", address)
    await probing
    await catalog.refresh()
    assert catalog.ready() == ["fake"]
    assert rows_of(await served.infer(request_of([[5]]))) == [[5]]
    assert len(other.requests) == 1
    assert served.triton.requests == []
    await other.stop()


async def test_long_message_is_cut_so_that_the_status_arrives(serve: Any, request_of: Any) -> None:
    served = await serve()
    error = await refusal(served.infer(request_of([[1]], model="m" * 20_000)))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert trailers(error)["fairlane-reason"] == "UNKNOWN_MODEL"
