"""The site that `make docs` builds: every link leads somewhere, and nothing is read from another host."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import click
import fairlane
import pytest
from playwright.async_api import Browser, expect

from scheduler.cli import main
from tests.page.conftest import browser, chromium  # noqa: F401 - fixtures

ROOT = Path(__file__).parents[2]
# What a browser fetches by itself. A link (`<a href>`) is the reader's own step.
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "object": "data"}


class Page(HTMLParser):
    """What a page fetches, and its visible text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self._text: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = "".join(self._text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in FETCHED and (address := dict(attrs).get(FETCHED[tag])):
            self.fetched.append(address)

    def handle_data(self, data: str) -> None:
        self._text.append(data)


def build(docs: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build as `make docs` does, from another folder of pages."""
    configuration = docs.parent / "mkdocs.yml"
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").replace("[client]", f"[{ROOT / 'client'}]")
    configuration.write_text(text)
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(configuration), "--site-dir", str(site)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    (folder / "docs").symlink_to(ROOT / "docs")
    done = build(folder / "docs", folder / "site")
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_nothing_is_fetched_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 50
    foreign = [(page.name, each) for page in pages for each in Page(page).fetched if re.match(r"(https?:)?//", each)]
    assert foreign == []
    sheets = "".join(each.read_text(encoding="utf-8") for each in site.rglob("*.css"))
    assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheets)


def commands(group: click.Group, *path: str) -> list[str]:
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        found.append(" ".join((*path, name)))
        if isinstance(command, click.Group):
            found += commands(command, *path, name)
    return found


def test_every_command_is_in_the_reference(site: Path) -> None:
    text = Page(site / "reference" / "cli.html").text
    for name in commands(main, "fairlane"):
        assert f"{name} [OPTIONS]" in text, name
    assert "Sentinel" not in text


def test_all_of_the_sdk_is_in_the_reference(site: Path) -> None:
    text = (site / "reference" / "sdk.html").read_text(encoding="utf-8")
    for name in set(fairlane.__all__) - {"__version__"}:
        assert f'id="fairlane.{name}"' in text, name
    assert 'id="fairlane.aio.Client.infer"' in text


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("[away](gone.md)", "gone.md"),
        ("[nowhere](other.md#gone)", "#gone"),
    ],
)
def test_dead_link_ends_the_build(tmp_path: Path, page: str, told: str) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text(f"# Page\n\n{page}\n")
    (docs / "other.md").write_text("# Other\n")
    done = build(docs, tmp_path / "site")
    assert done.returncode != 0
    assert told in done.stderr


async def test_search_finds_without_a_server(site: Path, browser: Browser) -> None:  # noqa: F811 - a fixture
    page = await browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto((site / "index.html").as_uri())
    await page.keyboard.press("/")
    await page.keyboard.type("outage_s")
    await expect(page.locator(".md-search-result__link").first).to_be_visible(timeout=30_000)
    assert [each for each in asked if not each.startswith(("file:", "data:", "about:", "blob:"))] == []
