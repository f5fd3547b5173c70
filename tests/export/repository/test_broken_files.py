"""Configurations and cards that somebody has broken: one line that names file and reason, and nothing changes."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import export.cli
import quantize.tasks.task_loading
from bench.tune import tune
from export.card import CARD_FILE
from export.configuration.model_config import CONFIG_FILE
from export.definition import Definition
from export.models_cli import models
from export.repository.repository import KEPT_VERSIONS
from export.repository.version_content import MODEL_FILE
from quantize.cli import quantize as quantize_command
from tests.export.repository.stand_in import NAME, Place, build

SERVED = KEPT_VERSIONS
Spoil = Callable[[Path], object]


def remade(path: Path, make: Spoil) -> None:
    path.unlink()
    make(path)


# What is done to a file, and what is said of it.
SPOILT: dict[str, tuple[Spoil, str]] = {
    "missing": (lambda path: path.unlink(), "No such file or directory"),
    "a folder": (lambda path: remade(path, Path.mkdir), "Is a directory"),
    # What cannot be opened, also by root.
    "unreadable": (lambda path: remade(path, lambda at: at.symlink_to(at)), "Too many levels of symbolic links"),
    "not UTF-8": (lambda path: path.write_bytes(b"# \xff\xfe"), "not UTF-8: 'utf-8' codec can't decode byte 0xff"),
}
CONFIGS: dict[str, tuple[Spoil, str]] = SPOILT | {
    "empty": (lambda path: path.write_bytes(b""), "it is empty"),
    "broken": (lambda path: path.write_text('name: "digits"\nmax_batch_size: many'), "line 2:17 : "),
    "of no tensors": (lambda path: path.write_text('name: "digits"'), "input 'x' of"),
}
CARDS: dict[str, tuple[Spoil, str]] = {name: one for name, one in SPOILT.items() if name != "missing"} | {
    "empty": (lambda path: path.write_bytes(b""), "invalid json: eof while parsing a value"),
    "broken": (lambda path: path.write_text('{"name": 3}'), "name: input should be a valid string, got 3"),
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.fill()
    build(tmp_path / "build" / "models" / NAME, "new", "new", NAME)
    return place


@pytest.fixture
def call(place: Place, tiny: Definition, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command on the repository; quantizing and measuring are not gone into."""
    monkeypatch.setattr(export.cli, "load_definition", lambda _: tiny)
    monkeypatch.setattr(quantize.tasks.task_loading, "load_task", lambda *_: None)
    repository = ["--model-repository", str(place.repository.folder)]
    places = [*repository, "--build-dir", str(place.folder / "build")]
    commands: dict[str, tuple[Any, list[str]]] = {
        "list": (models, ["list", *repository]),
        "list NAME": (models, ["list", NAME, *repository]),
        "promote": (models, ["promote", NAME, "2", *repository]),
        "rollback": (models, ["rollback", NAME, *repository]),
        "remove": (models, ["remove", NAME, "1", *repository]),
        "export": (export.cli.export, [NAME, *places]),
        "export --missing": (export.cli.export, ["--missing", NAME, *places]),
        "quantize": (quantize_command, [NAME, *places]),
        "tune": (tune, [NAME, "--p99-ms", "50", *repository]),
    }
    return lambda name, *more: CliRunner().invoke(commands[name][0], [*commands[name][1], *more])


