"""Compressed messages: `grpc-encoding` gzip and deflate, read up to a bound."""

import zlib
from typing import Final

IDENTITY: Final = "identity"
# What zlib calls the wrapping around the data.
WRAPPINGS: Final = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
ACCEPTED: Final = b"identity,deflate,gzip"


class CodingError(Exception):
    """What cannot be decompressed."""


class TooLarge(Exception):
    """It would be more than a message may be."""


def known(coding: str) -> bool:
    """Whether messages of this coding can be read."""
    return coding == IDENTITY or coding in WRAPPINGS


def decompressed(payload: bytes, coding: str, most_bytes: int) -> bytes:
    """The message within.

    Raises:
        CodingError: the coding has no compression, or the payload is none of it.
        TooLarge: it has more than `most_bytes`.
    """
    wrapping = WRAPPINGS.get(coding)
    if wrapping is None:
        raise CodingError(f"a message is compressed, and grpc-encoding is {coding}")
    reader = zlib.decompressobj(wrapping)
    try:
        message = reader.decompress(payload, most_bytes + 1)
    except zlib.error as error:
        raise CodingError(f"{coding}: {error}") from None
    if len(message) > most_bytes:
        raise TooLarge
    if not reader.eof:
        raise CodingError(f"{coding}: cut off")
    return message
