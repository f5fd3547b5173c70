"""A page's commands, run one after the other as its reader would, in an empty folder against a server of their own.

Every server listens on free ports. A page names the usual ones, and from the moment a server is ready they are
replaced in all that follows:

    127.0.0.1:9001, 127.0.0.1:9080    those of `fairlane serve`, or what its --listen and --http say
    127.0.0.1:41715                   the embedded Triton, as the ready line in the pages has it
    127.0.0.1:8001                    a Triton that runs before the page begins
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tests.docs.blocks import Block, expected

ROOT: Final = Path(__file__).parents[2]
READY: Final = re.compile(
    r"fairlane is ready: .*?gRPC on (\S+?), HTTP on http://([^\s,]+)(?:, embedded Triton on (\S+))?"
)
GRPC, HTTP, EMBEDDED, RUNNING = (f"127.0.0.1:{port}" for port in (9001, 9080, 41715, 8001))
ANY_PORT: Final = "127.0.0.1:0"
START_S: Final = 60.0
# `fairlane top` and `fairlane explain` without --http ask the usual address.
FAIRLANE: Final = f"""#!/bin/sh
case "$1" in
    top | explain) set -- "$@" --http "$HERE_HTTP" ;;
esac
exec "{sys.executable}" -m scheduler "$@"
"""
# `make serve` without what it sets up first, which every test has.
MAKE: Final = """#!/bin/sh
case "$1" in
    serve) exec fairlane serve ;;
    setup | models) ;;
    *) echo "make $1 is not for this test" >&2; exit 2 ;;
esac
"""


class Walk:
    """One page's shell: its folder, its variables, what it has started and where that listens."""

    def __init__(self, folder: Path, *, triton: str) -> None:
        self._folder = folder / "work"
        self._log = folder / "logs"
        self._variables = folder / "variables"
        tools = folder / "bin"
        for each in (self._folder, self._log, tools):
            each.mkdir()
        for name, text in (("make", MAKE), ("fairlane", FAIRLANE)):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        activate = self._folder / ".venv" / "bin" / "activate"  # does nothing: the tools are there
        activate.parent.mkdir(parents=True)
        activate.touch()
        shutil.copytree(ROOT / "deploy", self._folder / "deploy")
        path = os.pathsep.join((str(tools), str(Path(sys.prefix) / "bin"), os.environ["PATH"]))
        self._environment = os.environ | {
            "PATH": path,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}",
            "COLUMNS": "120",
            "FAIRLANE_GRPC": ANY_PORT,
            "FAIRLANE_HTTP": ANY_PORT,
        }
        self._addresses = {RUNNING: triton}
        self._running: list[subprocess.Popen[bytes]] = []
        self._printed = ""

    def link_models(self) -> None:
        """Let the folder have the published models, as a checkout after `make models` has them."""
        (self._folder / "model_repository").symlink_to(ROOT / "model_repository")

    def follow(self, block: Block) -> None:
        """Do with a block what its page says; AssertionError where that does not end well."""
        text = self._here(block.text)
        if block.title:
            (self._folder / block.title).write_text(text)
        elif block.keeps_running:
            self._start(text)
        elif block.language == "text":
            for pattern in expected(block.text):
                assert pattern.search(self._printed), f"{pattern.pattern!r} is not in:\n{self._printed}"
        elif block.runs:
            self._run(text if block.language == "bash" else f"python - <<'END'\n{text}END\n")

    def close(self) -> None:
        """End what was started, with all that it has started itself."""
        for process in reversed(self._running):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=START_S)

    def _here(self, text: str) -> str:
        for usual, address in self._addresses.items():
            text = text.replace(usual, address)
        return text

    def _shell(self, text: str) -> list[str]:
        carried = f'[ ! -e "{self._variables}" ] || source "{self._variables}"\n'
        # What one block sets, the next one has.
        return ["bash", "-c", f'{carried}set -aeo pipefail\n{text}\ndeclare -px > "{self._variables}"']

    def _run(self, text: str) -> None:
        done = subprocess.run(
            self._shell(text), env=self._environment, cwd=self._folder, capture_output=True, text=True, check=False
        )
        self._printed = done.stdout + done.stderr
        print(text, self._printed)
        assert done.returncode == 0, f"{text}\n{self._printed}"

    def _start(self, text: str) -> None:
        """Start a command in a session of its own; where it serves, wait until it is ready."""
        listening = dict(re.findall(r"--(listen|http) (127\.0\.0\.1:\d+)", text))
        for address in listening.values():
            text = text.replace(address, ANY_PORT)
        log = self._log / str(len(self._running))
        with log.open("wb") as output:
            process = subprocess.Popen(
                self._shell(text),
                env=self._environment,
                cwd=self._folder,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._running.append(process)
        if "serve" not in text:
            return
        give_up_s = time.monotonic() + START_S
        while not (found := READY.search(log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up_s, log.read_text()
            time.sleep(0.02)
        self._printed = log.read_text()
        grpc, http, embedded = found.groups()
        self._addresses |= {listening.get("listen", GRPC): grpc, listening.get("http", HTTP): http}
        if not listening:
            self._environment |= {"FAIRLANE_ADDRESS": grpc, "HERE_HTTP": http}
        if embedded:
            self._addresses[EMBEDDED] = embedded