def everything(folder: Path) -> dict[str, str]:
    """What lies in a folder, by path: the kind of each entry, and the sum of its content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = "link" if path.is_symlink() else "folder" if path.is_dir() else "file"
        content = os.readlink(path) if kind == "link" else "" if kind == "folder" else path.read_bytes().hex()
        found[str(path.relative_to(folder))] = f"{kind} {hashlib.sha256(content.encode()).hexdigest()}"
    return found


def told(result: Result) -> str:
    """The one line with which a command has failed."""
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.stderr.splitlines()[-1] == line
    return line


COMMANDS = ("list", "list NAME", "promote", "rollback", "remove", "export", "export --missing", "quantize", "tune")
# Where there is none, one is provided; a list and a removal do not look at tensors, and Triton tells `tune` of them.
TAKEN = {
    "missing": {"export", "export --missing", "quantize"},
    "of no tensors": {"list", "list NAME", "remove", "tune"},
}


@pytest.mark.parametrize(
    ("fault", "command"),
    [(fault, command) for fault in CONFIGS for command in COMMANDS if command not in TAKEN.get(fault, ())],
)
def test_configuration_that_cannot_be_read_is_named_with_the_reason_and_nothing_changes(
    place: Place, call: Callable[..., Result], fault: str, command: str
) -> None:
    spoil, reason = CONFIGS[fault]
    path = place.repository.folder / NAME / CONFIG_FILE
    spoil(path)
    before = everything(place.repository.folder)
    line = told(call(command))
    if (fault, command) == ("missing", "tune"):
        assert f"{path.parent} holds no built model" in line
    else:
        assert str(path) in line
        assert reason in line
    assert everything(place.repository.folder) == before


@pytest.mark.parametrize("command", ["list", "list NAME", "export", "export --missing"])
@pytest.mark.parametrize("fault", CARDS)
def test_card_of_what_is_served_that_cannot_be_read_is_named_with_the_reason_and_nothing_changes(
    place: Place, call: Callable[..., Result], fault: str, command: str
) -> None:
    spoil, reason = CARDS[fault]
    path = place.repository.folder / NAME / str(SERVED) / CARD_FILE
    spoil(path)
    before = everything(place.repository.folder)
    line = told(call(command))
    assert f"{path} is not a readable model card: " in line
    assert reason in line
    assert everything(place.repository.folder) == before


@pytest.mark.parametrize("fault", CARDS)
def test_list_shows_the_versions_whose_card_cannot_be_read_too(
    place: Place, call: Callable[..., Result], fault: str
) -> None:
    CARDS[fault][0](place.repository.folder / NAME / "2" / CARD_FILE)
    result = call("list NAME", "--json")
    assert result.stdout.count('"version": ') == KEPT_VERSIONS
    assert f"/{NAME}/2/{CARD_FILE} is not a readable model card" in told(result)


@pytest.mark.parametrize("fault", ["a folder", "unreadable"])
@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_version_with_a_card_that_cannot_be_copied_is_not_promoted(
    place: Place, call: Callable[..., Result], fault: str, command: str
) -> None:
    for version in (2, SERVED - 1):
        CARDS[fault][0](place.repository.folder / NAME / str(version) / CARD_FILE)
    before = everything(place.repository.folder)
    line = told(call(command))
    assert CARD_FILE in line
    assert CARDS[fault][1] in line
    assert everything(place.repository.folder) == before


@pytest.mark.parametrize("fault", ["not UTF-8", "empty", "broken"])
def test_card_that_cannot_be_read_keeps_nobody_from_going_back_or_removing(
    place: Place, call: Callable[..., Result], fault: str
) -> None:
    # Older versions of Fairlane wrote other cards.
    for version in (1, SERVED - 1):
        CARDS[fault][0](place.repository.folder / NAME / str(version) / CARD_FILE)
    assert call("remove").exit_code == 0
    assert call("rollback").exit_code == 0


@pytest.mark.parametrize("fault", CARDS)
def test_card_of_an_export_that_cannot_be_read_is_named_by_quantize_and_exported_anew(
    place: Place, call: Callable[..., Result], fault: str
) -> None:
    spoil, reason = CARDS[fault]
    built = place.folder / "build" / "models" / NAME
    spoil(built / CARD_FILE)
    before = everything(place.repository.folder)
    line = told(call("quantize"))
    assert f"{built / CARD_FILE} is not a readable model card: " in line
    assert reason in line
    assert everything(place.repository.folder) == before
    result = call("export --missing", "--json", "--overwrite-config")
    assert result.exit_code == 0, result.output
    assert '"exported": true' in result.stdout


@pytest.mark.parametrize("fault", ["a folder", "unreadable", "not UTF-8", "empty", "broken"])
def test_configuration_of_an_export_that_cannot_be_read_is_not_published(
    place: Place, call: Callable[..., Result], fault: str
) -> None:
    spoil, reason = CONFIGS[fault]
    built = place.folder / "build" / "models" / NAME
    spoil(built / CONFIG_FILE)
    before = everything(place.repository.folder)
    for command in ("export --missing", "quantize"):
        line = told(call(command))
        assert str(built / CONFIG_FILE) in line
        assert reason in line
    (place.repository.folder / NAME / CONFIG_FILE).unlink()
    line = told(call("export --missing"))
    assert str(built / CONFIG_FILE) in line
    del before[f"{NAME}/{CONFIG_FILE}"]
    assert everything(place.repository.folder) == before


@pytest.mark.parametrize("fault", ["not UTF-8", "empty", "broken", "unreadable"])
def test_configuration_that_cannot_be_read_is_replaced_where_that_is_asked_for(
    place: Place, call: Callable[..., Result], fault: str
) -> None:
    path = place.repository.folder / NAME / CONFIG_FILE
    CONFIGS[fault][0](path)
    assert "; --overwrite-config replaces it" in told(call("export --missing"))
    result = call("export --missing", "--overwrite-config")
    assert result.exit_code == 0, result.output
    assert place.served()[NAME] == ("new", "new", "new")
    assert place.residue() == []


def test_graph_that_is_a_folder_is_no_version(place: Place, call: Callable[..., Result]) -> None:
    remade(place.repository.folder / NAME / str(SERVED) / MODEL_FILE, Path.mkdir)
    assert call("list NAME", "--json").stdout.count('"version": ') == KEPT_VERSIONS - 1
