"""Retries as the server and the caller see them, with either client, on a clock that only sleeping moves."""

import time as real_time
from contextlib import ExitStack

import fairlane
import grpc
import pytest

from tests.client.fake_kserve import FakeKServe, Refuse

FULL = grpc.StatusCode.RESOURCE_EXHAUSTED
DOWN = grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("code", [FULL, DOWN])
def test_refusal_is_tried_again_after_the_pushback(client, server, time, code):
    time.chance = 0.0
    server.play(Refuse(code, pushback_ms=250), Refuse(code, pushback_ms=40))
    result = client.infer("echo", {"x": [7]})
    assert result["x"].tolist() == [7]
    assert result.attempts == len(server.seen) == 3
    assert time.waits_s == [0.25, 0.04]


@pytest.mark.parametrize("pushback_ms", [-1, None])
def test_no_pushback_is_not_tried_again(client, server, time, pushback_ms):
    server.play(Refuse(FULL, pushback_ms=pushback_ms))
    with pytest.raises(fairlane.Overloaded) as caught:
        client.infer("echo", {})
    assert caught.value.retry_after_s is None
    assert (len(server.seen), time.waits_s) == (1, [])


def test_call_that_may_have_run_is_not_sent_again(client, server):
    server.play(Refuse(DOWN, "connection reset"))
    with pytest.raises(fairlane.Unavailable):
        client.infer("echo", {})
    assert len(server.seen) == 1


def test_sequence_is_not_sent_again(client, server):
    server.play(Refuse(FULL, pushback_ms=10))
    with pytest.raises(fairlane.Overloaded) as caught:
        client.infer("echo", {}, parameters={"sequence_id": 5, "sequence_start": True})
    assert caught.value.retry_after_s == 0.01
    assert len(server.seen) == 1


def test_attempts_are_bounded(client, server):
    server.play(*[Refuse(FULL, pushback_ms=10)] * 9)
    with pytest.raises(fairlane.Overloaded) as caught:
        client.infer("echo", {})
    assert caught.value.attempts == len(server.seen) == 4


def test_timeout_bounds_the_whole_call(client, server, time):
    time.chance = 0.0
    server.play(*[Refuse(FULL, pushback_ms=40_000)] * 9)
    with pytest.raises(fairlane.Overloaded) as caught:
        client.infer("echo", {}, timeout_s=100)
    assert caught.value.retry_after_s == 40
    assert time.waits_s == [40, 40]
    assert [round(seen.left_s, -1) for seen in server.seen] == [100, 60, 20]


def test_pushback_that_does_not_fit_is_raised_at_once(client, server, time):
    server.play(Refuse(FULL, pushback_ms=60_000))
    with pytest.raises(fairlane.Overloaded) as caught:
        client.infer("echo", {}, timeout_s=50)
    assert caught.value.retry_after_s == 60
    assert time.waits_s == []


def test_budget_is_shared_by_the_calls_of_a_client(connect, server):
    client = connect(retry=fairlane.RetryPolicy(max_attempts=2))
    sent = []
    for _ in range(5):
        server.script.clear()
        server.play(*[Refuse(FULL, pushback_ms=1)] * 2)
        before = len(server.seen)
        with pytest.raises(fairlane.Overloaded):
            client.infer("echo", {})
        sent.append(len(server.seen) - before)
    # Two calls of two failures leave 6 of 10 tokens; the fifth failure leaves half, and there retries end.
    assert sent == [2, 2, 1, 1, 1]


def test_readiness_polls_do_not_drain_the_budget(connect, silent_address):
    client = connect(silent_address, retry=fairlane.RetryPolicy(max_attempts=2))
    for _ in range(20):
        assert not client.ready()
    with pytest.raises(fairlane.Unavailable) as caught:
        client.infer("echo", {})
    assert caught.value.attempts == 2


def test_no_connection_is_tried_again_with_backoff(connect, time, silent_address):
    with pytest.raises(fairlane.Unavailable) as caught:
        connect(silent_address).infer("echo", {})
    assert caught.value.attempts == 4
    assert time.waits_s == pytest.approx([0.05, 0.1, 0.2])


def test_server_that_comes_up_during_the_call_is_found(connect, time, silent_address):
    policy = fairlane.RetryPolicy(max_attempts=1000, budget_tokens=10_000)
    with ExitStack() as stack:

        def start_once():
            if len(time.waits_s) == 1:
                stack.enter_context(FakeKServe(port=silent_address.split(":")[1]))
            real_time.sleep(0.01)  # the channel reconnects in real time; the call ends when it has

        time.on_sleep = start_once
        assert connect(silent_address, retry=policy, timeout_s=None).infer("echo", {}).attempts > 1
