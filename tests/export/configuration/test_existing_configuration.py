"""`fairlane export` and a configuration that is there: its own, somebody's, one that does not fit."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import export.cli
import export.repository.version_content
from export.card import Measure, Quantization
from export.definition import Definition, Serving, Tensor
from export.models_cli import models
from export.repository.repository import Repository
from tests.export.conftest import Shifted

Run = Callable[..., Result]


def test_configuration_of_ones_own_stays_until_it_is_to_be_replaced(run: Run, tmp_path: Path) -> None:
    run("digits")
    config = tmp_path / "repository/digits/config.pbtxt"
    generated = config.read_text()
    config.write_text(generated.replace("max_batch_size: 32", "max_batch_size: 8"))
    assert "is not the one made here and stays" in run("digits").stderr
    assert "max_batch_size: 8" in config.read_text()
    run("digits", "--overwrite-config")
    assert config.read_text() == generated


@pytest.fixture
def labelled(definition: list[Definition], run: Run, tmp_path: Path) -> Path:
    """The model is published with three labels, of which its definition now has another first one. The label file."""
    for first in ("red", "crimson"):
        labels = {"y": (first, "green", "blue")}
        definition[0] = replace(definition[0], serving=replace(definition[0].serving, labels=labels))
        if first == "red":
            assert run("digits").exit_code == 0
    return tmp_path / "repository" / "digits" / "y_labels.txt"


def test_changed_labels_are_told_of_and_stay(run: Run, labelled: Path) -> None:
    told = run("digits").stderr
    assert "digits: its y_labels.txt is not the one made here and stays; --overwrite-config replaces it" in told
    assert "config.pbtxt" not in told
    assert labelled.read_text() == "red\ngreen\nblue\n"


def test_changed_labels_replace_those_of_the_repository_where_asked_for(run: Run, labelled: Path) -> None:
    assert run("digits", "--overwrite-config").exit_code == 0
    assert labelled.read_text() == "crimson\ngreen\nblue\n"
    assert "stays" not in run("digits").stderr


def test_labels_that_are_gone_come_back_where_asked_for(run: Run, labelled: Path) -> None:
    labelled.unlink()
    assert "its y_labels.txt is not the one made here" in run("digits").stderr
    run("digits", "--overwrite-config")
    assert labelled.read_text() == "crimson\ngreen\nblue\n"


def test_assets_that_changed_alone_are_published(run: Run, definition: list[Definition], tmp_path: Path) -> None:
    run("digits")
    definition[0] = replace(definition[0], assets=lambda folder: (folder / "asset.txt").write_text("another"))
    assert run("digits").exit_code == 0
    repository = Repository(tmp_path / "repository")
    assert repository.versions("digits") == (1, 2)
    assert (repository.version_folder("digits") / "asset.txt").read_text() == "another"


def test_card_says_what_the_assets_are(run: Run, tmp_path: Path) -> None:
    run("digits")
    card = Repository(tmp_path / "repository").card("digits")
    assert card is not None
    assert card.assets == {"asset.txt": hashlib.sha256(b"asset").hexdigest()}


def as_int8(repository: Repository) -> None:
    """Let what is served pass for the INT8 form of its export."""
    served = repository.card("digits")
    assert served is not None
    measure = Measure(size_bytes=1, latency_ms={}, scores={})
    verdict = Quantization(recipe="r", fp32=measure, int8=measure, refusals=())
    served.model_copy(update={"quantization": verdict}).write(repository.version_folder("digits"))


def test_int8_form_for_another_target_does_not_stay_under_the_configuration_of_this_one(
    run: Run, tmp_path: Path
) -> None:
    run("digits")
    repository = Repository(tmp_path / "repository")
    as_int8(repository)
    (repository.version_folder("digits") / "model.onnx").write_bytes(b"INT8")
    told = run("digits", "--target", "tensorrt").stderr
    assert "an earlier export is being served as INT8" in told
    assert repository.versions("digits") == (1,)
    told = run("digits", "--target", "tensorrt", "--overwrite-config").stderr
    assert "FP32 is served until `fairlane quantize digits`" in told
    served = repository.card("digits")
    assert served is not None
    assert (repository.versions("digits"), served.target, served.quantization) == ((1, 2), "tensorrt", None)
    assert "KIND_GPU" in (tmp_path / "repository/digits/config.pbtxt").read_text()


def test_int8_form_that_the_new_configuration_does_not_fit_does_not_stay(run: Run, wider: Path) -> None:
    repository = Repository(wider.parent)
    as_int8(repository)
    result = run("digits", "--overwrite-config")
    assert result.exit_code == 0, result.output
    assert "FP32 is served until `fairlane quantize digits`" in result.stderr
    assert repository.versions("digits") == (1, 2)


def test_int8_form_stays_under_a_new_configuration_that_it_fits(
    run: Run, definition: list[Definition], tmp_path: Path
) -> None:
    run("digits")
    repository = Repository(tmp_path / "repository")
    as_int8(repository)
    definition[0] = replace(definition[0], module=lambda: Shifted().eval(), serving=Serving(max_batch_size=4))
    told = run("digits", "--overwrite-config").stderr
    assert "an earlier export is being served as INT8; run `fairlane quantize digits`" in told
    assert repository.versions("digits") == (1,)
    assert "max_batch_size: 4" in (tmp_path / "repository/digits/config.pbtxt").read_text()


@pytest.fixture
def wider(definition: list[Definition], run: Run, tmp_path: Path) -> Path:
    """The model is published with three columns, and its definition now has four. The model's folder."""
    assert run("digits").exit_code == 0
    four = ("batch", 4)
    definition[0] = replace(
        definition[0],
        inputs=(Tensor("x", "FP32", four),),
        outputs=(Tensor("y", "FP32", four),),
        samples=lambda: [{"x": np.ones((2, 4), np.float32)}],
    )
    return tmp_path / "repository" / "digits"


