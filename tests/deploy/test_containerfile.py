"""deploy/Containerfile by the rules that hadolint has, and its command line by the command that it calls.

No image is built here: that takes a container engine.
"""

import fnmatch
import json
import re
import shlex
from pathlib import Path

import fairlane
import pytest

from scheduler.config import Config, load
from tests.deploy.command_line import fairlane_config
from tests.deploy.containerfile import Stage, stages

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "Containerfile"
# What `make release` leaves in the folder that is the build's context.
CONTEXT = (
    f"fairlane-{fairlane.__version__}-py3-none-any.whl",
    f"fairlane_server-{fairlane.__version__}-py3-none-any.whl",
    "constraints.txt",
)
BUILD_TOOLS = re.compile(r"\b(gcc|g\+\+|make|build-essential|apt|apt-get|curl|wget|git|pip install)\b")


@pytest.fixture
def build() -> Stage:
    return stages(FILE)[0]


@pytest.fixture
def final() -> Stage:
    return stages(FILE)[-1]


def test_every_base_is_pinned_to_a_release() -> None:
    for stage in stages(FILE):
        assert re.fullmatch(r"[a-z0-9./-]+:\d+\.\d+\.\d+-slim-[a-z]+", stage.base), stage.base
    assert len({stage.base for stage in stages(FILE)}) == 1, "the environment is made for the Python it was made with"


def test_final_stage_runs_as_a_number_that_is_not_root(final: Stage) -> None:
    user, group = final.last("USER").split(":")
    assert int(user) > 0
    assert int(group) > 0
    after = [keyword for keyword, _ in final.instructions][-4:]
    assert after == ["EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"], "nothing is done as this user but to serve"


def test_final_stage_has_no_build_tools(final: Stage) -> None:
    assert not any(BUILD_TOOLS.search(line) for line in final.all("RUN"))
    assert "python -m pip uninstall --yes pip setuptools wheel" in final.all("RUN")


def test_files_are_copied_and_never_added() -> None:
    assert not any(stage.all("ADD") for stage in stages(FILE))


def test_nothing_is_left_of_package_managers() -> None:
    for line in (line for stage in stages(FILE) for line in stage.all("RUN")):
        assert "apt-get install" not in line or "rm -rf /var/lib/apt/lists" in line
        assert "pip install" not in line.replace("--python /opt/fairlane ", "") or "--no-cache-dir" in line
        assert "sudo" not in line
        assert not line.startswith("cd ")


def test_what_is_installed_is_held_to_the_pins(build: Stage) -> None:
    (line,) = build.all("RUN")
    assert "--constraint /wheels/constraints.txt" in line
    assert "--only-binary :all:" in line


def test_what_is_copied_is_what_make_release_leaves(build: Stage, final: Stage) -> None:
    (line,) = build.all("COPY")
    *patterns, target = line.split()
    assert target == "/wheels/"
    assert all(len(fnmatch.filter(CONTEXT, pattern)) == 1 for pattern in patterns)
    assert "cp requirements/constraints.txt build/release/" in (ROOT / "Makefile").read_text()
    assert final.all("COPY") == ["--from=build /opt/fairlane /opt/fairlane"]


def test_command_line_is_one_of_fairlanes(final: Stage) -> None:
    program, *words = json.loads(final.last("ENTRYPOINT")) + json.loads(final.last("CMD"))
    assert program == "fairlane"
    assert fairlane_config(words).is_absolute()


def configuration(final: Stage) -> Config:
    return load(None, {"allow_anonymous": True}, final.variables)


def test_settings_are_ones_that_fairlane_reads(final: Stage) -> None:
    listen = configuration(final).listen
    assert final.last("EXPOSE").split() == [listen.grpc.rpartition(":")[2], listen.http.rpartition(":")[2]]


def test_health_check_asks_the_http_side(final: Stage) -> None:
    options, _, command = final.last("HEALTHCHECK").partition("CMD ")
    assert {"--interval", "--timeout", "--start-period", "--retries"} == {
        word.partition("=")[0] for word in options.split()
    }
    program, flag, script = json.loads(command)
    assert (program, flag) == ("python", "-c")
    compile(script, "HEALTHCHECK", "exec")
    port = configuration(final).listen.http.rpartition(":")[2]
    assert f"http://127.0.0.1:{port}/healthz" in script


def test_file_says_how_it_is_built() -> None:
    (line,) = re.findall(r"^#\s+(docker build .*)$", FILE.read_text(), re.MULTILINE)
    words = shlex.split(line)
    assert words[-1] == "build/release"
    assert (ROOT / words[words.index("--file") + 1]) == FILE
    assert words[words.index("--tag") + 1] == f"fairlane:{fairlane.__version__}"
