"""Two connections without a socket between them, and frames as a hostile peer may write them."""

from typing import Any

import pytest

_h2 = pytest.importorskip("scheduler.wire._h2", reason="the extension is not built")

SIZES = {
    "message_bytes": 1 << 20,
    "metadata_bytes": 16384,
    "streams": 100,
    "stream_window": 1 << 16,
    "connection_window": 1 << 20,
}
REQUEST = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/s/m"),
    (b":authority", b"x"),
    (b"te", b"trailers"),
]
RESPONSE = [(b":status", b"200"), (b"content-type", b"application/grpc")]
OK = [(b"grpc-status", b"0")]
MAGIC = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


class Pair:
    """A client and a server; `pump()` carries bytes both ways until nobody has any, and returns each side's events."""

    def __init__(self, **sizes: Any) -> None:
        self.client = _h2.Connection(client=True, **(SIZES | sizes))
        self.server = _h2.Connection(client=False, **(SIZES | sizes))
        self.pump()

    def pump(self) -> tuple[list[Any], list[Any]]:
        while True:
            to_server, to_client = self.client.send(), self.server.send()
            if not to_server and not to_client:
                return self.client.events(), self.server.events()
            if to_server:
                self.server.receive(to_server)
            if to_client:
                self.client.receive(to_client)

    def called(self, *messages: bytes, end: bool = True) -> int:
        stream_id: int = self.client.request(REQUEST)
        for message in messages:
            self.client.write(stream_id, message, False)
        if end:
            self.client.end(stream_id, None)
        return stream_id
