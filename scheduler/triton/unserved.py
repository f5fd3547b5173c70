"""Models that a backend has and does not serve, and why."""

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

READY: Final = "READY"
# What Triton's index says of a model that somebody unloaded: nothing is wrong with it.
UNLOADED: Final = "unloaded"
LOADING_WHY: Final = "it is still being loaded"
# Triton's reasons may hold a traceback of Python.
TRACEBACK: Final = "\n\nAt:"


class Unserved(NamedTuple):
    """Why a model is not served; `loading`: it may be, in a while, without anybody's doing."""

    why: str
    loading: bool = False


LOADING: Final = Unserved(LOADING_WHY, loading=True)


def plain(reason: str) -> str:
    """Triton's reason on one line, without a traceback."""
    return " ".join(reason.partition(TRACEBACK)[0].split()).rstrip("; ")


def load_failure(details: str, model: str) -> str:
    """The reason in Triton's answer to a load that failed."""
    text = details.removeprefix(f"load failed for model '{model}': ")
    return re.sub(r"^version \d+ is at UNAVAILABLE state: ", "", text)


def of_index(entries: Iterable[Any]) -> dict[str, Unserved]:
    """What a `RepositoryIndexResponse`'s entries tell of models without a ready version.

    Triton remembers a reason only for what it tried to load; a folder that nobody asked for has none.
    """
    found: dict[str, Unserved] = {}
    served = set()
    for entry in entries:
        if entry.state == READY:
            served.add(entry.name)
        elif entry.state == "LOADING":
            found[entry.name] = LOADING
        elif entry.reason and entry.reason != UNLOADED:
            found[entry.name] = Unserved(plain(entry.reason))
    return {name: about for name, about in found.items() if name not in served}
