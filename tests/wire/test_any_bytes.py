"""Whatever a peer sends, a connection goes on or says that it is broken, and holds no more than its bounds."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.wire.frames import MAGIC, REQUEST, RESPONSE, SIZES, Pair, _h2, frame

KINDS = st.integers(0, 10)
PAYLOADS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [bytes(4), bytes(5), bytes(6), bytes(8), b"\0\0\0\0\x04abcd", b"\xff" * 9, b"\x82\x86\x84", bytes(17000)]
    ),
)
FRAMES = st.builds(frame, KINDS, st.integers(0, 255), st.integers(0, 7), PAYLOADS)
SENT = st.lists(st.one_of(FRAMES, st.binary(max_size=30)), max_size=12).map(b"".join)
CUTS = st.lists(st.integers(1, 60), min_size=1, max_size=5)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data in pieces of these sizes, again and again."""
    found, at = [], 0
    while at < len(data):
        size = cuts[len(found) % len(cuts)]
        found.append(data[at : at + size])
        at += size
    return found


def feed(connection: Any, data: bytes, cuts: list[int]) -> None:
    """Hand it over piece by piece, as a service does, until it is broken."""
    for piece in pieces(data, cuts):
        try:
            connection.receive(piece)
            assert len(connection.send()) <= 1 << 20
        except _h2.ConnectionBroken:
            return
        for event in connection.events():
            if event[0] == _h2.MESSAGE:
                assert len(event[2]) <= SIZES["message_bytes"]
                connection.taken(event[1])
            if event[0] == _h2.HEADERS and event[2] is not None and not connection.client:
                connection.respond(event[1], RESPONSE, False)
        assert connection.open_streams <= SIZES["streams"]


@given(SENT, CUTS)
def test_a_server_survives_any_bytes_of_a_client(data: bytes, cuts: list[int]) -> None:
    feed(_h2.Connection(client=False, **SIZES), MAGIC + frame(4, 0, 0) + data, cuts)


@given(SENT, CUTS)
def test_a_client_survives_any_bytes_of_a_server(data: bytes, cuts: list[int]) -> None:
    client = _h2.Connection(client=True, **SIZES)
    for _ in range(3):
        client.write(client.request(REQUEST), b"question", False)
    client.send()
    feed(client, frame(4, 0, 0) + data, cuts)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=6), st.data())
def test_a_conversation_with_bytes_changed_on_the_way_ends_or_goes_on(flips: list[int], data: st.DataObject) -> None:
    both = Pair()
    both.called(b"question" * 20)
    sent = bytearray(both.client.send())
    for place in flips:
        sent[place % len(sent)] ^= data.draw(st.integers(1, 255))
    feed(both.server, bytes(sent), [len(sent)])
