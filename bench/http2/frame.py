"""HTTP/2 frames, RFC 9113: their types, flags, settings and error codes, as far as they are used here."""

import struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS, PADDED_OR_PRIORITY = 1, 1, 4, 8 | 32
HEADER_TABLE_SIZE, MAX_STREAMS, INITIAL_WINDOW = 1, 3, 4
REFUSED_STREAM, CANCEL = 7, 8
FRAME_HEADER: Final = struct.Struct(">BHBBI")
FRAME_BYTES: Final = 16384  # what every peer takes
DEFAULT_WINDOW: Final = 65535


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame."""
    length = len(payload)
    return FRAME_HEADER.pack(length >> 16, length & 0xFFFF, kind, flags, stream) + payload


def data_frames(stream: int, framed: bytes) -> bytes:
    """The message as DATA frames, the last of which ends our side."""
    starts = range(0, len(framed), FRAME_BYTES)
    return b"".join(
        frame(DATA, END_STREAM if start == starts[-1] else 0, stream, framed[start : start + FRAME_BYTES])
        for start in starts
    )
