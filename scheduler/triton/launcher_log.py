"""Triton's log, read for the reasons of a failure: its own words, without timestamps and tracebacks."""

import re
from pathlib import Path
from typing import Final

TAIL_BYTES: Final = 262144  # a Python error of a model is a few KiB; tables of models fill the rest

ERROR_LINE: Final = re.compile(r'^E\d{4} [^\]]*\] "?(?P<text>.*?)"?\s*$')
PARSER_LINE: Final = re.compile(r"^\[libprotobuf ERROR [^\]]*\] (?P<text>.*)$")
FINAL_LINE: Final = re.compile(r"^error: (?P<text>.*)$")
LOADING_LINE: Final = re.compile(r'^I\d{4} [^\]]*\] "loading: (?P<name>.*):\d+"\s*$')
LOADED_LINE: Final = re.compile(r"""^I\d{4} [^\]]*\] "successfully loaded '(?P<name>.*)'"\s*$""")
# Said at every start without a GPU, and the same load error told a second time per instance.
NOISE: Final = ("CudaDriverHelper", "ERROR: Failed to create instance")


def reasons(lines: list[str]) -> list[str]:
    """The distinct errors among Triton's log lines, in order, tracebacks cut off."""
    found: dict[str, None] = {}
    for line in lines:
        match = ERROR_LINE.match(line) or PARSER_LINE.match(line) or FINAL_LINE.match(line)
        if match is None or match["text"].startswith(NOISE):
            continue
        text = match["text"].partition("\\n\\nAt:")[0].replace("\\n", " ").strip()
        found.setdefault(text)
    return list(found)


def unfinished(lines: list[str]) -> list[str]:
    """The models that were being loaded when the log ended, in order."""
    begun = [match["name"] for line in lines if (match := LOADING_LINE.match(line))]
    done = {match["name"] for line in lines if (match := LOADED_LINE.match(line))}
    return [name for name in begun if name not in done]


def tail(path: Path, limit_bytes: int = TAIL_BYTES) -> list[str]:
    """The last lines of a log file, at most `limit_bytes` of it; none where there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - limit_bytes))
            return file.read(limit_bytes).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
