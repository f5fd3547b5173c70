"""What a server refused: it is as it was before, is not published again unasked, and the error says how it is."""

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import export.repository.server_load
from export.cli import export as command
from export.definition import Definition, Serving
from export.exporting.exporter import export_model
from export.models_cli import models
from export.repository.refused_version import note, refusal
from export.repository.repository import Repository
from export.repository.server_load import LoadRefusedError
from tests.export.conftest import Shifted

Run = Callable[..., Result]
SERVER = ("--server", "127.0.0.1:1")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Let servers refuse what they are told to load, or take it."""

    def answer(refusing: bool) -> None:
        def load(*_: Any) -> None:
            if refusing:
                raise LoadRefusedError("it does not load")

        monkeypatch.setattr(export.repository.server_load, "load_on_server", load)

    return answer


@pytest.fixture
def refused(run: Run, definition: list[Definition], refuse: Callable[[bool], None]) -> Result:
    """The call that exported what a server refused, over what is served."""
    assert run("digits").exit_code == 0
    definition[0] = replace(definition[0], module=lambda: Shifted().eval())
    refuse(True)
    return run("digits", *SERVER)


def test_refused_export_says_where_it_stays_and_which_command_publishes_it(
    refused: Result, refuse: Callable[[bool], None], repository: Repository, tmp_path: Path
) -> None:
    assert refused.exit_code == 1
    said = re.search(r"it is withdrawn; what was computed stays in (\S+), and `(.*)` publishes it\n", refused.stderr)
    assert said is not None, refused.stderr
    assert (said[1], repository.versions("digits")) == (str(tmp_path / "build/models/digits"), (1,))
    refuse(False)
    again = CliRunner().invoke(command, shlex.split(said[2])[2:])
    assert again.exit_code == 0, again.output
    assert repository.versions("digits") == (1, 2)
    assert refusal(tmp_path / "build/models/digits") is None


@pytest.mark.usefixtures("refused")
def test_refused_export_is_not_published_by_missing_without_a_server(run: Run, repository: Repository) -> None:
    result = run("--missing", "digits")
    assert result.exit_code == 0
    assert "a server could not load it, so it is not published where none judges it" in result.stderr
    assert "--server HOST:PORT` tries it again" in result.stderr
    assert "it does not load" in result.stderr
    assert repository.versions("digits") == (1,)
    # Who asks for it gets it.
    assert run("digits").exit_code == 0
    assert repository.versions("digits") == (1, 2)


@pytest.mark.usefixtures("refused")
def test_where_nothing_is_served_a_refusal_keeps_nothing_from_being_published(run: Run, repository: Repository) -> None:
    repository._vanish("digits")
    assert run("--missing", "digits").exit_code == 0
    assert repository.versions("digits") == (1,)


@pytest.mark.usefixtures("refused")
def test_another_export_than_the_refused_one_is_published_by_missing(
    run: Run, definition: list[Definition], repository: Repository, tmp_path: Path
) -> None:
    # As by a call that was killed before it published.
    other = replace(definition[0], assets=lambda folder: (folder / "asset.txt").write_text("another"))
    export_model(other, tmp_path / "build/models/digits")
    assert run("--missing", "digits").exit_code == 0
    assert repository.versions("digits") == (1, 2)


def test_refused_configuration_goes_with_the_export(
    run: Run, definition: list[Definition], refuse: Callable[[bool], None], repository: Repository
) -> None:
    labelled = {"serving": Serving(max_batch_size=8, labels={"y": ("red", "green", "blue")})}
    definition[0] = replace(definition[0], **labelled)
    assert run("digits").exit_code == 0
    before = repository.previous_files("digits")
    refuse(True)
    # The same graph for another target: the configuration and the card alone are new.
    result = run("digits", "--target", "cuda", "--overwrite-config", *SERVER)
    assert "the configuration is the one before again; what was computed stays in" in result.stderr
    assert repository.previous_files("digits") == before
    labelled = {"serving": Serving(max_batch_size=8, labels={"y": ("a", "b", "c")})}
    definition[0] = replace(definition[0], module=lambda: Shifted().eval(), **labelled)
    result = run("digits", "--overwrite-config", *SERVER)
    assert "it is withdrawn" in result.stderr
    assert repository.previous_files("digits") == before


def test_older_version_that_a_server_refuses_gives_the_labels_back(
    run: Run, definition: list[Definition], refuse: Callable[[bool], None], repository: Repository
) -> None:
    for module, labels in (
        (definition[0].module, ("red", "green", "blue")),
        (lambda: Shifted().eval(), ("a", "b", "c")),
    ):
        definition[0] = replace(definition[0], module=module, serving=Serving(max_batch_size=8, labels={"y": labels}))
        assert run("digits", "--overwrite-config").exit_code == 0
    before, place = repository.previous_files("digits"), ["--model-repository", str(repository.folder)]
    refuse(True)
    assert CliRunner().invoke(models, ["rollback", "digits", *place, *SERVER]).exit_code == 1
    assert repository.previous_files("digits") == before
    refuse(False)
    assert CliRunner().invoke(models, ["rollback", "digits", *place, *SERVER]).exit_code == 0
    assert repository.previous_files("digits").files["y_labels.txt"] == b"red\ngreen\nblue\n"
    assert repository.previous_files("digits").files["3/y_labels.txt"] == b"red\ngreen\nblue\n"


def test_note_is_about_one_card(tmp_path: Path) -> None:
    computed = tmp_path / "digits"
    computed.mkdir()
    assert refusal(computed) is None
    (computed / "model_card.json").write_text("one")
    note(computed, "why")
    assert refusal(computed) == "why"
    (computed / "model_card.json").write_text("another")
    assert refusal(computed) is None
    (tmp_path / ".digits.refused.json").write_text("no note")
    assert refusal(computed) is None
