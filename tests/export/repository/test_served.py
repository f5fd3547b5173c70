"""What is published, in a real tritonserver: exchanged under load, refused where broken, equal to onnxruntime."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from click.testing import CliRunner
from tritonclient.utils import InferenceServerException

import export.cli
from export.card import read_card
from export.configuration.model_config import config_text
from export.definition import Definition, Serving, Tensor
from export.exporting.exporter import export_model
from export.inference.session import open_session
from export.models_cli import models as command
from export.repository.repository import Repository
from export.repository.server_load import ServerError, bring_into_service, load_on_server
from export.repository.version_content import FP32_FILE
from tests.export.conftest import Affine

FACTORS = (2.0, 3.0)


@pytest.fixture(scope="module")
def exported(tiny: Definition, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    for factor in FACTORS:
        affine = replace(tiny, module=lambda factor=factor: Affine(factor).eval(), serving=Serving(max_batch_size=8))
        export_model(affine, folder / str(factor))
    return folder


@pytest.fixture
def folders(exported: Path, tmp_path: Path) -> list[Path]:
    """Exports of y = 2x + 1 and y = 3x + 1."""
    shutil.copytree(exported, tmp_path / "exported")
    return [tmp_path / "exported" / str(factor) for factor in FACTORS]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture
def publish(repository: Repository, folders: list[Path]) -> Callable[[int], int]:
    return lambda place: int(
        repository.publish(read_card(folders[place]), folders[place] / FP32_FILE, folders[place]).name
    )


def bring(repository: Repository, address: str, version: int, *, new: bool = True) -> None:
    """As by a command that changes nothing but the version."""
    bring_into_service(repository, address, "digits", version, new=new, before=repository.previous_files("digits"))


def factor_of(client: Any) -> float:
    """What the served model multiplies by."""
    feed = grpcclient.InferInput("x", [1, 3], "FP32")
    feed.set_data_from_numpy(np.ones((1, 3), np.float32))
    return float(client.infer("digits", [feed]).as_numpy("y")[0, 0]) - 1


class Load:
    """Requests without a pause from several threads; notes what came back, and every error."""

    def __init__(self, address: str) -> None:
        self.address, self.seen, self.errors = address, set[float](), list[Exception]()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]

    def _run(self) -> None:
        with grpcclient.InferenceServerClient(self.address) as client:
            while not self._stop.is_set():
                try:
                    self.seen.add(factor_of(client))
                except InferenceServerException as error:
                    self.errors.append(error)

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_running_server_takes_a_new_version_and_the_old_one_again_without_an_error(
    start_triton: Any, repository: Repository, publish: Callable[[int], int], poll: Callable[..., None]
) -> None:
    publish(0)
    server = start_triton(repository.folder)
    with Load(server.address.grpc) as load, grpcclient.InferenceServerClient(server.address.grpc) as client:
        poll(lambda: load.seen == {2.0})
        bring(repository, server.address.grpc, publish(1))
        assert factor_of(client) == 3.0
        place = ["--model-repository", str(repository.folder), "--server", server.address.grpc]
        done = CliRunner().invoke(command, ["rollback", "digits", *place])
        assert done.output == f"digits: version 3 is served by {server.address.grpc}\n"
        assert factor_of(client) == 2.0
        done = CliRunner().invoke(command, ["promote", "digits", "2", *place])
        assert done.output == f"digits: version 4 is served by {server.address.grpc}\n"
        assert factor_of(client) == 3.0
    assert load.errors == []
    assert load.seen == {2.0, 3.0}


def test_version_that_does_not_load_is_withdrawn_and_the_old_one_serves_on(
    start_triton: Any, repository: Repository, publish: Callable[[int], int], folders: list[Path]
) -> None:
    publish(0)
    server = start_triton(repository.folder)
    graph = folders[1] / FP32_FILE
    shutil.copyfile(graph, folders[1].parent / "spare.onnx")
    graph.write_bytes(graph.read_bytes()[:150])
    with Load(server.address.grpc) as load:
        version = publish(1)
        with pytest.raises(ServerError, match=r"digits version 2 was not loaded: .*digits/2/model.onnx: .*"):
            bring(repository, server.address.grpc, version)
    assert load.errors == []
    assert load.seen == {2.0}
    assert repository.versions("digits") == (1,)
    # The number is free again, and what comes under it next is loaded anew.
    shutil.copyfile(folders[1].parent / "spare.onnx", graph)
    with grpcclient.InferenceServerClient(server.address.grpc) as client:
        bring(repository, server.address.grpc, publish(1))
        assert factor_of(client) == 3.0


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            "dims: [3]",
            "dims: [4]",
            r"digits/1/model.onnx: input 'x': config.pbtxt says dims \[4\], the graph has \[3\]",
        ),
        ("TYPE_FP32", "TYPE_FP64", r"digits/1/model.onnx: input 'x': config.pbtxt says TYPE_FP64, the graph has"),
        ('name: "x"', 'name: "z"', r"digits/1/model.onnx: input \['z'\] of config.pbtxt not in the graph"),
        ("max_batch_size", "max_batchsize", "failed to load 'digits'|config.pbtxt|no version is available"),
        ("KIND_CPU", "KIND_GPU", "GPU"),
    ],
)
def test_configuration_that_does_not_fit_is_refused_with_file_and_reason(
    quiet_server: Any, publish: Callable[[int], int], repository: Repository, old: str, new: str, reason: str
) -> None:
    publish(0)
    config = repository.folder / "digits" / "config.pbtxt"
    served = quiet_server.folder / "digits"
    text = config.read_text()
    config.write_text(
        text.replace(old, new).replace('key: "x"', 'key: "z"') if '"z"' in new else text.replace(old, new)
    )
    (repository.folder / "digits").rename(served)
    with pytest.raises(ServerError, match=reason):
        load_on_server(quiet_server.address, "digits", 1)


def test_answers_equal_onnxruntime_at_every_batch_and_an_empty_batch_is_refused(
    quiet_server: Any, publish: Callable[[int], int], repository: Repository, folders: list[Path]
) -> None:
    publish(0)
    (repository.folder / "digits").rename(quiet_server.folder / "digits")
    load_on_server(quiet_server.address, "digits", 1)
    session = open_session(folders[0] / FP32_FILE)
    with grpcclient.InferenceServerClient(quiet_server.address) as client:
        for rows in (1, 2, 7, 8):
            value = np.random.default_rng(rows).standard_normal((rows, 3), dtype=np.float32)
            feed = grpcclient.InferInput("x", [rows, 3], "FP32")
            feed.set_data_from_numpy(value)
            np.testing.assert_array_equal(client.infer("digits", [feed]).as_numpy("y"), session.run({"x": value}))
        empty = grpcclient.InferInput("x", [0, 3], "FP32")
        empty.set_data_from_numpy(np.zeros((0, 3), np.float32))
        with pytest.raises(InferenceServerException):
            client.infer("digits", [empty])
        assert client.is_model_ready("digits")
        # Both warm-up batches ran before the first request, as loading does not end before.
        assert client.get_model_config("digits", as_json=True)["config"]["model_warmup"][1]["batch_size"] == 8


def test_labels_of_the_definition_come_with_the_classes(quiet_server: Any, tiny: Definition, tmp_path: Path) -> None:
    labelled = replace(tiny, serving=Serving(labels={"y": ("red", "green", "blue")}))
    card = export_model(labelled, tmp_path / "built")
    Repository(quiet_server.folder).publish(card, tmp_path / "built" / FP32_FILE, tmp_path / "built")
    load_on_server(quiet_server.address, "digits", 1)
    feed = grpcclient.InferInput("x", [1, 3], "FP32")
    feed.set_data_from_numpy(np.array([[1, 3, 2]], np.float32))
    with grpcclient.InferenceServerClient(quiet_server.address) as client:
        answer = client.infer("digits", [feed], outputs=[grpcclient.InferRequestedOutput("y", class_count=2)])
    assert answer.as_numpy("y").tolist() == [[b"7.000000:1:green", b"5.000000:2:blue"]]


@pytest.mark.parametrize("new", [True, False])
def test_server_that_is_not_there_is_named_and_every_version_stays(
    repository: Repository, publish: Callable[[int], int], *, new: bool
) -> None:
    publish(0)
    publish(1)
    told = "; it is published all the same" if new else ""
    with pytest.raises(ServerError, match=rf"127.0.0.1:1: digits version 2 was not loaded: .*\){told}$"):
        bring(repository, "127.0.0.1:1", 2, new=new)
    assert repository.versions("digits") == (1, 2), "the versions stay for the server that comes"


def test_export_loads_on_a_server_what_is_published_already(
    quiet_server: Any, tiny: Definition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.cli, "load_definition", lambda _: tiny)
    places = ["--build-dir", str(tmp_path / "build"), "--model-repository", str(quiet_server.folder)]
    assert CliRunner().invoke(export.cli.export, ["digits", *places]).exit_code == 0
    with grpcclient.InferenceServerClient(quiet_server.address) as client:
        assert not client.is_model_ready("digits")
        again = CliRunner().invoke(export.cli.export, ["digits", *places, "--server", quiet_server.address])
        assert again.exit_code == 0, again.output
        assert factor_of(client) == 2.0


def test_version_that_was_there_before_stays_where_a_server_refuses_it(
    quiet_server: Any, repository: Repository, publish: Callable[[int], int]
) -> None:
    publish(0)
    publish(1)
    # A server on another repository, which knows no such model.
    with pytest.raises(ServerError, match=r"digits version 2 was not loaded: .*failed to poll") as refused:
        bring(repository, quiet_server.address, 2, new=False)
    assert "withdrawn" not in str(refused.value)
    assert repository.versions("digits") == (1, 2)


def test_configuration_of_a_model_without_batches_is_one_triton_loads(
    quiet_server: Any, tiny: Definition, tmp_path: Path
) -> None:
    fixed = replace(tiny, inputs=(Tensor("x", "FP32", ("n", 3)),), outputs=(Tensor("y", "FP32", ("n", 3)),))
    card = export_model(fixed, tmp_path / "built")
    Repository(quiet_server.folder).publish(card, tmp_path / "built" / FP32_FILE, tmp_path / "built")
    assert "max_batch_size" not in config_text(fixed)
    load_on_server(quiet_server.address, "digits", 1)
