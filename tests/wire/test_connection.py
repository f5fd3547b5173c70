"""The connection without I/O: bytes in, events out."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hpack import Encoder

from tests.wire.frames import MAGIC, OK, REQUEST, RESPONSE, SIZES, Pair, _h2, frame

DATA, HEADERS_FRAME, RST, SETTINGS_FRAME, PING_FRAME, CONTINUATION = 0, 1, 3, 4, 6, 9
END_STREAM, END_HEADERS = 1, 4


@pytest.fixture
def pair() -> Callable[..., Pair]:
    return Pair


@pytest.fixture
def server() -> Any:
    """A server that a test writes raw frames to; it has had the preface."""
    connection = _h2.Connection(client=False, **SIZES)
    connection.receive(MAGIC + frame(4, 0, 0))
    connection.send()
    connection.events()
    return connection


def of(events: list[Any], kind: int) -> list[Any]:
    return [event for event in events if event[0] == kind]


def send_often(server: Any, sent: bytes) -> None:
    for _ in range(10000):
        server.receive(sent)


def opened(stream_id: int, encoder: Encoder, *more: tuple[str, str], flags: int = END_HEADERS) -> bytes:
    """HEADERS of a call."""
    fields = [(name.decode(), value.decode()) for name, value in REQUEST]
    return frame(HEADERS_FRAME, flags, stream_id, encoder.encode([*fields, *more]))


def test_a_unary_call_there_and_back(pair: Callable[..., Pair]) -> None:
    both = pair()
    stream_id = both.called(b"question")
    _, at_server = both.pump()
    assert [event[0] for event in at_server] == [_h2.HEADERS, _h2.MESSAGE, _h2.END]
    assert at_server[0][2][:3] == [(":method", "POST"), (":scheme", "http"), (":path", "/s/m")]
    assert at_server[1][1:] == (stream_id, b"question", False)
    assert at_server[2][1:] == (stream_id, False)
    both.server.respond(stream_id, RESPONSE, False)
    both.server.write(stream_id, b"answer", True)
    both.server.end(stream_id, OK)
    at_client, at_server = both.pump()
    assert [event[0] for event in at_client] == [_h2.HEADERS, _h2.MESSAGE, _h2.HEADERS, _h2.END, _h2.CLOSED]
    assert at_client[1][2:] == (b"answer", True)
    assert at_client[2][2] == [("grpc-status", "0")]
    assert at_server == [(_h2.CLOSED, stream_id, 0)]
    assert both.client.open_streams == both.server.open_streams == 0


def test_trailers_only(pair: Callable[..., Pair]) -> None:
    both = pair()
    stream_id = both.called(b"question")
    both.pump()
    both.server.respond(stream_id, [*RESPONSE, (b"grpc-status", b"5")], True)
    at_client, _ = both.pump()
    assert [event[0] for event in at_client] == [_h2.HEADERS, _h2.END, _h2.CLOSED]


@pytest.mark.parametrize("size", [0, 1, 16379, 16384, 65536, 1 << 20])
def test_messages_of_any_size_arrive_whole(pair: Callable[..., Pair], size: int) -> None:
    both = pair()
    payload = bytes(index & 255 for index in range(256)) * (size // 256 + 1)
    both.called(payload[:size], b"", payload[: size // 2])
    got: list[bytes] = []
    for _ in range(3):
        _, at_server = both.pump()
        for event in of(at_server, _h2.MESSAGE):
            got.append(event[2])
            both.server.taken(event[1])
    assert got == [payload[:size], b"", payload[: size // 2]]


def test_a_message_cut_anywhere_into_frames_arrives_whole(server: Any) -> None:
    encoder = Encoder()
    server.receive(opened(1, encoder))
    for byte in b"\1\0\0\0\3abc" + b"\0\0\0\0\0":
        server.receive(frame(DATA, 0, 1, bytes((byte,))))
    assert of(server.events(), _h2.MESSAGE) == [(_h2.MESSAGE, 1, b"abc", True), (_h2.MESSAGE, 1, b"", False)]


def test_a_stream_that_ends_within_a_message_is_told(server: Any) -> None:
    server.receive(opened(1, Encoder()) + frame(DATA, END_STREAM, 1, b"\0\0\0\0\5ab"))
    assert of(server.events(), _h2.END) == [(_h2.END, 1, True)]


def test_five_bytes_reserve_nothing(server: Any) -> None:
    encoder = Encoder()
    tracemalloc.start()
    try:
        for stream_id in range(1, 101, 2):
            server.receive(opened(stream_id, encoder) + frame(DATA, 0, stream_id, b"\0" + (1 << 20).to_bytes(4, "big")))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1 << 18


def test_a_message_longer_than_the_bound_is_told_once_and_the_rest_dropped(server: Any) -> None:
    server.receive(opened(1, Encoder()) + frame(DATA, 0, 1, b"\0\xff\xff\xff\xff" + b"x" * 100))
    server.receive(frame(DATA, END_STREAM, 1, b"y" * 100))
    events = server.events()
    assert of(events, _h2.TOO_LONG) == [(_h2.TOO_LONG, 1, 0xFFFFFFFF)]
    assert not of(events, _h2.MESSAGE)
    assert of(events, _h2.END) == [(_h2.END, 1, False)]


def test_a_call_whose_messages_are_not_taken_is_not_sent_more_of_and_holds_up_no_other(
    pair: Callable[..., Pair],
) -> None:
    both = pair(connection_window=1 << 16)
    slow = both.called(*(b"x" * 10000 for _ in range(40)), end=False)
    _, at_server = both.pump()
    arrived = len(of(at_server, _h2.MESSAGE))
    assert arrived <= 8  # the first, and what a window of 64 KiB holds beside it
    quick = both.called(*(b"y" * 10000 for _ in range(5)))
    _, at_server = both.pump()
    assert [event[1] for event in of(at_server, _h2.MESSAGE)] == [quick] * 5
    total = arrived
    while total < 40:
        for _ in range(arrived):
            both.server.taken(slow)
        _, at_server = both.pump()
        arrived = len(of(at_server, _h2.MESSAGE))
        assert arrived
        total += arrived


def test_a_reader_without_a_window_is_told_by_what_waits(pair: Callable[..., Pair]) -> None:
    both = pair(stream_window=0)
    stream_id = both.client.request(REQUEST)
    assert both.client.write(stream_id, b"x" * 1000, False) == 1005
    client_events, at_server = both.pump()
    assert not of(client_events, _h2.DRAINED)
    assert not of(at_server, _h2.MESSAGE)
    assert both.client.write(stream_id, b"x", False) == 1011


def test_what_has_left_is_told(pair: Callable[..., Pair]) -> None:
    both = pair()
    stream_id = both.called(b"one", end=False)
    assert of(both.pump()[0], _h2.DRAINED) == [(_h2.DRAINED, stream_id)]
    both.client.write(stream_id, b"two", False)
    assert of(both.pump()[0], _h2.DRAINED) == [(_h2.DRAINED, stream_id)]


def test_a_reset_is_told_on_both_sides(pair: Callable[..., Pair]) -> None:
    both = pair()
    stream_id = both.called(b"question")
    both.pump()
    both.client.reset(stream_id, 8)
    at_client, at_server = both.pump()
    assert of(at_client, _h2.CLOSED) == of(at_server, _h2.CLOSED) == [(_h2.CLOSED, stream_id, 8)]
    assert not both.server.respond(stream_id, RESPONSE, True)
    assert both.server.write(stream_id, b"late", False) == 0
    both.server.end(stream_id, OK)
    both.server.reset(stream_id, 8)
    both.server.taken(stream_id)


def test_an_answer_before_the_caller_has_said_all_ends_the_call(pair: Callable[..., Pair]) -> None:
    both = pair()
    stream_id = both.called(b"question", end=False)
    both.pump()
    both.server.respond(stream_id, RESPONSE, False)
    both.server.write(stream_id, b"answer", False)
    both.server.end(stream_id, OK)
    at_client, at_server = both.pump()
    assert of(at_client, _h2.MESSAGE)[0][2] == b"answer"
    assert of(at_server, _h2.CLOSED) == [(_h2.CLOSED, stream_id, 0)]
    assert of(at_client, _h2.CLOSED) == [(_h2.CLOSED, stream_id, 0)]


def test_fields_beyond_the_bound_are_not_kept(server: Any) -> None:
    server.receive(opened(1, Encoder(), ("x-long", "v" * 16300)))
    assert of(server.events(), _h2.HEADERS) == [(_h2.HEADERS, 1, None, False)]


def test_an_hpack_bomb_grows_nothing(server: Any) -> None:
    encoder = Encoder()
    block = encoder.encode([*((n.decode(), v.decode()) for n, v in REQUEST), ("x", "v" * 3500)])
    bomb = block + b"\xbe" * 12000  # 12,000 times the field that one index stands for: 42 MB
    tracemalloc.start()
    try:
        server.receive(frame(HEADERS_FRAME, END_HEADERS, 1, bomb))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert of(server.events(), _h2.HEADERS) == [(_h2.HEADERS, 1, None, False)]
    assert most < 1 << 18


def test_a_flood_of_continuations_ends_the_connection(server: Any) -> None:
    server.receive(frame(HEADERS_FRAME, 0, 1, Encoder().encode([(":method", "POST")])))
    with pytest.raises(_h2.ConnectionBroken, match="CONTINUATION"):
        send_often(server, frame(CONTINUATION, 0, 1))


@pytest.mark.parametrize("flood", [frame(PING_FRAME, 0, 0, bytes(8)), frame(SETTINGS_FRAME, 0, 0)])
def test_a_flood_that_wants_answers_and_reads_none_ends_the_connection(server: Any, flood: bytes) -> None:
    with pytest.raises(_h2.ConnectionBroken, match="Flooding"):
        send_often(server, flood)


def test_thousands_of_resets_of_an_honest_peer_are_fine(server: Any) -> None:
    encoder = Encoder()
    for stream_id in range(1, 20001, 2):
        server.receive(opened(stream_id, encoder) + frame(RST, 0, stream_id, (8).to_bytes(4, "big")))
        server.events()
        server.send()
    assert not server.finished
    assert server.open_streams == 0


def test_a_reset_flood_finishes_the_connection(server: Any) -> None:
    encoder = Encoder()
    for stream_id in range(1, 120001, 2):
        server.receive(opened(stream_id, encoder) + frame(RST, 0, stream_id, (8).to_bytes(4, "big")))
        server.events()
        server.send()
        if server.finished:
            return
    raise AssertionError("60,000 resets at once were let in")


def test_more_streams_than_told_are_refused(server: Any) -> None:
    encoder = Encoder()
    for stream_id in range(1, 2 * SIZES["streams"] + 21, 2):
        server.receive(opened(stream_id, encoder))
        server.send()
    assert server.open_streams == SIZES["streams"]


def test_pings_are_told_and_answered(pair: Callable[..., Pair]) -> None:
    both = pair()
    both.client.ping(b"12345678")
    at_client, at_server = both.pump()
    assert at_server == [(_h2.PING, 0)]
    assert at_client == [(_h2.PONG, 0, b"12345678")]
    with pytest.raises(ValueError, match="8 bytes"):
        both.client.ping(b"1234567")


def test_a_drain_lets_what_is_under_way_end(pair: Callable[..., Pair]) -> None:
    both = pair()
    stream_id = both.called(b"question")
    both.pump()
    both.server.announce_goaway()
    at_client, _ = both.pump()
    assert of(at_client, _h2.GOAWAY) == [(_h2.GOAWAY, 2**31 - 1, 0, b"")]
    both.server.goaway(0, b"age")
    at_client, _ = both.pump()
    assert of(at_client, _h2.GOAWAY) == [(_h2.GOAWAY, stream_id, 0, b"age")]
    assert not both.server.finished
    both.server.respond(stream_id, [*RESPONSE, *OK], True)
    both.pump()
    assert both.server.finished


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", MAGIC[:10] + b"x" * 30])
def test_what_is_not_http2_ends_the_connection(first: bytes) -> None:
    connection = _h2.Connection(client=False, **SIZES)
    with pytest.raises(_h2.ConnectionBroken):
        connection.receive(first)


def test_a_protocol_error_ends_with_a_goaway(server: Any) -> None:
    server.receive(frame(DATA, 0, 0, b"data of no stream"))
    assert server.send()[3] == 7  # GOAWAY
    assert server.finished


def test_a_field_that_cannot_be_sent_is_told(pair: Callable[..., Pair]) -> None:
    both = pair()
    with pytest.raises(ValueError, match="header fields"):
        both.client.request([])
    with pytest.raises(ValueError, match="header fields"):
        both.client.request([(b"x", b"y")] * 257)
    with pytest.raises(TypeError):
        both.client.request([("x", "y")])
    assert both.client.open_streams == 0
