"""Tutorial and how-to, followed word for word: every command in order, every file, every piece of configuration.

`blocks` says how a page marks what is to be done, `walk` how it is done.
"""

import ast
import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scheduler.config import Config
from tests.docs.blocks import Block, PageError, blocks_of, expected
from tests.docs.walk import Walk
from tests.real_triton import TritonFactory

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "docs" / "how-to" / "models.md"  # tests/export/test_models_guide.py follows it
PAGES = sorted(
    page
    for folder in ("tutorial", "how-to")
    for page in (ROOT / "docs" / folder).glob("*.md")
    if page.name != MODELS.name
)
# These make their models themselves, in an empty folder.
WITHOUT_MODELS = {"your-own-model"}


@pytest.fixture(scope="module")
def running_triton(triton_factory: TritonFactory) -> str:
    """The address of a Triton with the published models, for pages that are about one."""
    return triton_factory(ROOT / "model_repository").address.grpc


@pytest.fixture
def walk(tmp_path: Path, running_triton: str) -> Iterator[Walk]:
    with contextlib.closing(Walk(tmp_path, triton=running_triton)) as walk:
        yield walk


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_does_what_it_says(page: Path, walk: Walk) -> None:
    if page.stem not in WITHOUT_MODELS:
        walk.link_models()
    for block in blocks_of(page.read_text(encoding="utf-8")):
        try:
            parse(block)
            walk.follow(block)
        except Exception as error:
            error.add_note(f"{page.relative_to(ROOT)}:{block.line}")
            raise


def test_page_about_models_is_read() -> None:
    for block in blocks_of(MODELS.read_text(encoding="utf-8")):
        parse(block)


def parse(block: Block) -> None:
    """Read a block in its language, whether it runs or not."""
    match block.language:
        case "bash":
            subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
        case "python":
            ast.parse(block.text)
        case "yaml":
            for document in yaml.safe_load_all(block.text):
                configure(document)
        case "text":
            pass
        case other:
            raise PageError(f"nobody reads {other}")


def configure(document: Any) -> None:
    """Check what is Fairlane's configuration: a document with its fields, or the one that a ConfigMap holds."""
    if document.get("kind") == "ConfigMap":
        Config.model_validate(yaml.safe_load(document["data"]["fairlane.yaml"]))
    elif "apiVersion" not in document and not document.keys() - Config.model_fields.keys():
        Config.model_validate(document)


def test_marks_and_titles_are_read() -> None:
    page = (
        '<!-- keeps running -->\n```bash\na\n```\n\n```yaml title="b.yaml"\nc: d\n```\n<!-- not run here: why -->\n\n'
    )
    serve, file, skipped = blocks_of(page + "```bash\ne\n```\n")
    assert serve == Block(3, "bash", "", "keeps running", "a\n")
    assert serve.keeps_running
    assert (file.title, file.text, file.runs) == ("b.yaml", "c: d\n", False)
    assert not skipped.runs
    assert not skipped.keeps_running


@pytest.mark.parametrize(
    "page",
    ["```\na\n```\n", "text\n\n    indented\n", "<!-- keeps running -->\ntext\n"],
    ids=["bare", "indented", "mark"],
)
def test_block_that_nobody_would_run_is_an_error(page: str) -> None:
    with pytest.raises(PageError, match="line"):
        list(blocks_of(page))


def test_output_is_compared_without_its_figures() -> None:
    (pattern,) = expected("p50 6.3 ms at 127.0.0.1:41715, version 2\n")
    assert pattern.search("p50   20.15 ms at 127.0.0.1:9, version 2") is not None
    assert pattern.search("p50 6.3 ms at 127.0.0.1:41715, version 3") is None
