"""deploy/triton-container.sh against a stand-in for the docker command."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "deploy" / "triton-container.sh"
DOCKER = """#!/bin/sh
case "$1" in
info) [ -z "$2" ] || echo "$RUNTIMES"; exit $ENGINE ;;
run) printf '%s\\n' "$@" > "$RECORD" ;;
esac
"""


@pytest.fixture
def launch(tmp_path):
    """Run a copy of the script beside a model repository, with a PATH that holds what it needs and no more."""
    tools, root = tmp_path / "bin", tmp_path / "root"
    tools.mkdir()
    (root / "deploy").mkdir(parents=True)
    shutil.copy(SCRIPT, root / "deploy")
    for tool in ("dirname", "grep"):
        (tools / tool).symlink_to(shutil.which(tool))

    def run(*arguments, docker=True, engine=0, runtimes="runc", model=True):
        if docker:
            (tools / "docker").write_text(DOCKER)
            (tools / "docker").chmod(0o755)
        if model:
            (root / "model_repository" / "tiny" / "1").mkdir(parents=True)
            (root / "model_repository" / "tiny" / "1" / "model.onnx").touch()
        record = tmp_path / "arguments"
        variables = {"PATH": str(tools), "ENGINE": str(engine), "RUNTIMES": runtimes, "RECORD": str(record)}
        done = subprocess.run(
            [shutil.which("bash"), str(root / "deploy" / SCRIPT.name), *arguments],
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        return done, record.read_text().splitlines() if record.exists() else None

    return run


def test_runs_the_pinned_release_on_loopback_with_models_read_only(launch, tmp_path):
    done, arguments = launch("--log-verbose=1")
    assert done.returncode == 0, done.stderr
    image = arguments.index("nvcr.io/nvidia/tritonserver:24.10-py3")
    published = [arguments[i + 1] for i, word in enumerate(arguments) if word == "--publish"]
    assert published == [f"127.0.0.1:{port}:{port}" for port in (8000, 8001, 8002)]
    assert arguments[arguments.index("--volume") + 1] == f"{tmp_path}/root/model_repository:/models:ro"
    assert arguments[image + 1] == "tritonserver"
    assert {"--model-repository=/models", "--load-model=*", "--log-verbose=1"} <= set(arguments[image + 2 :])
    assert "--gpus" not in arguments


def test_asks_for_gpus_where_the_engine_has_them(launch):
    _, arguments = launch(runtimes="io.containerd.runc.v2 nvidia runc")
    assert arguments[arguments.index("--gpus") + 1] == "all"


@pytest.mark.parametrize(("said", "loads"), [("false", "true"), ("true", "false")])
def test_model_that_the_containers_runtime_does_not_load_is_named_where_it_is_served(launch, tmp_path, said, loads):
    versions = tmp_path / "root" / "model_repository" / "blocks"
    for version, answer in (("9", said), ("10", loads), ("11", said)):
        (versions / version).mkdir(parents=True)
        (versions / version / "model_card.json").write_text(f'{{\n  "loads_in_container": {answer}\n}}\n')
        # A folder without a graph is no version.
        if version != "11":
            (versions / version / "model.onnx").touch()
    done, arguments = launch()
    assert (done.returncode == 0) == (arguments is not None) == (loads == "true")
    if loads == "false":
        assert "blocks/10/model_card.json: the container's ONNX Runtime does not load this model" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"docker": False}, "no docker command: install"),
        ({"engine": 1}, "no engine to talk to: start it"),
        ({"model": False}, "no model.onnx to serve: run 'make models'"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence_with_what_to_do(launch, options, says):
    done, arguments = launch(**options)
    assert done.returncode != 0
    assert arguments is None
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
