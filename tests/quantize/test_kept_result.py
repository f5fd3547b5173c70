"""What was computed and cannot be published: it stays, the error says where, and it is published without computing."""

import errno
import itertools
import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner, Result

import export.filesystem.folder_lock
import export.repository.server_load
import export.repository.version_content
import quantize.judging.verdict
import quantize.tasks.task_loading
from export.card import read_card
from export.checksum import sha256_of
from export.filesystem.folder_lock import FolderBusyError
from export.repository.repository import Repository
from export.repository.server_load import LoadRefusedError
from quantize.cli import quantize as command
from quantize.kept_result import NothingKeptError, expect_kept, keeping
from tests.export.filesystem.lock_holder import Clock, held

Run = Callable[..., Result]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture
def kept(build: Path) -> Path:
    return build / "quantize" / "digits" / "kept"


@pytest.fixture
def run(build: Path, repository: Repository, lenient: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `fairlane quantize` on the tiny model, which one can be kept from computing."""
    monkeypatch.setattr(quantize.tasks.task_loading, "load_task", lambda *_: lenient)

    def invoke(*args: str, computing: bool = True) -> Result:
        with monkeypatch.context() as patch:
            if not computing:
                patch.setattr(quantize.judging.verdict, "quantize_model", None)
            places = ["--build-dir", str(build), "--model-repository", str(repository.folder)]
            return CliRunner().invoke(command, [*places, *args, "digits"])

    return invoke


@pytest.fixture
def busy(run: Run, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Result:
    """A call that was kept from publishing by a process that does not end."""
    assert run().exit_code == 0
    with monkeypatch.context() as patch, held(repository.folder / "digits"):
        patch.setattr(export.filesystem.folder_lock, "time", Clock())
        result = run("--exclude", "prod*")
    assert result.exit_code == 1
    assert repository.versions("digits") == (1,)
    return result


def test_what_another_process_kept_from_being_published_is_published_by_the_command_that_the_error_names(
    run: Run, busy: Result, kept: Path, build: Path, repository: Repository
) -> None:
    said = re.search(r"is writing there; .*; what was computed stays in (\S+), and `(.*)` publishes it\n", busy.stderr)
    assert said is not None, busy.stderr
    places = f"--model-repository {repository.folder} --build-dir {build}"
    assert said.groups() == (str(kept), f"fairlane quantize digits --kept {places}")
    graph, card = sha256_of(kept / "model.onnx"), read_card(kept)
    result = CliRunner().invoke(command, shlex.split(said[2])[2:])
    assert result.exit_code == 0, result.output
    assert repository.versions("digits") == (1, 2)
    assert sha256_of(repository.version_folder("digits") / "model.onnx") == graph
    assert repository.card("digits") == card


def test_nothing_is_computed_for_what_is_kept(run: Run, busy: Result) -> None:
    del busy
    assert run("--kept", computing=False).exit_code == 0


def test_missing_publishes_what_is_kept_without_computing(
    run: Run, kept: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            export.repository.version_content.shutil, "copyfile", lambda *_: (_ for _ in ()).throw(OSError("gone"))
        )
        assert run("--missing").exit_code == 1
    graph = sha256_of(kept / "model.onnx")
    result = run("--missing", computing=False)
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[0] == f"{kept}: computed before and not published; publishing it"
    assert sha256_of(repository.version_folder("digits") / "model.onnx") == graph
    assert not kept.exists()


@pytest.mark.parametrize("spoilt", ["earlier export", "unreadable card", "other recipe"])
def test_missing_computes_anew_where_what_is_kept_is_not_what_was_asked_for(
    run: Run, kept: Path, build: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            export.repository.version_content.shutil, "copyfile", lambda *_: (_ for _ in ()).throw(OSError("gone"))
        )
        assert run("--missing").exit_code == 1
    if spoilt == "earlier export":
        read_card(kept).model_copy(update={"fp32_sha256": "f" * 64}).write(kept)
    elif spoilt == "unreadable card":
        (kept / "model_card.json").write_text("{")
    # With a layer in FP32, it is another graph than what is kept.
    options = ["--exclude", "prod*"] if spoilt == "other recipe" else []
    graph = sha256_of(kept / "model.onnx")
    result = run("--missing", *options)
    assert result.exit_code == 0, result.output
    assert "publishing it" not in result.stderr
    # Of what cannot be published nothing is said.
    assert ("publishes it" in result.stderr) == (spoilt == "other recipe")
    served = sha256_of(repository.version_folder("digits") / "model.onnx")
    assert (served != graph) == (spoilt == "other recipe")
    assert repository.card("digits").fp32_sha256 == read_card(build / "models" / "digits").fp32_sha256


def test_what_was_published_is_kept_no_longer(run: Run, busy: Result, kept: Path) -> None:
    del busy
    run("--kept")
    assert list(kept.parent.iterdir()) == []
    result = run("--kept")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [f"Error: {kept}: nothing is kept there: quantize it without --kept"]


def test_call_that_computes_anew_says_that_something_is_kept(run: Run, busy: Result, kept: Path) -> None:
    del busy
    told = f"{kept}: computed before and not published; `fairlane quantize digits --kept "
    assert run().stderr.startswith(told)
    assert "computed before" not in run().stderr


def test_one_result_of_a_model_is_kept_at_most(run: Run, busy: Result, kept: Path) -> None:
    del busy
    assert run().exit_code == 0
    assert list(kept.parent.iterdir()) == []


def test_full_disk_while_publishing_keeps_what_was_computed(
    run: Run, kept: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(export.repository.version_content.shutil, "copyfile", full)
        result = run()
    assert result.exit_code == 1
    assert re.search(rf"No space left on device: '\S+'; what was computed stays in {kept}", result.stderr)
    assert not repository.serves("digits")
    assert run("--kept", computing=False).exit_code == 0
    assert repository.serves("digits")


def test_interrupt_while_publishing_keeps_what_was_computed(
    run: Run, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(export.repository.version_content.shutil, "copyfile", interrupt)
        result = run()
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, "Aborted!")
    assert f"what was computed stays in {kept}, and `fairlane quantize digits --kept" in result.stderr
    assert run("--kept", computing=False).exit_code == 0


def test_result_of_an_export_that_another_process_replaced_meanwhile_is_not_said_to_be_of_use(
    run: Run, build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build / "models" / "digits"

    def replaced(*_: Any) -> None:
        read_card(built).model_copy(update={"fp32_sha256": "f" * 64}).write(built)

    monkeypatch.setattr(export.repository.version_content.shutil, "copyfile", replaced)
    result = run()
    assert result.exit_code == 1
    assert "another process has exported it anew meanwhile; run this again\n" in result.stderr


def test_refusal_is_kept_too_and_fp32_is_published(
    run: Run, strict: Any, repository: Repository, monkeypatch: pytest.MonkeyPatch, build: Path
) -> None:
    monkeypatch.setattr(quantize.tasks.task_loading, "load_task", lambda *_: strict)
    with monkeypatch.context() as patch:
        patch.setattr(
            export.repository.version_content.shutil,
            "copyfile",
            lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "gone")),
        )
        run()
    result = run("--kept", computing=False)
    assert result.exit_code == 1
    assert "digits: INT8 refused, FP32 is served instead" in result.stderr
    fp32 = build / "models" / "digits" / "fp32.onnx"
    assert sha256_of(repository.version_folder("digits") / "model.onnx") == sha256_of(fp32)


OTHER_EXPORTS: Final[tuple[dict[str, Any], ...]] = (
    {"fp32_sha256": "f" * 64},
    {"target": "tensorrt"},
    {"assets": {"asset.txt": "f" * 64}},
)


@pytest.mark.parametrize("change", OTHER_EXPORTS)
def test_what_was_computed_of_an_earlier_export_is_not_published(
    run: Run, busy: Result, build: Path, repository: Repository, change: dict[str, Any]
) -> None:
    del busy
    built = build / "models" / "digits"
    read_card(built).model_copy(update=change).write(built)
    result = run("--kept")
    assert result.exit_code == 1
    assert f"expected a result of the export in {built}, got one of an earlier export" in result.stderr
    assert repository.versions("digits") == (1,)


def test_what_failed_while_it_was_computed_leaves_what_was_kept_before(
    run: Run, busy: Result, lenient: Any, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del busy
    before = read_card(kept)
    with monkeypatch.context() as patch:
        patch.setattr(lenient, "outcomes", lambda *_: (_ for _ in ()).throw(OSError("no")))
        assert run().exit_code == 1
    assert read_card(kept) == before
    assert [path.name for path in kept.parent.iterdir()] == ["kept"]


def test_second_process_that_quantizes_the_model_is_refused_before_it_computes(run: Run, build: Path) -> None:
    with keeping(build, "digits"):
        result = run(computing=False)
    assert result.exit_code == 1
    assert re.search(rf"Error: \S+/quantize/digits: process {os.getpid()} \(.*\) is writing there", result.stderr)
    with keeping(build, "digits"), pytest.raises(FolderBusyError):
        keeping(build, "digits").__enter__()


@pytest.mark.parametrize("option", [["--missing"], ["--search"], ["--exclude", "x"], ["--budget-mb", "1"]])
def test_option_that_computes_does_not_go_with_what_is_kept(run: Run, option: list[str]) -> None:
    result = run("--kept", *option)
    assert result.exit_code == 2
    assert "--kept computes nothing" in result.stderr


def test_graph_that_is_gone_is_nothing_kept(busy: Result, build: Path, kept: Path) -> None:
    del busy
    shutil.move(kept / "model.onnx", kept / "moved.onnx")
    with pytest.raises(NothingKeptError, match="nothing is kept there"):
        expect_kept(kept, build / "models" / "digits")


@pytest.mark.parametrize("change", OTHER_EXPORTS)
def test_missing_quantizes_what_is_another_export(
    run: Run, repository: Repository, build: Path, change: dict[str, Any]
) -> None:
    assert run().exit_code == 0
    assert run("--missing", computing=False).exit_code == 0
    built = build / "models" / "digits"
    read_card(built).model_copy(update=change).write(built)
    assert run("--missing").exit_code == 0
    served = repository.card("digits")
    assert served is not None
    assert served.is_of_export(read_card(built))


@pytest.fixture
def replaced(build: Path, lenient: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have another export take the export's place, and then the first one again, when a function is first called."""
    built = build / "models" / "digits"

    def replaced(function: str) -> None:
        original, calls = getattr(lenient, function), itertools.count()

        def replacing(*args: Any) -> Any:
            for _ in range(2 if next(calls) == 0 else 0):
                shutil.copytree(built, built.with_name("new"))
                shutil.rmtree(built)
                built.with_name("new").rename(built)
            return original(*args)

        monkeypatch.setattr(lenient, function, replacing)

    return replaced


@pytest.mark.parametrize("when", ["calibration", "outcomes"])
def test_nothing_is_kept_where_another_export_was_there_for_a_while(
    run: Run, build: Path, kept: Path, replaced: Callable[[str], None], when: str
) -> None:
    replaced(when)
    result = run()
    assert result.exit_code == 1
    told = f"Error: {build}/models/digits: another process has exported it anew meanwhile; run this again\n"
    assert told in result.stderr
    assert list(kept.parent.iterdir()) == []


def test_recipe_that_was_found_while_another_export_was_there_is_not_published(
    run: Run, repository: Repository, replaced: Callable[[str], None]
) -> None:
    replaced("calibration")
    result = run("--search")
    assert "another process has exported it anew meanwhile; run this again\n" in result.stderr
    assert not repository.serves("digits")


def test_error_of_an_export_that_was_replaced_meanwhile_is_not_told_as_the_models(
    run: Run, lenient: Any, build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> Any:
        shutil.rmtree(build / "models" / "digits")
        raise ValueError("no such tensor")

    monkeypatch.setattr(lenient, "outcomes", failing)
    assert "another process has exported it anew meanwhile; run this again\n" in run().stderr


def test_what_a_server_cannot_load_is_withdrawn_and_kept(
    run: Run, kept: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run().exit_code == 0

    def refuse(*_: Any) -> None:
        raise LoadRefusedError("it does not load")

    with monkeypatch.context() as patch:
        patch.setattr(export.repository.server_load, "load_on_server", refuse)
        result = run("--exclude", "prod*", "--server", "127.0.0.1:1")
    assert result.exit_code == 1
    said = re.search(r"it is withdrawn; what was computed stays in (\S+), and `(.*)` publishes it\n", result.stderr)
    assert said is not None, result.stderr
    assert (said[1], repository.versions("digits")) == (str(kept), (1,))
    # Nobody is there to judge it, and nobody has asked for it.
    measured = read_card(repository.version_folder("digits"))
    measured.as_exported().write(repository.version_folder("digits"))
    result = run("--missing", computing=False)
    assert (result.exit_code, repository.versions("digits")) == (0, (1,))
    assert "a server could not load it, so it is not published unasked, as `fairlane quantize" in result.stderr
    assert "it does not load" in result.stderr
    monkeypatch.setattr(export.repository.server_load, "load_on_server", lambda *_: None)
    result = CliRunner().invoke(command, shlex.split(said[2])[2:])
    assert result.exit_code == 0, result.output
    assert repository.versions("digits") == (1, 2)
    assert list(kept.parent.iterdir()) == []


def test_what_is_published_for_a_server_that_does_not_answer_is_kept_no_longer(
    run: Run, kept: Path, repository: Repository
) -> None:
    result = run("--server", "127.0.0.1:1")
    assert result.exit_code == 1
    assert "it is published all the same\n" in result.stderr
    assert repository.versions("digits") == (1,)
    assert list(kept.parent.iterdir()) == []


@pytest.mark.parametrize("options", [["--kept"], ["--missing"]])
def test_what_was_kept_is_found_where_a_crash_had_put_it_aside(
    run: Run, busy: Result, kept: Path, repository: Repository, options: list[str]
) -> None:
    del busy
    graph = sha256_of(kept / "model.onnx")
    # As between the two renames.
    kept.rename(kept.with_name(".kept.old"))
    shutil.rmtree(repository.folder)
    result = run(*options, computing=False)
    assert result.exit_code == 0, result.output
    assert sha256_of(repository.version_folder("digits") / "model.onnx") == graph
    assert list(kept.parent.iterdir()) == []
