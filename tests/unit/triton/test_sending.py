"""Responses that are sent later: what becomes of one that shared memory has no room for."""

import sys

import pytest

FINAL = 1


class Request:
    """Its response sender: takes one response, and one end, with it or apart."""

    def __init__(self, *, full=False):
        self.full, self.sent, self.responded, self.ended = full, [], False, False

    def get_response_sender(self):
        return self

    def send(self, response=None, flags=0):
        assert not self.ended
        assert response is None or not self.responded
        assert response is not None or self.responded
        # As Triton's: it counts what it is told to send before it looks for room.
        self.responded, self.ended = True, flags == FINAL
        if self.full and response is not None:
            raise RuntimeError("no room")
        self.sent.append(response)


@pytest.fixture
def module(backend):
    return sys.modules["batch_runner"]


def send(module, *requests):
    module._send(module.Answered(requests, [lambda: "answer"] * len(requests)))


def test_with_room_the_end_is_in_the_response(module):
    module.ROOM = 0
    request = Request()
    send(module, request)
    assert (request.sent, request.ended) == (["answer"], True)


@pytest.mark.parametrize("folder", ["/dev/shm", "/not/there"])
def test_without_room_a_request_whose_response_does_not_fit_ends_all_the_same(module, folder):
    module.ROOM, module.SHARED_MEMORY = 1 << 62, folder
    full, other = Request(full=True), Request()
    send(module, full, other)
    assert (full.sent, full.ended) == ([None], True)
    assert (other.sent, other.ended) == (["answer", None], True)
    assert module.pb_utils.Logger.errors == ["a response could not be sent: RuntimeError('no room')"]


def test_request_that_takes_no_end_either_is_no_reason_to_stop(module):
    module.ROOM = 1 << 62
    gone, other = Request(), Request()
    gone.ended = True
    send(module, gone, other)
    assert other.sent == ["answer", None]
    assert [line.split(":")[0] for line in module.pb_utils.Logger.errors] == [
        "a response could not be sent",
        "a request could not be ended",
    ]
