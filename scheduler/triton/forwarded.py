"""Request headers that are handed to models: as metadata of the call to Triton, which makes parameters of them.

Triton does so for the headers that its `--grpc-header-forward-pattern` finds, and a Python model reads them in
`request.parameters()`. Two requests with different ones never ride together: a batch is one call.
"""

import re
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Final

from scheduler.config.headers import NEVER
from scheduler.telemetry.hooks import Header

# Triton's server refuses calls by chance from 8 KiB of metadata on; this leaves room for what else there is.
FORWARDED_BYTES: Final = 4096
# What HTTP/2 counts for a header beside its name and its value (RFC 9113, 6.5.2).
HEADER_BYTES: Final = 32
# Names that are remembered; clients may send any.
MAX_NAMES: Final = 1024


class ForwardedHeaders:
    """The headers of a call that go on to the model.

    Args:
        patterns: names, or shell patterns of names (`x-acme-*`), in small letters.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._expression = "|".join(_expression(pattern) for pattern in patterns)
        self._matches = re.compile(self._expression)
        self._known: dict[str, bool] = {}

    @property
    def args(self) -> list[str]:
        """The flag by which tritonserver makes parameters of them; none where there are none."""
        return [f"--grpc-header-forward-pattern=^(?:{self._expression})$"] if self._expression else []

    def of(self, metadata: Iterable[Header]) -> tuple[tuple[str, str], ...]:
        """Those of the call's metadata that go on, by name, so that requests which say the same are alike."""
        if not self._expression:
            return ()
        found = [(key, value) for key, value in metadata if isinstance(value, str) and self._goes_on(key)]
        return tuple(sorted(found, key=itemgetter(0)))

    def _goes_on(self, key: str) -> bool:
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= MAX_NAMES:
                self._known.clear()
            known = self._known[key] = bool(self._matches.fullmatch(key)) and not NEVER.fullmatch(key)
        return known


def size_bytes(headers: Iterable[tuple[str, str]]) -> int:
    """What the headers take, as HTTP/2 counts it."""
    return sum([len(key) + len(value) + HEADER_BYTES for key, value in headers])


def _expression(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
