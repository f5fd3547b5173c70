import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto

import export.filesystem.folder_lock
import quantize.recipe_choice
import quantize.tasks.task_loading
from export.card import read_card
from export.graph.onnx_graph import write_graph
from export.repository.repository import Repository
from quantize.cli import quantize as command
from quantize.cli import quantize_report
from quantize.searching.sensitivity import sensitivities
from tests.export.filesystem.lock_holder import Clock, held, let_go
from tests.quantize.conftest import two_layers

Run = Callable[..., Result]


@pytest.fixture
def run(build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `fairlane quantize` with a task on the tiny model."""
    places = ["--build-dir", str(build), "--model-repository", str(tmp_path / "repository")]

    def invoke(task: Any, *args: str) -> Result:
        monkeypatch.setattr(quantize.tasks.task_loading, "load_task", lambda *_: task)
        return CliRunner().invoke(command, [*places, *args, "digits"])

    return invoke


def quantized(result: Result) -> bool:
    return bool(json.loads(result.stdout)[0]["quantized"])


def test_table_shows_size_latency_and_accuracy_of_both(run: Run, lenient: Any) -> None:
    result = run(lenient)
    assert result.exit_code == 0, result.output
    for text in ("FP32", "INT8", "size, MB", "latency 1, ms", "latency 8, ms", "times faster", "closeness"):
        assert text in result.stdout


def test_json_is_all_there_is_on_standard_output(run: Run, lenient: Any) -> None:
    (row,) = json.loads(run(lenient, "--json").stdout)
    assert (row["model"], row["quantized"]) == ("digits", True)
    assert row["card"]["quantization"]["int8"]["scores"]["closeness"] > 0.9


def test_refusal_exits_non_zero_and_says_by_how_much(run: Run, strict: Any, tmp_path: Path) -> None:
    result = run(strict)
    assert result.exit_code == 1
    assert "digits: INT8 refused, FP32 is served instead" in result.stderr
    assert "short by 0.50" in result.stderr
    assert Repository(tmp_path / "repository").serves("digits")


def test_search_tries_every_candidate_and_publishes_the_fastest_that_passes(
    run: Run, lenient: Any, build: Path, tmp_path: Path
) -> None:
    result = run(lenient, "--search")
    assert result.exit_code == 0, result.output
    for text in ("static", "per-token", "Pareto", "of 2 recipes that pass the gate, of 2 tried"):
        assert text in result.stderr
    card = Repository(tmp_path / "repository").card("digits")
    assert card is not None
    assert card.quantization is not None
    assert "of 2 recipes that pass" in card.quantization.choice
    assert (build / "quantize" / "digits-search.png").read_bytes().startswith(b"\x89PNG")


def test_excluded_layer_is_in_the_card_and_stays_in_fp32(run: Run, lenient: Any, tmp_path: Path) -> None:
    (row,) = json.loads(run(lenient, "--exclude", "prod*", "--json").stdout)
    assert row["card"]["quantization"]["recipe"].endswith("FP32: prod*")
    served = onnx.load(Repository(tmp_path / "repository").version_folder("digits") / "model.onnx")
    types = {tuple(one.dims): one.data_type for one in served.graph.initializer}
    assert (types[16, 256], types[256, 4]) == (TensorProto.FLOAT, TensorProto.INT8)


def test_layer_that_does_not_exist_is_an_error_that_names_those_that_do(run: Run, lenient: Any) -> None:
    result = run(lenient, "--exclude", "fc1")
    assert result.exit_code == 1
    assert "exclude 'fc1': expected a pattern that matches a layer, of product" in result.stderr


def test_budget_leaves_the_dearest_layers_in_fp32_that_it_has_room_for(run: Run, lenient: Any, build: Path) -> None:
    # In FP32 one has 16 kB and the other 4.
    write_graph(two_layers(256), build / "models" / "digits" / "fp32.onnx")
    result = run(lenient, "--budget-mb", "0.014", "--json")
    assert result.exit_code == 0, repr(result.exception) + result.output
    (row,) = json.loads(result.stdout)
    assert row["card"]["quantization"]["choice"].startswith("1 of 2 layers in FP32")


@pytest.mark.parametrize("saved_bytes", [0, None])
def test_budget_is_kept_where_layers_cost_more_in_company_than_alone(
    run: Run, lenient: Any, build: Path, monkeypatch: pytest.MonkeyPatch, saved_bytes: int | None
) -> None:
    write_graph(two_layers(256), build / "models" / "digits" / "fp32.onnx")

    def misjudged(*args: Any) -> Any:
        found = sensitivities(*args)
        return found if saved_bytes is None else [one.model_copy(update={"saved_bytes": saved_bytes}) for one in found]

    monkeypatch.setattr(quantize.recipe_choice, "sensitivities", misjudged)
    result = run(lenient, "--budget-mb", "0.014", "--json")
    assert result.exit_code == 0, repr(result.exception) + result.output
    (row,) = json.loads(result.stdout)
    assert row["card"]["quantization"]["int8"]["size_bytes"] <= 14_000
    assert len(row["card"]["quantization"]["recipe"].split("FP32: ")) == 1 + (saved_bytes is None)


@pytest.mark.parametrize(
    ("budget_mb", "told"),
    [
        ("0.000001", r"--budget-mb: expected 0\.\d+ or more, as all of digits in INT8 takes, got 1e-06"),
        ("1", r"--budget-mb: expected less than 0\.\d+, as all of digits in FP32 takes, got 1"),
        ("nan", "nan is not"),
    ],
)
def test_budget_that_cannot_be_kept_is_refused(
    run: Run, lenient: Any, tmp_path: Path, budget_mb: str, told: str
) -> None:
    result = run(lenient, "--budget-mb", budget_mb)
    assert result.exit_code > 0
    assert re.search(told, result.stderr), result.output
    assert not Repository(tmp_path / "repository").serves("digits")


def test_truncated_export_is_an_error_that_names_file_and_reason(run: Run, lenient: Any, build: Path) -> None:
    path = build / "models" / "digits" / "fp32.onnx"
    path.write_bytes(path.read_bytes()[:-200])
    result = run(lenient)
    assert result.exit_code == 1
    assert f"{path}: not an ONNX file, or cut off" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_report_is_one_file_with_its_plots_inside(
    run: Run, lenient: Any, build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(lenient, "--search")
    monkeypatch.setattr(quantize.tasks.task_loading, "load_task", lambda *_: lenient)
    output = tmp_path / "report" / "report.html"
    places = ["--build-dir", str(build), "--model-repository", str(tmp_path / "repository"), "--output", str(output)]
    result = CliRunner().invoke(quantize_report, [*places, "digits"])
    assert result.exit_code == 0, result.output
    page = output.read_text()
    for title in ("size", "latency", "accuracy", "cosines", "search", "layers"):
        assert f'<img alt="{title}" src="data:image/png;base64,' in page
        assert (output.parent / f"digits-{title}.png").read_bytes().startswith(b"\x89PNG")
    assert "http" not in page
    assert "closeness" in page


def test_report_on_a_search_that_cannot_be_read_is_one_line_that_names_the_file(
    run: Run, lenient: Any, build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(lenient)
    monkeypatch.setattr(quantize.tasks.task_loading, "load_task", lambda *_: lenient)
    search = build / "quantize" / "digits-search.json"
    search.write_text('[{"name": "cut off')
    places = ["--build-dir", str(build), "--model-repository", str(tmp_path / "repository")]
    result = CliRunner().invoke(quantize_report, [*places, "--output", str(tmp_path / "report.html"), "digits"])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {search} is not what a search left: ")
    assert not (tmp_path / "report.html").exists()


def test_report_on_a_model_that_was_not_quantized_says_what_to_run(tmp_path: Path) -> None:
    places = ["--model-repository", str(tmp_path / "repository"), "--output", str(tmp_path / "report.html")]
    result = CliRunner().invoke(quantize_report, [*places, "digits"])
    assert result.exit_code == 1
    assert "digits has not been quantized: run `fairlane quantize digits` first" in result.stderr
    assert not (tmp_path / "report.html").exists()


def test_missing_serves_a_refused_model_and_does_not_try_again(run: Run, strict: Any) -> None:
    first = run(strict, "--missing", "--json")
    again = run(strict, "--missing", "--json")
    assert (first.exit_code, quantized(first)) == (0, True)
    assert (again.exit_code, quantized(again)) == (0, False)
    assert "INT8 refused" in again.stderr


def test_missing_skips_a_quantized_model(run: Run, lenient: Any) -> None:
    run(lenient)
    assert not quantized(run(lenient, "--missing", "--json"))


def test_missing_quantizes_what_is_served_as_a_plain_export(
    run: Run, lenient: Any, build: Path, tmp_path: Path
) -> None:
    built = build / "models" / "digits"
    Repository(tmp_path / "repository").publish(read_card(built), built / "fp32.onnx", built)
    assert quantized(run(lenient, "--missing", "--json"))


def test_missing_quantizes_again_after_a_new_export(run: Run, lenient: Any, build: Path) -> None:
    run(lenient)
    built = build / "models" / "digits"
    read_card(built).model_copy(update={"fp32_sha256": "f" * 64, "quantization": None}).write(built)
    assert quantized(run(lenient, "--missing", "--json"))


def test_missing_replaces_a_model_whose_card_cannot_be_read(run: Run, lenient: Any, tmp_path: Path) -> None:
    run(lenient)
    (Repository(tmp_path / "repository").version_folder("digits") / "model_card.json").write_text("{}")
    assert quantized(run(lenient, "--missing", "--json"))


def test_missing_leaves_a_model_that_somebody_else_put_there(run: Run, lenient: Any, tmp_path: Path) -> None:
    version = tmp_path / "repository" / "digits" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_text("mine")
    assert not quantized(run(lenient, "--missing", "--json"))
    assert (version / "model.onnx").read_text() == "mine"


def test_model_without_an_export_is_an_error_in_one_line(run: Run, lenient: Any, build: Path) -> None:
    (build / "models" / "digits" / "model_card.json").unlink()
    result = run(lenient)
    assert result.exit_code == 1
    assert "run `fairlane export digits` first" in result.stderr
    assert "Traceback" not in result.stderr


def test_repository_that_cannot_be_written_is_one_line(
    build: Path, lenient: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize.tasks.task_loading, "load_task", lambda *_: lenient)
    places = ["--build-dir", str(build), "--model-repository", "/proc/nowhere"]
    result = CliRunner().invoke(command, [*places, "digits"])
    assert result.exit_code == 1
    assert "Error: [Errno 2] No such file or directory: '/proc/nowhere'" in result.stderr


def test_configuration_that_the_export_does_not_fit_is_named_before_anything_is_quantized(
    run: Run, lenient: Any, tmp_path: Path
) -> None:
    run(lenient)
    config = tmp_path / "repository" / "digits" / "config.pbtxt"
    config.write_text(config.read_text().replace("dims: [4]", "dims: [5]"))
    result = run(lenient, "--exclude", "prod*")
    assert result.exit_code == 1
    assert "output 'y': it says dims [5], the graph has [4]" in " ".join(result.stderr.split())
    assert Repository(tmp_path / "repository").versions("digits") == (1,)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of those who wait for a lock."""
    clock = Clock()
    monkeypatch.setattr(export.filesystem.folder_lock, "time", clock)
    return clock


def test_what_was_computed_waits_for_the_process_that_has_the_model(
    run: Run, lenient: Any, tmp_path: Path, clock: Clock
) -> None:
    run(lenient)
    with held(tmp_path / "repository" / "digits") as holder:
        clock.meanwhile = lambda: let_go(holder)
        result = run(lenient, "--search", "--exclude", "prod*")
    assert result.exit_code == 0, result.output
    assert result.stderr.count(f"digits: waiting for process {holder.pid} (") == 1
    assert Repository(tmp_path / "repository").versions("digits") == (1, 2)


def test_process_that_never_ends_is_named_and_what_was_served_stays(
    run: Run, lenient: Any, tmp_path: Path, clock: Clock
) -> None:
    run(lenient)
    with held(tmp_path / "repository" / "digits") as holder:
        result = run(lenient, "--exclude", "prod*")
    assert result.exit_code == 1
    assert re.search(rf"\nError: \S+/digits: process {holder.pid} \(.*\) is writing there; wait for it", result.stderr)
    assert clock.now > 0
    assert Repository(tmp_path / "repository").versions("digits") == (1,)


def test_configuration_that_came_while_waiting_is_looked_at_again(
    run: Run, lenient: Any, tmp_path: Path, clock: Clock
) -> None:
    run(lenient)
    config = tmp_path / "repository" / "digits" / "config.pbtxt"
    with held(config.parent) as holder:

        def change() -> None:
            config.write_text(config.read_text().replace("dims: [4]", "dims: [5]"))
            let_go(holder)

        clock.meanwhile = change
        result = run(lenient, "--exclude", "prod*")
    assert result.exit_code == 1
    assert "output 'y': it says dims [5], the graph has [4]" in " ".join(result.stderr.split())
    assert Repository(tmp_path / "repository").versions("digits") == (1,)
