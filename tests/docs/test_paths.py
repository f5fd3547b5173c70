"""What the repository's files say of docs/: every path is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATH = re.compile(r"\bdocs/(?:[\w-]+/)*[\w-]+\.(?:md|png|js)\b")
DECISION = re.compile(r"\bdecisions?[/ ](\d{1,4})\b")


SUFFIXES = {".md", ".py", ".yaml", ".yml", ".toml", ".txt", ".sh", ".service", ".pbtxt", ""}
BUILT = {"build", "model_repository", "mutants"}


def texts() -> dict[str, str]:
    """The files that name pages, by path: prose, code, configuration."""
    folders = (each for each in ROOT.iterdir() if each.is_dir() and each.name[0] != "." and each.name not in BUILT)
    files = (path for folder in (ROOT.glob("*"), *(each.rglob("*") for each in folders)) for path in folder)
    kept = (path for path in files if path.is_file() and path.suffix in SUFFIXES and "egg-info" not in str(path))
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in kept}


def test_every_page_that_is_named_is_there() -> None:
    gone = [
        (name, page) for name, text in texts().items() for page in PATH.findall(text) if not (ROOT / page).is_file()
    ]
    assert gone == []


def test_every_decision_that_is_named_is_there() -> None:
    known = {int(each.name[:4]) for each in (ROOT / "docs" / "decisions").glob("*.md")}
    gone = [
        (name, number)
        for name, text in texts().items()
        for number in DECISION.findall(text)
        if int(number) not in known
    ]
    assert gone == []
