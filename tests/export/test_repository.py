from pathlib import Path

import pytest

from export.card import CARD_FILE, CardError, ModelCard, Parity, Source
from export.repository import COMMITTED, Repository, is_built


@pytest.fixture
def card() -> ModelCard:
    source = Source(package="p", version="1", file="f", sha256="0" * 64, licence="none")
    parity = Parity(max_abs_diff=0.0, tolerance=1.0, shapes=("x[1]",))
    return ModelCard(name="digits", source=source, opset=20, tools={}, fp32_sha256="1" * 64, parity=parity)


@pytest.fixture
def built(tmp_path: Path, card: ModelCard) -> Path:
    folder = tmp_path / "build" / "models" / "digits"
    folder.mkdir(parents=True)
    (folder / "fp32.onnx").write_text("graph")
    (folder / "samples.npz").write_text("asset")
    card.write(folder)
    return folder


def test_version_folder_holds_model_assets_and_card(tmp_path: Path, built: Path, card: ModelCard) -> None:
    repository = Repository(tmp_path / "repository")
    version = repository.publish(card, built / "fp32.onnx", built)
    assert version == tmp_path / "repository" / "digits" / "1"
    assert sorted(path.name for path in version.iterdir()) == ["model.onnx", "model_card.json", "samples.npz"]
    assert repository.serves("digits")
    assert repository.card("digits") == card


def test_repository_of_ones_own_gets_the_committed_config_once(tmp_path: Path, built: Path, card: ModelCard) -> None:
    config = tmp_path / "repository" / "digits" / "config.pbtxt"
    repository = Repository(tmp_path / "repository")
    repository.publish(card, built / "fp32.onnx", built)
    assert config.read_text() == (COMMITTED / "digits" / "config.pbtxt").read_text()
    config.write_text("changed by its owner")
    repository.publish(card, built / "fp32.onnx", built)
    assert config.read_text() == "changed by its owner"


def test_publishing_again_removes_what_the_old_version_had(tmp_path: Path, built: Path, card: ModelCard) -> None:
    repository = Repository(tmp_path / "repository")
    version = repository.publish(card, built / "fp32.onnx", built)
    (built / "samples.npz").unlink()
    repository.publish(card, built / "fp32.onnx", built)
    assert sorted(path.name for path in version.iterdir()) == ["model.onnx", "model_card.json"]


def test_model_put_there_by_somebody_else_has_no_card(tmp_path: Path) -> None:
    version = tmp_path / "digits" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_text("graph")
    assert Repository(tmp_path).serves("digits")
    assert Repository(tmp_path).card("digits") is None


def test_crash_between_the_two_renames_is_repaired_by_looking(tmp_path: Path, built: Path, card: ModelCard) -> None:
    repository = Repository(tmp_path / "repository")
    version = repository.publish(card, built / "fp32.onnx", built)
    version.rename(version.parent / ".1.old")
    assert repository.serves("digits")


def test_export_whose_card_cannot_be_read_is_not_built(tmp_path: Path, built: Path) -> None:
    (built / CARD_FILE).write_text('{"name": "of another version"}')
    assert not is_built(tmp_path / "build", "digits")


@pytest.mark.parametrize("lost", ["fp32.onnx", CARD_FILE])
def test_export_without_graph_or_card_is_not_built(tmp_path: Path, built: Path, lost: str) -> None:
    assert is_built(tmp_path / "build", "digits")
    (built / lost).unlink()
    assert not is_built(tmp_path / "build", "digits")


def test_unreadable_card_is_named(tmp_path: Path, built: Path, card: ModelCard) -> None:
    repository = Repository(tmp_path / "repository")
    version = repository.publish(card, built / "fp32.onnx", built)
    (version / CARD_FILE).write_text("{}")
    with pytest.raises(CardError, match=r"1/model_card.json is not a readable model card"):
        repository.card("digits")
