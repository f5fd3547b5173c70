"""Every status the server can end a call with, as the exception a caller catches."""

import pickle

import fairlane
import grpc
import pytest

from tests.client.fake_kserve import Hang, Refuse

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.RESOURCE_EXHAUSTED, fairlane.Overloaded),
        (Code.DEADLINE_EXCEEDED, fairlane.DeadlineExceeded),
        (Code.INVALID_ARGUMENT, fairlane.InvalidRequest),
        (Code.NOT_FOUND, fairlane.ModelNotFound),
        (Code.UNAVAILABLE, fairlane.Unavailable),
        (Code.UNAUTHENTICATED, fairlane.Unauthenticated),
        (Code.PERMISSION_DENIED, fairlane.PermissionDenied),
        (Code.CANCELLED, fairlane.Cancelled),
        (Code.INTERNAL, fairlane.BackendError),
        (Code.UNKNOWN, fairlane.BackendError),
        (Code.UNIMPLEMENTED, fairlane.BackendError),
        (Code.DATA_LOSS, fairlane.BackendError),
    ],
)
def test_each_code_has_its_error(client, server, code, kind):
    server.play(Refuse(code, "why", reason="BECAUSE"))
    with pytest.raises(fairlane.FairlaneError) as caught:
        client.infer("m", {}, tenant="acme", priority="background", request_id="r-1")
    error = caught.value
    assert type(error) is kind
    assert (error.message, error.code, error.reason, error.attempts) == ("why", code.name, "BECAUSE", 1)
    assert (error.model, error.tenant, error.priority, error.request_id) == ("m", "acme", "background", "r-1")
    assert isinstance(error.__cause__, grpc.RpcError)


def test_message_says_all_that_is_known(client, server):
    server.play(Refuse(Code.RESOURCE_EXHAUSTED, "queue is full", pushback_ms=90_000, reason="QUEUE_FULL"))
    with pytest.raises(fairlane.Overloaded) as caught:
        client.infer("m", {}, priority="background")
    assert str(caught.value) == "queue is full [QUEUE_FULL, model m, priority background, retry after 90 s]"


def test_without_reason_the_backend_itself_failed(client, server):
    server.play(Refuse(Code.INTERNAL, "m: out of memory", trailers=(("grpc-status-details-bin", b"\xff"),)))
    with pytest.raises(fairlane.BackendError) as caught:
        client.infer("m", {})
    assert caught.value.reason is None


def test_request_id_the_server_made_is_known(client, server):
    server.play(Refuse(Code.INTERNAL, trailers=(("x-request-id", "made-there"),)))
    with pytest.raises(fairlane.BackendError) as caught:
        client.infer("m", {})
    assert caught.value.request_id == "made-there"


@pytest.mark.parametrize(
    ("message", "told", "size_bytes", "limit_bytes"),
    [
        (
            "SERVER: Received message larger than max (9 vs. 8)",
            "request: expected at most 8 bytes (limits.message_bytes of the server); got 9: send fewer rows, or raise "
            "the limit",
            9,
            8,
        ),
        (
            "Sent message larger than max",
            "answer: expected at most fewer bytes (the server's limit); got more: ask for fewer rows or outputs, or "
            "raise the limit",
            None,
            None,
        ),
        (
            "model m: expected an answer of at most limits.message_bytes, 8, got 9 bytes",
            "answer: expected at most 8 bytes (limits.message_bytes of the server); got 9: ask for fewer rows or "
            "outputs, or raise the limit",
            9,
            8,
        ),
    ],
)
def test_a_message_that_is_too_large_is_not_overload(client, server, message, told, size_bytes, limit_bytes):
    server.play(Refuse(Code.RESOURCE_EXHAUSTED, message, pushback_ms=-1))
    with pytest.raises(fairlane.MessageTooLarge) as caught:
        client.infer("m", {}, request_id="r-1")
    error = caught.value
    assert (error.message, error.size_bytes, error.limit_bytes) == (told, size_bytes, limit_bytes)
    assert (error.code, error.model, error.request_id, error.attempts) == ("RESOURCE_EXHAUSTED", "m", "r-1", 1)
    assert isinstance(error, fairlane.InvalidRequest)


def test_silent_server_ends_in_deadline_exceeded(client, server):
    hang = Hang()
    server.play(hang)
    with pytest.raises(fairlane.DeadlineExceeded) as caught:
        client.infer("m", {}, timeout_s=0.05)
    assert (caught.value.code, caught.value.attempts) == ("DEADLINE_EXCEEDED", 1)
    assert hang.ended.wait(10)


def test_nothing_there_says_that_nothing_was_sent(connect, silent_address):
    with pytest.raises(fairlane.Unavailable) as caught:
        connect(silent_address, retry=fairlane.RetryPolicy(max_attempts=1)).infer("m", {})
    assert caught.value.never_sent
    assert caught.value.retry_after_s is None


def test_words_of_a_server_are_not_taken_for_no_connection(client, server):
    server.play(Refuse(Code.UNAVAILABLE, "failed to connect to all addresses", reason="NO_BACKEND"))
    with pytest.raises(fairlane.Unavailable) as caught:
        client.infer("m", {})
    assert not caught.value.never_sent


def test_error_survives_pickling():
    error = pickle.loads(pickle.dumps(fairlane.Overloaded("full", reason="QUEUE_FULL", retry_after_s=0.5)))
    assert (error.message, error.reason, error.retry_after_s) == ("full", "QUEUE_FULL", 0.5)


@pytest.mark.parametrize("name", [name for name in fairlane.__all__ if isinstance(getattr(fairlane, name), type)])
def test_every_error_is_a_fairlane_error(name):
    exported = getattr(fairlane, name)
    assert not issubclass(exported, Exception) or issubclass(exported, fairlane.FairlaneError)
