"""What gRPC writes into HTTP/2's header fields: timeouts, messages of a status, metadata.

Source: gRPC over HTTP2, https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

Field = tuple[str, str]
RawField = tuple[bytes, bytes]
Metadata = tuple[tuple[str, str | bytes], ...]

UNITS_S: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
# The most that eight digits can say in each unit, smallest unit first: the finer, the more exact.
FINEST: Final = tuple((unit, 99_999_999 * UNITS_S[unit]) for unit in "numSMH")
LONGEST_S: Final = 99_999_999 * 3600.0
# Not metadata: they belong to the protocol.
RESERVED: Final = frozenset(
    {
        "te",
        "content-type",
        "grpc-timeout",
        "grpc-encoding",
        "grpc-accept-encoding",
        "grpc-status",
        "grpc-message",
        "host",
    }
)
BINARY: Final = "-bin"
# Of a status message, what is sent as it is: printable ASCII but the percent sign itself.
PLAIN: Final = re.compile(rb"[^\x20-\x24\x26-\x7e]")
KEY: Final = re.compile(r"[0-9a-z_.-]+")
VALUE: Final = re.compile(r"[\x20-\x7e]*")


def seconds_of(timeout: str) -> float | None:
    """What `grpc-timeout` says, in seconds; None for what is none."""
    found = TIMEOUT.fullmatch(timeout)
    return None if found is None else int(found[1]) * UNITS_S[found[2]]


def timeout_of(seconds: float) -> bytes:
    """`grpc-timeout` of so many seconds, in the finest unit that holds it, cut off."""
    seconds = min(max(seconds, 0.0), LONGEST_S)
    unit = next(unit for unit, most in FINEST if seconds <= most)
    return b"%d%s" % (int(seconds / UNITS_S[unit]), unit.encode())


def percent_encoded(message: str) -> bytes:
    """A status message as `grpc-message` carries it."""
    return PLAIN.sub(lambda found: b"%%%02X" % found[0][0], message.encode(errors="replace"))


def percent_decoded(value: str) -> str:
    """The status message; what is no escape stays as it is."""
    return unquote_to_bytes(value.encode("latin-1")).decode(errors="replace")


def metadata_of(fields: Iterable[Field]) -> Metadata:
    """The metadata among header fields; `-bin` values as bytes, what is no base64 is left out."""
    found: list[tuple[str, str | bytes]] = []
    for name, value in fields:
        if name[0] == ":" or name in RESERVED:
            continue
        if not name.endswith(BINARY):
            found.append((name, value))
            continue
        # Several values may stand in one field.
        for part in value.split(","):
            decoded = _decoded(part.strip())
            if decoded is not None:
                found.append((name, decoded))
    return tuple(found)


def fields_of(metadata: Iterable[tuple[str, str | bytes]]) -> list[RawField]:
    """Metadata as header fields.

    Raises:
        ValueError: a key or a value that none can carry.
    """
    return [_field(str(key), value) for key, value in metadata]


def _field(key: str, value: str | bytes) -> RawField:
    if not KEY.fullmatch(key) or key in RESERVED:
        raise ValueError(f"metadata: expected a key of 0-9 a-z _ . - that gRPC does not use itself, got {key!r:.100}")
    if key.endswith(BINARY):
        raw = value.encode() if isinstance(value, str) else value
        return key.encode(), b64encode(raw).rstrip(b"=")
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    if not VALUE.fullmatch(text):
        raise ValueError(f"metadata {key}: expected printable ASCII, got {text!r:.100}")
    return key.encode(), text.strip(" ").encode()


def _decoded(value: str) -> bytes | None:
    """The bytes of base64 with its padding or without."""
    try:
        return b64decode(value.rstrip("=") + "=" * (-len(value.rstrip("=")) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
