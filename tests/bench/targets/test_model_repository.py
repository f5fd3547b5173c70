from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from bench.targets.model_repository import add_priority_levels, copy_model

CONFIG = 'name: "minilm"\n# why\nmax_batch_size: 32\ndynamic_batching { }\n'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in ("minilm", "digits"):
        (tmp_path / "models" / name / "1").mkdir(parents=True)
        (tmp_path / "models" / name / "config.pbtxt").write_text(CONFIG)
        (tmp_path / "models" / name / "1" / "model.onnx").write_bytes(b"onnx")
    return tmp_path / "models"


def test_copy_holds_one_model_and_leaves_the_source_alone(source: Path, tmp_path: Path) -> None:
    copy = copy_model(source, "minilm", tmp_path / "copy")
    add_priority_levels(copy, "minilm", 2)
    assert [path.name for path in copy.iterdir()] == ["minilm"]
    assert (copy / "minilm" / "1" / "model.onnx").read_bytes() == b"onnx"
    assert (source / "minilm" / "config.pbtxt").read_text() == CONFIG


def test_priority_levels_are_added_to_the_dynamic_batcher(source: Path) -> None:
    add_priority_levels(source, "minilm", 3)
    config = text_format.Parse((source / "minilm" / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert config.dynamic_batching.priority_levels == 3
    assert config.dynamic_batching.default_priority_level == 3
    assert config.max_batch_size == 32


def test_a_model_that_was_not_built_is_named(source: Path, tmp_path: Path) -> None:
    (source / "minilm" / "1" / "model.onnx").unlink()
    with pytest.raises(FileNotFoundError, match="make models"):
        copy_model(source, "minilm", tmp_path / "copy")
