"""config.pbtxt is what the definition says, what Triton reads, and what is committed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

import export.configuration.model_config
from export.catalog.catalog import MODEL_NAMES, load_definition
from export.configuration.model_config import ConfigError, config_text, parse_config, write_config
from export.definition import Definition, Serving, Tensor
from export.graph.onnx_graph import check_tensors
from export.repository.repository import DEFAULT_REPOSITORY, Repository

ROOT = Path(__file__).parents[3]
REPOSITORY = Repository(ROOT / DEFAULT_REPOSITORY)


@pytest.fixture(params=MODEL_NAMES)
def definition(request: pytest.FixtureRequest) -> Definition:
    return load_definition(request.param)


def test_committed_configuration_is_what_is_generated(definition: Definition) -> None:
    assert (REPOSITORY.folder / definition.name / "config.pbtxt").read_text() == config_text(definition)


def test_inputs_and_outputs_are_those_of_the_graphs(definition: Definition) -> None:
    built = ROOT / "build" / "models" / definition.name / "fp32.onnx"
    for path in (built, REPOSITORY.version_folder(definition.name) / "model.onnx"):
        check_tensors(onnx.load(path), definition.inputs, definition.outputs, path.name)


def test_configuration_holds_nothing_that_stalls_the_batcher(definition: Definition) -> None:
    config = parse_config(config_text(definition), "generated")
    assert (config.name, config.backend) == (definition.name, "onnxruntime")
    # Plain: priorities, timeouts, queue limits and delays belong to the scheduler.
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.ByteSize() == 0
    assert config.version_policy.latest.num_versions == 1


def test_warm_up_feeds_every_input_and_reaches_the_largest_batch(definition: Definition) -> None:
    config = parse_config(config_text(definition), "generated")
    for warm_up in config.model_warmup:
        assert set(warm_up.inputs) == {one.name for one in config.input}
        for one in config.input:
            assert warm_up.inputs[one.name].data_type == one.data_type
    assert [warm_up.batch_size for warm_up in config.model_warmup] == [1, config.max_batch_size]


@pytest.mark.parametrize(("target", "kind"), [("cpu", 2), ("cuda", 1), ("tensorrt", 1)])
def test_target_decides_where_instances_run(tiny: Definition, target: Any, kind: int) -> None:
    config = parse_config(config_text(replace(tiny, serving=Serving(instances=3)), target), "generated")
    assert [(group.count, group.kind) for group in config.instance_group] == [(3, kind)]
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    found = [(one.name, dict(one.parameters)) for one in accelerators]
    assert found == ([("tensorrt", {"precision_mode": "INT8"})] if target == "tensorrt" else [])


def test_model_without_a_batch_axis_is_not_batched(tiny: Definition) -> None:
    unbatched = replace(tiny, inputs=(Tensor("x", "FP32", ("n", 3)),), outputs=(Tensor("y", "FP32", ("n", 3)),))
    config = parse_config(config_text(unbatched), "generated")
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert [list(one.dims) for one in config.input] == [[-1, 3]]
    assert [(one.batch_size, list(one.inputs["x"].dims)) for one in config.model_warmup] == [(0, [1, 3])]


def test_typo_is_refused_with_file_and_line() -> None:
    with pytest.raises(ConfigError, match=r"m/config.pbtxt: .* line 2:1 .*no field named \"max_batchsize\""):
        parse_config('name: "m"\nmax_batchsize: 1', Path("m/config.pbtxt"))


def test_text_that_reads_back_as_something_else_is_never_written(
    tiny: Definition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(export.configuration.model_config.COMMENTS, "dynamic_batching", "max_batch_size: 4\n")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"does not read back|not a model configuration"):
        config_text(tiny)


def test_number_per_row_is_a_vector_of_one_to_clients(tiny: Definition) -> None:
    scalar = replace(tiny, outputs=(Tensor("y", "FP32", ("batch",)),))
    output = parse_config(config_text(scalar), "generated").output[0]
    assert (list(output.dims), output.HasField("reshape"), list(output.reshape.shape)) == ([1], True, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size: -1", "max_batch_size: expected 0 or more, got -1"),
        ('input { name: "x" dims: 3 }', "input 'x': expected a data_type, got none"),
        ('output { name: "y" data_type: TYPE_FP32 }', r"output 'y': expected dims of -1 or more than 0, got \[\]"),
        ('input { name: "x" data_type: TYPE_FP32 dims: [2, 0] }', r"input 'x': expected dims .*, got \[2, 0\]"),
        ('input { name: "x" data_type: TYPE_FP32 dims: -2 }', r"input 'x': expected dims .*, got \[-2\]"),
    ],
)
def test_what_triton_refuses_without_a_reason_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"m/config.pbtxt: not a model configuration that Triton takes: {message}"):
        parse_config(text, "m/config.pbtxt")


def test_labels_of_an_output_whose_name_is_a_path_lie_beside_the_configuration(
    tiny: Definition, tmp_path: Path
) -> None:
    for name in ("head/y", "../y"):
        labelled = replace(
            tiny, outputs=(Tensor(name, "FP32", ("batch", 3)),), serving=Serving(labels={name: ("a", "b", "c")})
        )
        write_config(labelled, "cpu", tmp_path)
        (output,) = parse_config((tmp_path / "config.pbtxt").read_text(), "written").output
        assert (tmp_path / output.label_filename).read_text() == "a\nb\nc\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "..%2Fy_labels.txt",
        "config.pbtxt",
        "head%2Fy_labels.txt",
    ]
