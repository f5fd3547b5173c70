"""A real tritonserver on a repository in which a change was killed: it loads, and serves old or new."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient

from export.card import read_card
from export.definition import Definition, Feed, Serving, Tensor
from export.exporting.exporter import export_model
from export.repository.repository import Repository
from export.repository.server_load import load_on_server
from export.repository.version_content import FP32_FILE
from tests.export.conftest import Affine
from tests.export.repository.publishing import publishing

ROOT = Path(__file__).parents[3]

# Publishes, with the configuration, and is killed before it renames something for the N-th time.
KILLED = publishing("os._exit(9)", configure=True)


def wide_samples() -> Any:
    for rows in (1, 2):
        yield {"x": np.ones((rows, 4), np.float32)}


@pytest.fixture(scope="module")
def exported(tiny: Definition, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`old` has three columns, `new` four, and other labels; `another` is another model."""
    folder = tmp_path_factory.mktemp("exported")
    wide = {"inputs": (Tensor("x", "FP32", ("batch", 4)),), "outputs": (Tensor("y", "FP32", ("batch", 4)),)}
    models = {
        "old": replace(tiny, serving=Serving(labels={"y": ("a", "b", "c")})),
        "new": replace(
            tiny,
            module=lambda: Affine(3.0).eval(),
            samples=wide_samples,
            serving=Serving(labels={"y": ("p", "q", "r", "s")}),
            **wide,
        ),
        "another": replace(tiny, name="another"),
    }
    for name, definition in models.items():
        export_model(definition, folder / name)
    return folder


def published(folder: Path, exported: Path) -> Repository:
    repository = Repository(folder)
    repository.publish(read_card(exported / "old"), exported / "old" / FP32_FILE, exported / "old")
    return repository


def killed(repository: Repository, built: Path, rename: int) -> bool:
    """Whether publishing was killed at a rename, or had no more of them."""
    command = [sys.executable, "-c", KILLED, str(built), str(repository.folder), str(rename)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 9), done.stderr
    return done.returncode == 9


def best_class(address: str, columns: int) -> str:
    """The answer to 1, 2, 3...: the largest, its place and its label."""
    values: Feed = {"x": np.arange(1, columns + 1, dtype=np.float32).reshape(1, columns)}
    feed = grpcclient.InferInput("x", [1, columns], "FP32")
    feed.set_data_from_numpy(values["x"])
    with grpcclient.InferenceServerClient(address) as client:
        answer = client.infer("digits", [feed], outputs=[grpcclient.InferRequestedOutput("y", class_count=1)])
    return bytes(answer.as_numpy("y")[0, 0]).decode()


def test_version_with_another_configuration_loads_with_its_own_wherever_it_was_killed(
    quiet_server: Any, exported: Path, tmp_path: Path
) -> None:
    published(tmp_path / "template", exported)
    seen, died = [], True
    while died:
        folder = tmp_path / str(len(seen))
        shutil.copytree(tmp_path / "template", folder)
        died = killed(Repository(folder), exported / "new", len(seen) + 1)
        shutil.copytree(folder / "digits", quiet_server.folder / "digits")
        config = (folder / "digits" / "config.pbtxt").read_text()
        columns = 4 if "dims: [4]" in config else 3
        load_on_server(quiet_server.address, "digits", 2 if columns == 4 else 1)
        seen.append(best_class(quiet_server.address, columns))
        shutil.rmtree(quiet_server.folder / "digits")
    old, new = "7.000000:2:c", "13.000000:3:s"
    assert seen == sorted(seen, key=[old, new].index)
    assert seen.count(old) > 4
    assert new in seen


def test_server_starts_with_the_models_that_were_there_where_a_new_one_was_killed(
    start_triton: Callable[..., Any], exported: Path, tmp_path: Path
) -> None:
    repository = published(tmp_path / "repository", exported)
    # Before the rename that puts the whole of it at its place: every file is there.
    last = 1
    while killed(repository, exported / "another", last) and not repository.serves("another"):
        shutil.rmtree(repository.folder / "another", ignore_errors=True)
        last += 1
    shutil.rmtree(repository.folder / "another")
    assert killed(repository, exported / "another", last - 1)
    server = start_triton(repository.folder)
    assert best_class(server.address.grpc, 3) == "7.000000:2:c"
    repository.publish(read_card(exported / "another"), exported / "another" / FP32_FILE, exported / "another")
    load_on_server(server.address.grpc, "another", 1)
    assert not list(repository.folder.rglob(".*"))


def test_server_starts_with_a_model_that_came_after_the_first_one_of_all_was_killed(
    start_triton: Callable[..., Any], exported: Path, tmp_path: Path
) -> None:
    repository = Repository(tmp_path / "repository")
    assert killed(repository, exported / "another", 2)
    published(repository.folder, exported)
    server = start_triton(repository.folder)
    assert best_class(server.address.grpc, 3) == "7.000000:2:c"
    assert repository.names() == ("digits",)
