from pathlib import Path
from typing import Any

import pytest
import torch

from export.card import read_card
from export.checksum import ChecksumError, sha256_of
from export.exporter import export_model
from export.parity import ParityError
from export.repository import FP32_FILE
from export.session import open_session


def test_export_is_a_folder_with_graph_card_and_assets(tiny: Any, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "tiny"
    card = export_model(tiny, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["asset.txt", "fp32.onnx", "model_card.json"]
    assert read_card(folder) == card
    assert card.fp32_sha256 == sha256_of(folder / FP32_FILE)
    assert card.tools["torch"] == torch.__version__


def test_batch_is_dynamic_in_the_exported_graph(tiny: Any, tmp_path: Path) -> None:
    export_model(tiny, tmp_path / "tiny")
    session = open_session(tmp_path / "tiny" / FP32_FILE)
    assert [session.run(feed).shape for feed in tiny.real_feeds()] == [(1, 3), (2, 3), (7, 3)]


def test_parity_failure_leaves_nothing_at_the_final_path(tiny: Any, tmp_path: Path) -> None:
    tiny.tolerance = -1.0  # even no difference at all is too much
    with pytest.raises(ParityError):
        export_model(tiny, tmp_path / "models" / "tiny")
    assert list((tmp_path / "models").iterdir()) == []


def test_parity_failure_keeps_the_export_that_was_there(tiny: Any, tmp_path: Path) -> None:
    card = export_model(tiny, tmp_path / "tiny")
    tiny.tolerance = -1.0
    with pytest.raises(ParityError):
        export_model(tiny, tmp_path / "tiny")
    assert read_card(tmp_path / "tiny") == card


def test_refused_source_is_never_loaded(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise ChecksumError("not the one")

    def load() -> None:
        pytest.fail("loaded before it was verified")

    monkeypatch.setattr(tiny, "source", refuse)
    monkeypatch.setattr(tiny, "module", load)
    with pytest.raises(ChecksumError):
        export_model(tiny, tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []
