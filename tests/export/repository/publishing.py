"""A process that publishes a model, and does something just before a rename of its own choosing."""

from typing import Final

_SCRIPT: Final = """
import os, sys
from pathlib import Path
from export.card import read_card
from export.repository.repository import Repository

built, repository, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
renames = 0

def watch(event, args):
    global renames
    renames += event == "os.rename"
    if event == "os.rename" and renames == last:
        {then}

sys.addaudithook(watch)
Repository(repository).publish(read_card(built), built / "fp32.onnx", built, configure={configure})
print("published", flush=True)
"""


def publishing(then: str, *, configure: bool = False) -> str:
    """A script: `python -c SCRIPT BUILT REPOSITORY N` publishes, and runs `then`, one line, before its N-th rename."""
    return _SCRIPT.format(then=then, configure=configure)
