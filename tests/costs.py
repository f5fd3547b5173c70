"""What a test costs, by the folder it lies in: the mark that tests/conftest.py gives it.

    python -m pytest -m "unit or sim"      # no server, no graph
    python -m pytest -m "not e2e"          # whatever needs no real Triton

A test that asks for a real Triton is `e2e` wherever it lies.
"""

from collections.abc import Collection
from typing import Final

MARKS: Final = {
    "unit": "one part alone, or the SDK before a fake server: milliseconds each",
    "sim": "the core under a virtual clock",
    "property": "the core under any sequence of inputs, by hypothesis",
    "service": "the whole service before a fake Triton, on loopback",
    "model": "real graphs in PyTorch and ONNX Runtime",
    "slow": "processes, packages, a browser: seconds each",
    "e2e": "a real Triton",
}

FOLDERS: Final = {
    "unit": "unit",
    "client": "unit",
    "driver": "unit",
    "telemetry": "unit",
    "wire": "unit",
    "sim": "sim",
    "property": "property",
    "contract": "service",
    "edge": "service",
    "export": "model",
    "quantize": "model",
    "bench": "slow",
    "deploy": "slow",
    "docs": "slow",
    "page": "slow",
    "release": "slow",
    "e2e": "e2e",
}

# The fixtures of tests/conftest.py that start a real Triton.
TRITON_FIXTURES: Final = frozenset({"start_triton", "triton_factory"})


def cost_of(folder: str, fixtures: Collection[str] = ()) -> str:
    """Return the mark of a test.

    Args:
        folder: the first folder below tests/ that it lies in, such as "edge".
        fixtures: names of all fixtures that it asks for, directly or not.

    Raises:
        KeyError: if the folder has no line in FOLDERS.
    """
    return "e2e" if TRITON_FIXTURES.intersection(fixtures) else FOLDERS[folder]
