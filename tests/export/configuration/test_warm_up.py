"""The warm-up of a configuration is one that the model runs on: where it fails, Triton loads no model at all."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import tritonclient.grpc as grpcclient
from torch import nn

from export.configuration.model_config import config_text, parse_config, read_config
from export.configuration.warm_up import WarmUpError, warm_up_feeds
from export.definition import Definition, Feed, Serving, Tensor
from export.exporting.exporter import export_model
from export.repository.repository import Repository
from export.repository.version_content import FP32_FILE
from tests.export.conftest import QuietServer


class Halved(nn.Module):
    """Adds the halves of what comes together: it runs on even lengths alone."""

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        halves = x.unflatten(1, (2, -1))
        return (halves[:, 0] + halves[:, 1]) * w[:, None]


def even() -> Iterator[Feed]:
    for rows, length in ((2, 6), (3, 4)):
        yield {"x": np.ones((rows, length), np.float32), "w": np.ones(rows, np.float32)}


@pytest.fixture
def halved(tiny: Definition) -> Definition:
    return replace(
        tiny,
        inputs=(Tensor("x", "FP32", ("batch", "length")), Tensor("w", "FP32", ("batch",))),
        outputs=(Tensor("y", "FP32", ("batch", "half")),),
        module=lambda: Halved().eval(),
        samples=even,
        serving=Serving(max_batch_size=8),
    )


def shapes(definition: Definition) -> list[dict[str, tuple[int, ...]]]:
    feeds = warm_up_feeds(parse_config(config_text(definition), "generated"))
    return [{name: np.shape(value) for name, value in feed.items()} for feed in feeds]


def test_axis_has_the_size_of_the_first_sample(halved: Definition) -> None:
    assert shapes(halved) == [{"x": (1, 6), "w": (1,)}, {"x": (8, 6), "w": (8,)}]


def test_axis_has_the_size_that_is_given(halved: Definition) -> None:
    given = replace(halved, serving=Serving(max_batch_size=2, warm_up={"length": 10}))
    assert shapes(given) == [{"x": (1, 10), "w": (1,)}, {"x": (2, 10), "w": (2,)}]
    assert shapes(replace(halved, serving=Serving(warm_up=None))) == []


def test_feeds_are_zeros_of_the_inputs_types(halved: Definition, tmp_path: Path) -> None:
    export_model(halved, tmp_path / "built")
    one, _ = warm_up_feeds(read_config(tmp_path / "built" / "config.pbtxt"))
    assert {name: (value.dtype, value.any()) for name, value in one.items()} == {
        "x": (np.float32, False),
        "w": (np.float32, False),
    }
    words = replace(
        halved, inputs=(Tensor("text", "STRING", ("batch",)),), module=None, onnx_file=tmp_path, samples=list
    )
    assert [feed["text"].tolist() for feed in warm_up_feeds(parse_config(config_text(words), "generated"))] == [
        [""],
        [""] * 8,
    ]


def test_warm_up_that_the_model_does_not_run_on_is_an_error_and_nothing_is_exported(
    halved: Definition, tmp_path: Path
) -> None:
    odd = replace(halved, serving=Serving(warm_up={"length": 3}))
    told = (
        r"digits: serving.warm_up: expected sizes at which the model runs on zeros, or None for no warm-up; "
        r"got x\[1,3\] w\[1\]: fp32.onnx on x\[1,3\] w\[1\]: ONNX Runtime fails: "
    )
    with pytest.raises(WarmUpError, match=told):
        export_model(odd, tmp_path / "models" / "built")
    assert list((tmp_path / "models").iterdir()) == []


def test_model_that_runs_at_few_sizes_loads_in_triton(
    halved: Definition, quiet_server: QuietServer, tmp_path: Path
) -> None:
    card = export_model(halved, tmp_path / "built")
    Repository(quiet_server.folder).publish(card, tmp_path / "built" / FP32_FILE, tmp_path / "built")
    with grpcclient.InferenceServerClient(quiet_server.address) as client:
        client.load_model("digits")
        assert client.is_model_ready("digits")
