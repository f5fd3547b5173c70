"""The code blocks of a page, in order, and what is to be done with each.

```bash                                       a command: it runs
```python title="first.py"                    a file: it is written; so are other languages with a title
```python                                     a program: it runs
```yaml                                       is parsed, and checked where it is Fairlane's configuration
```text                                       what the block before prints: see `expected`
<!-- keeps running -->                        before a command: it runs in the background until the end of the page
<!-- not run here: REASON -->                 before a block: it is parsed, and not run
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MARK: Final = re.compile(r"<!-- (keeps running|not run here: .+) -->")
FENCE: Final = re.compile(r"```(\w*)(?: title=\"([^\"]+)\")?")
# What differs from run to run: ports, sizes and anything measured.
FIGURE: Final = re.compile(r"\d+(?:\\\.\d+)+|\d{3,}")


class PageError(Exception):
    """A page that is not written as the module's docstring says."""


@dataclass(frozen=True, slots=True)
class Block:
    """A code block: the number of its first line, its language, its file name and its mark, "" where it has none."""

    line: int
    language: str
    title: str
    mark: str
    text: str

    @property
    def keeps_running(self) -> bool:
        """Whether it is a command that runs until the end of the page."""
        return self.mark == "keeps running"

    @property
    def runs(self) -> bool:
        """Whether it is run to its end."""
        return not self.mark and not self.title and self.language in {"bash", "python"}


def blocks_of(page: str) -> Iterator[Block]:
    """Yield the blocks of a page.

    Raises:
        PageError: a block without a language, one indented by four spaces in place of a fence, or a mark without a
            block.
    """
    lines = enumerate(page.splitlines(), start=1)
    mark = before = ""
    for number, line in lines:
        if found := MARK.fullmatch(line):
            mark = found[1]
        elif line.startswith("```"):
            fence = FENCE.fullmatch(line)
            if fence is None or not fence[1]:
                raise PageError(f"line {number}: what is this block? {line}")
            text = []
            for _, inner in lines:
                if inner == "```":
                    break
                text.append(inner)
            yield Block(number + 1, fence[1], fence[2] or "", mark, "\n".join(text) + "\n")
            mark = ""
        elif line.strip() and mark:
            raise PageError(f"line {number}: no block follows the mark <!-- {mark} -->")
        elif line.startswith("    ") and not before.strip():
            raise PageError(f"line {number}: a block needs a fence that tells its language")
        before = line


def expected(text: str) -> list[re.Pattern[str]]:
    """A pattern for each line of a `text` block, which is looked for anywhere in what was printed.

    Spaces may be more or fewer. A number with a point, or with three digits or more, may be any other such number.
    """
    lines = [re.escape(line.strip()) for line in text.splitlines() if line.strip()]
    loose = (FIGURE.sub(lambda _: r"[\d.]+", line) for line in lines)
    return [re.compile(re.sub(r"(?:\\ )+", r"\\s+", line)) for line in loose]
