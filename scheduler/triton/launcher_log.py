"""Triton's log, read for the reasons of a failure: its own words, without timestamps and tracebacks."""

import re
from pathlib import Path
from typing import Final

TAIL_BYTES: Final = 262144  # a Python error of a model is a few KiB; tables of models fill the rest

ERROR_LINE: Final = re.compile(r'^E\d{4} [^\]]*\] "?(?P<text>.*?)"?\s*$')
PARSER_LINE: Final = re.compile(r"^\[libprotobuf ERROR [^\]]*\] (?P<text>.*)$")
FINAL_LINE: Final = re.compile(r"^error: (?P<text>.*)$")
OPTION_LINE: Final = re.compile(r"^\S*tritonserver: (?P<text>(?:unrecognized )?option .*)$")
# What Triton prints, and no more, where a flag's value is none.
USAGE: Final = "Usage: tritonserver [options]"
LOADING_LINE: Final = re.compile(r'^I\d{4} [^\]]*\] "loading: (?P<name>.*):\d+"\s*$')
LOADED_LINE: Final = re.compile(r"""^I\d{4} [^\]]*\] "successfully loaded '(?P<name>.*)'"\s*$""")
# What Triton answers where a folder could not be read; why, it tells its log alone.
POLL_FAILURE: Final = "failed to poll from model repository"
# What Python said about a model that Triton then waits for without end.
STUB_FAILURE: Final = re.compile(r'Failed to (?:pre)?initialize Python stub: (?P<text>.*?)"?\s*$')
REASON_LINES: Final = (ERROR_LINE, PARSER_LINE, FINAL_LINE, OPTION_LINE)
# Said at every start without a GPU, and the same load error told a second time per instance.
NOISE: Final = ("CudaDriverHelper", "ERROR: Failed to create instance")


def reasons(lines: list[str]) -> list[str]:
    """The distinct errors among Triton's log lines, in order, tracebacks cut off."""
    found: dict[str, None] = {}
    for line in lines:
        match = next(filter(None, (pattern.match(line) for pattern in REASON_LINES)), None)
        if match is None or match["text"].startswith(NOISE):
            continue
        text = match["text"].partition("\\n\\nAt:")[0].replace("\\n", " ").strip()
        found.setdefault(text)
    return list(found)


def is_poll_failure(details: str) -> bool:
    """Whether Triton's answer to a load says that the folder could not be read, and no more."""
    return details.rstrip().endswith(POLL_FAILURE)


def poll_failure(lines: list[str], model: str) -> str | None:
    """Why the model's folder could not be read, the last time that it was tried; None where the log does not say."""
    told = f"Poll failed for model directory '{model}': "
    parser = ""
    found = None
    for line in lines:
        if match := PARSER_LINE.match(line):
            parser = match["text"]
            continue
        match = ERROR_LINE.match(line)
        if match is not None and match["text"].startswith(told):
            found = match["text"].removeprefix(told) + (f" ({parser})" if parser else "")
        parser = ""
    return found


def hint(lines: list[str], folder: Path) -> str | None:
    """What Python last said of a file in a model's folder; None where it said nothing."""
    told = [match["text"] for line in lines if (match := STUB_FAILURE.search(line)) and f"{folder}/" in match["text"]]
    return told[-1] if told else None


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