def test_export_that_the_configuration_does_not_fit_is_not_published(run: Run, wider: Path) -> None:
    result = run("digits")
    assert result.exit_code == 1
    told = " ".join(result.stderr.split())
    assert re.search(
        r"config.pbtxt does not fit \S+fp32.onnx: input 'x': it says dims \[3\], the graph has \[4\]", told
    )
    assert "--overwrite-config replaces it" in told
    assert Repository(wider.parent).versions("digits") == (1,)


def test_version_and_the_configuration_that_it_needs_come_together(run: Run, wider: Path) -> None:
    assert run("digits", "--overwrite-config").exit_code == 0
    assert Repository(wider.parent).versions("digits") == (1, 2)
    assert "dims: [4]" in (wider / "config.pbtxt").read_text()


def test_version_whose_configuration_cannot_be_written_is_taken_back(
    run: Run, wider: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(export.repository.version_content, "write_file", full)
    result = run("digits", "--overwrite-config")
    assert (result.exit_code, "No space left on device" in result.stderr) == (1, True)
    assert Repository(wider.parent).versions("digits") == (1,)
    assert "dims: [3]" in (wider / "config.pbtxt").read_text()


def test_older_version_that_the_configuration_does_not_fit_is_not_promoted(run: Run, wider: Path) -> None:
    run("digits", "--overwrite-config")
    for change in (["promote", "digits", "1"], ["rollback", "digits"]):
        result = CliRunner().invoke(models, [*change, "--model-repository", str(wider.parent)])
        assert result.exit_code == 1
        assert "input 'x': it says dims [4], the graph has [3]" in " ".join(result.stderr.split())
    assert Repository(wider.parent).versions("digits") == (1, 2)


def test_older_version_that_is_cut_off_is_not_promoted(run: Run, definition: list[Definition], tmp_path: Path) -> None:
    run("digits")
    definition[0] = replace(definition[0], module=lambda: Shifted().eval())
    run("digits")
    graph = tmp_path / "repository/digits/1/model.onnx"
    graph.write_bytes(graph.read_bytes()[:100])
    result = CliRunner().invoke(models, ["promote", "digits", "1", "--model-repository", str(tmp_path / "repository")])
    assert result.exit_code == 1
    assert "digits/1/model.onnx: not an ONNX file, or cut off" in " ".join(result.stderr.split())


def test_configuration_of_another_name_is_named_before_anything_is_promoted(
    run: Run, definition: list[Definition], tmp_path: Path
) -> None:
    run("digits")
    definition[0] = replace(definition[0], module=lambda: Shifted().eval())
    run("digits")
    config = tmp_path / "repository/digits/config.pbtxt"
    config.write_text(config.read_text().replace('name: "digits"', 'name: "digit"'))
    result = CliRunner().invoke(models, ["rollback", "digits", "--model-repository", str(tmp_path / "repository")])
    assert result.exit_code == 1
    assert "digits/config.pbtxt: name: expected 'digits', as its folder, got 'digit'" in " ".join(result.stderr.split())


def test_labels_that_another_export_brought_do_not_name_the_classes_of_int8(
    run: Run, definition: list[Definition], tmp_path: Path
) -> None:
    labelled = replace(definition[0], serving=Serving(labels={"y": ("red", "green", "blue")}))
    definition[0] = labelled
    run("digits")
    repository = Repository(tmp_path / "repository")
    as_int8(repository)
    definition[0] = replace(labelled, module=lambda: Shifted().eval(), serving=Serving(labels={"y": ("a", "b", "c")}))
    told = run("digits", "--overwrite-config").stderr
    assert "does not go with the new config.pbtxt or labels; FP32 is served until `fairlane quantize digits`" in told
    assert repository.versions("digits") == (1, 2)


def test_rollback_brings_the_labels_back_that_a_version_came_with(
    run: Run, definition: list[Definition], labelled: Path, tmp_path: Path
) -> None:
    definition[0] = replace(definition[0], module=lambda: Shifted().eval())
    run("digits", "--overwrite-config")
    assert labelled.read_text() == "crimson\ngreen\nblue\n"
    place = ["--model-repository", str(tmp_path / "repository")]
    assert CliRunner().invoke(models, ["rollback", "digits", *place]).exit_code == 0
    assert labelled.read_text() == "red\ngreen\nblue\n"
    assert CliRunner().invoke(models, ["promote", "digits", "2", *place]).exit_code == 0
    assert labelled.read_text() == "crimson\ngreen\nblue\n"


def test_new_scores_of_the_same_graph_replace_the_card(run: Run, definition: list[Definition], tmp_path: Path) -> None:
    run("digits")
    definition[0] = replace(definition[0], evaluate=lambda predict: {"good": 0.5})
    run("digits")
    repository = Repository(tmp_path / "repository")
    card = repository.card("digits")
    assert card is not None
    assert (repository.versions("digits"), card.scores) == ((1,), {"good": 0.5})
