"""docs/how-to/models.md, followed word for word: commands in a shell, a client in Python, against the real server."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from export.repository.repository import Repository
from tests.docs.blocks import blocks_of

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "how-to" / "models.md").read_text(encoding="utf-8")
BLOCKS = list(blocks_of(GUIDE))
PORT = "127.0.0.1:9001"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A shell in which `fairlane` is this checkout's, in an empty folder."""
    program = tmp_path / "bin" / "fairlane"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m scheduler "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    return made


@pytest.fixture
def serving(environment: dict[str, str], folder: Path) -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.terminate()
        process.communicate(timeout=60)


def shell(text: str, environment: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euc", text], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def serve(text: str, environment: dict[str, str], folder: Path) -> tuple[subprocess.Popen[str], str, str]:
    """Run the guide's `fairlane serve`, on free ports; returns the addresses it printed, its own and Triton's."""
    command = f"exec {text.strip()} --listen 127.0.0.1:0 --http 127.0.0.1:0"
    process = subprocess.Popen(
        ["bash", "-euc", command],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    ready = re.search(r"gRPC on (\S+), .* embedded Triton on (\S+)", process.stdout.readline())
    assert ready, "not ready"
    return process, ready[1], ready[2]


@pytest.mark.timeout(300)
def test_guide_leads_to_an_answer_back_to_the_version_before_and_on_to_int8(
    environment: dict[str, str], folder: Path, serving: list[subprocess.Popen[str]]
) -> None:
    commands = [each.text for each in BLOCKS if each.language == "bash" and (each.runs or each.keeps_running)]
    excerpt, client = [each.text for each in BLOCKS if each.language == "python"]
    new, export, start, better, quantize = commands
    shell(new, environment, folder)
    # What the guide shows of the file is what is in it.
    written = (folder / "mymodel.py").read_text()
    for name in re.findall(r"^    (\w+)=", excerpt, re.MULTILINE):
        assert re.search(rf"^    {name}=", written, re.MULTILINE), name
    shell(export, environment, folder)
    for path in re.findall(r"^model_repository/\S+", GUIDE, re.MULTILINE):
        assert (folder / path).is_file(), path
    process, address, triton = serve(start, environment, folder)
    serving.append(process)
    (folder / "client.py").write_text(client.replace(PORT, address))
    assert shell(f"{sys.executable} client.py", environment, folder) == "(1, 3)\n"
    told = shell(better, environment | {"TRITON": triton}, folder)
    assert f"mymodel: version 3 is served by {triton}" in told
    repository = Repository(folder / "model_repository")
    assert repository.versions("mymodel") == (2, 3)
    assert shell(f"{sys.executable} client.py", environment, folder) == "(1, 3)\n"
    table = shell(quantize, environment | {"TRITON": triton}, folder)
    assert "agreement" in table
    card = repository.card("mymodel", 4)
    assert card is not None
    assert card.quantization is not None
    assert card.quantization.passed
    assert card.batch_invariant
    assert shell(f"{sys.executable} client.py", environment, folder) == "(1, 3)\n"
