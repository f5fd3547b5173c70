"""The embedded onnxruntime backend without Triton: options, checks at load, batches at run."""

import re

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

VECTOR = ("TYPE_FP32", [3])
WORDS = ("TYPE_INT64", [-1])


def parameters(**values):
    return {"parameters": {key: {"string_value": value} for key, value in values.items()}}


@pytest.fixture
def request_of(backend):
    return lambda wanted, **inputs: backend.pb_utils.InferenceRequest(inputs, wanted)


class CountedSession:
    """A session that notes the feeds of every run."""

    def __init__(self, session):
        self.session, self.runs = session, []

    def run(self, wanted, feeds, options):
        self.runs.append((wanted, feeds))
        return self.session.run(wanted, feeds, options)


@pytest.fixture
def scale(load):
    """TWICE = 2 X and THRICE = 3 X, with its runs counted."""
    nodes = [
        helper.make_node("Add", ["X", "X"], ["TWICE"]),
        helper.make_node("Add", ["TWICE", "X"], ["THRICE"]),
    ]
    model = load(nodes, {"X": ("TYPE_FP32", [-1])}, {"TWICE": ("TYPE_FP32", [-1]), "THRICE": ("TYPE_FP32", [-1])})
    model.session = CountedSession(model.session)
    return model


@pytest.fixture
def lookup(load):
    """Y = table[IDS] over a vocabulary of four."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [4], [0.0, 10.0, 20.0, 30.0])
    nodes = [helper.make_node("Gather", ["table", "IDS"], ["Y"])]
    model = load(nodes, {"IDS": WORDS}, {"Y": ("TYPE_FP32", [-1])}, constants=[table])
    model.session = CountedSession(model.session)
    return model


def test_options_default_to_one_thread_sequential_all_optimizations(backend):
    options = backend.session_options({})
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.execution_mode == ort.ExecutionMode.ORT_SEQUENTIAL
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL


def test_options_follow_the_models_parameters(backend):
    config = parameters(intra_op_thread_count="3", inter_op_thread_count="2", execution_mode="1")
    options = backend.session_options(config)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 2)
    assert options.execution_mode == ort.ExecutionMode.ORT_PARALLEL


@pytest.mark.parametrize(
    ("level", "name"),
    [(-1, "ORT_ENABLE_BASIC"), (0, "ORT_ENABLE_ALL"), (1, "ORT_ENABLE_EXTENDED"), (2, "ORT_DISABLE_ALL")],
)
def test_graph_level_has_nvidias_meaning(backend, level, name):
    options = backend.session_options({"optimization": {"graph": {"level": level}}})
    assert options.graph_optimization_level == getattr(ort.GraphOptimizationLevel, name)


@pytest.mark.parametrize(("value", "meant"), [("1", True), ("On", True), ("false", False), (" 0 ", False)])
def test_memory_options_follow_the_models_parameters(backend, value, meant):
    options = backend.session_options(parameters(enable_mem_arena=value, enable_mem_pattern=value))
    assert (options.enable_cpu_mem_arena, options.enable_mem_pattern) == (meant, meant)
    unsaid = backend.session_options({})
    assert (unsaid.enable_cpu_mem_arena, unsaid.enable_mem_pattern) == (True, True)


def test_keys_of_onnxruntime_itself_are_handed_on(backend):
    allocator, shrinkage = "session.use_device_allocator_for_initializers", "memory.enable_memory_arena_shrinkage"
    options = backend.session_options(parameters(**{allocator: "1"}))
    assert options.get_session_config_entry(allocator) == "1"
    assert backend.run_options(parameters(**{shrinkage: "cpu:0"})).get_run_config_entry(shrinkage) == "cpu:0"
    assert backend.run_options({}) is None


def test_run_with_options_answers_alike(load, request_of):
    config = parameters(**{"memory.enable_memory_arena_shrinkage": "cpu:0"})
    model = load(IDENTITY, {"X": VECTOR}, {"Y": VECTOR}, **config)
    (answer,) = model.execute([request_of(["Y"], X=np.ones((1, 3), np.float32))])
    assert answer.outputs["Y"].tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("enable_mem_arena", "2"),
        ("enable_mem_pattern", "yes"),
        ("intra_op_thread_count", "-1"),
        ("inter_op_thread_count", "two"),
        ("execution_mode", "2"),
    ],
)
def test_wrong_parameter_is_named_with_its_value(backend, parameter, value):
    with pytest.raises(backend.ModelError, match=f"{parameter}: expected .*{value}"):
        backend.session_options(parameters(**{parameter: value}))


IDENTITY = [helper.make_node("Identity", ["X"], ["Y"])]


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ({"graph_inputs": {"X": ("TYPE_FP32", [4])}}, r"input 'X': config.pbtxt says dims \[3\], the graph has \[4\]"),
        ({"graph_inputs": {"X": ("TYPE_FP32", [3, 3])}}, r"says dims \[3\], the graph has \[3, 3\]"),
        (
            {"output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [4]}]},
            r"output 'Y': .* \[4\], the graph has \[3\]",
        ),
        ({"batch": [2]}, "needs a free first axis, the graph fixes it to 2"),
        ({"graph_inputs": {"X": VECTOR, "Z": VECTOR}}, r"input \['Z'\] of the graph not in config.pbtxt"),
        ({"input": [{"name": "X", "data_type": "TYPE_BF16", "dims": [3]}]}, "TYPE_BF16"),
        (
            {"input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [3], "reshape": {"shape": ["3", "1"]}}]},
            r"says dims \[3, 1\], the graph has \[3\]",
        ),
        (
            {"input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [3], "optional": True}]},
            r"input \['X'\]: optional in config.pbtxt, and the graph has no value",
        ),
        ({"default_model_filename": "other.onnx"}, r"other\.onnx"),
        ({"output": []}, "config.pbtxt has no output"),
    ],
)
def test_mismatch_at_load_names_the_file_and_the_difference(backend, load, graph, message):
    with pytest.raises(backend.ModelError, match=rf"\.onnx: .*{message}"):
        load(IDENTITY, {"X": VECTOR}, {"Y": VECTOR}, **graph)


def test_a_batch_of_equal_shapes_is_one_run_split_by_rows(scale, request_of):
    parts = [np.full((rows, 2), rows, np.float32) for rows in (1, 3, 2)]
    answers = scale.execute([request_of(["TWICE"], X=part) for part in parts])
    assert len(scale.session.runs) == 1
    for part, response in zip(parts, answers, strict=True):
        np.testing.assert_array_equal(response.outputs["TWICE"], 2 * part)


def test_shapes_that_differ_are_one_run_each_and_answers_keep_their_order(scale, request_of):
    parts = [np.full((1, width), index, np.float32) for index, width in enumerate([2, 3, 2, 3, 4])]
    answers = scale.execute([request_of(["TWICE"], X=part) for part in parts])
    assert len(scale.session.runs) == 3
    for part, response in zip(parts, answers, strict=True):
        np.testing.assert_array_equal(response.outputs["TWICE"], 2 * part)


def test_each_gets_the_outputs_it_asked_for_and_the_rest_is_not_computed_for(scale, request_of):
    part = np.ones((1, 2), np.float32)
    answers = scale.execute([request_of(["TWICE"], X=part), request_of(["THRICE"], X=part)])
    assert [list(response.outputs) for response in answers] == [["TWICE"], ["THRICE"]]
    scale.execute([request_of(["THRICE"], X=part)])
    assert [wanted for wanted, _ in scale.session.runs] == [["TWICE", "THRICE"], ["THRICE"]]


def test_a_lone_request_is_not_copied(scale, request_of):
    part = np.ones((2, 2), np.float32)
    scale.execute([request_of(["TWICE"], X=part)])
    assert scale.session.runs[0][1]["X"] is part


def test_content_that_raises_fails_its_own_request_alone(lookup, request_of):
    rows = [[1], [9], [3]]
    answers = lookup.execute([request_of(["Y"], IDS=np.array([row], np.int64)) for row in rows])
    assert [response.error is None for response in answers] == [True, False, True]
    assert "idx=9" in answers[1].error.message
    assert answers[1].error.code == "INVALID_ARG"
    assert [float(answers[index].outputs["Y"][0, 0]) for index in (0, 2)] == [10.0, 30.0]
    assert len(lookup.session.runs) == 4, "once together, then each alone"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((1, 2), np.int32), "input 'IDS': expected TYPE_INT64, got int32"),
        (np.zeros((1, 2, 2), np.int64), r"input 'IDS': expected shape \['batch', -1\], got \[1, 2, 2\]"),
        (np.zeros((), np.int64), r"expected shape .* got \[\]"),
        (ValueError("cannot reshape"), "input 'IDS': expected TYPE_INT64, its bytes do not decode: cannot reshape"),
    ],
)
def test_input_that_does_not_fit_fails_its_own_request_alone(lookup, request_of, bad, message):
    good = np.array([[2]], np.int64)
    first, second, third = lookup.execute([request_of(["Y"], IDS=each) for each in (good, bad, good)])
    assert second.error is not None
    assert re.search(message, second.error.message)
    assert [float(response.outputs["Y"][0, 0]) for response in (first, third)] == [20.0, 20.0]
    assert len(lookup.session.runs) == 1


def test_unknown_and_missing_inputs_are_named(lookup, request_of):
    ids = np.array([[2]], np.int64)
    unknown, missing = lookup.execute([request_of(["Y"], IDS=ids, EXTRA=ids), request_of(["Y"])])
    assert "input 'EXTRA': expected one of ['IDS']" in unknown.error.message
    assert "expected inputs ['IDS'], got []" in missing.error.message


def test_inputs_of_different_batch_sizes_are_refused(load, request_of):
    nodes = [helper.make_node("Add", ["X", "Z"], ["Y"])]
    model = load(nodes, {"X": VECTOR, "Z": VECTOR}, {"Y": VECTOR})
    (response,) = model.execute([request_of(["Y"], X=np.ones((1, 3), np.float32), Z=np.ones((2, 3), np.float32))])
    assert "differ in batch size" in response.error.message
    assert "{'X': 1, 'Z': 2}" in response.error.message


def test_an_output_without_a_row_per_row_fails_instead_of_mixing_requests(load, request_of):
    first_row = helper.make_tensor("first_row", TensorProto.BOOL, [1], [True])
    nodes = [helper.make_node("Compress", ["X", "first_row"], ["Y"], axis=0)]
    model = load(nodes, {"X": VECTOR}, {"Y": VECTOR}, constants=[first_row])
    (alone,) = model.execute([request_of(["Y"], X=np.ones((2, 3), np.float32))])
    assert "expected 2 rows, the model gave shape [1, 3]" in alone.error.message
    parts = [np.full((1, 3), index, np.float32) for index in range(2)]
    together = model.execute([request_of(["Y"], X=part) for part in parts])
    for part, response in zip(parts, together, strict=True):
        np.testing.assert_array_equal(response.outputs["Y"], part)


def test_without_a_batch_axis_every_request_runs_alone(load, request_of):
    model = load(IDENTITY, {"X": VECTOR}, {"Y": VECTOR}, batch=(), max_batch_size=0)
    model.session = CountedSession(model.session)
    parts = [np.full(3, index, np.float32) for index in range(2)]
    answers = model.execute([request_of(["Y"], X=part) for part in parts])
    assert len(model.session.runs) == 2
    for part, response in zip(parts, answers, strict=True):
        np.testing.assert_array_equal(response.outputs["Y"], part)


def test_text_is_decoded_and_what_is_not_utf8_fails_its_own_request(load, request_of):
    model = load(IDENTITY, {"X": ("TYPE_STRING", [2])}, {"Y": ("TYPE_STRING", [2])})
    good = np.array([["Grüße".encode(), b"\0"]], np.object_)
    bad = np.array([[b"ok", b"\xff"]], np.object_)
    first, second = model.execute([request_of(["Y"], X=good), request_of(["Y"], X=bad)])
    assert first.outputs["Y"].tolist() == [["Grüße", "\0"]]
    assert "input 'X': element 1 is not UTF-8" in second.error.message


def test_gpu_instance_without_cuda_is_refused_and_not_run_on_the_cpu(backend):
    with pytest.raises(backend.ModelError, match="KIND_GPU: expected CUDAExecutionProvider, this onnxruntime has"):
        backend.provider("GPU")


def test_reshaped_input_is_held_to_the_shape_that_the_graph_takes(load, request_of):
    entry = {"name": "X", "data_type": "TYPE_FP32", "dims": [3], "reshape": {"shape": ["1", "3"]}}
    model = load(IDENTITY, {"X": ("TYPE_FP32", [1, 3])}, {"Y": ("TYPE_FP32", [1, 3])}, input=[entry])
    good, bad = model.execute([request_of(["Y"], X=np.ones(shape, np.float32)) for shape in ((2, 1, 3), (2, 3))])
    assert good.outputs["Y"].shape == (2, 1, 3)
    assert "expected shape ['batch', 1, 3], got [2, 3]" in bad.error.message


def test_optional_input_may_be_left_out_and_requests_with_and_without_do_not_mix(load, request_of):
    default = helper.make_tensor("BY", TensorProto.FLOAT, [1], [10.0])
    tensors = {"X": ("TYPE_FP32", [1]), "BY": ("TYPE_FP32", [1])}
    entries = [{"name": name, "data_type": kind, "dims": dims} for name, (kind, dims) in tensors.items()]
    entries[1]["optional"] = True
    nodes = [helper.make_node("Mul", ["X", "BY"], ["Y"])]
    model = load(
        nodes, tensors, {"Y": ("TYPE_FP32", [1])}, batch=(), constants=[default], max_batch_size=0, input=entries
    )
    two = np.full(1, 2, np.float32)
    without, given, missing = model.execute(
        [request_of(["Y"], X=two), request_of(["Y"], X=two, BY=two), request_of(["Y"], BY=two)]
    )
    assert [float(each.outputs["Y"][0]) for each in (without, given)] == [20.0, 4.0]
    assert "expected inputs ['X'], got ['BY']" in missing.error.message


class ModelConfig:
    """What Triton hands to auto_complete_config."""

    def __init__(self, **config):
        self.config = {"max_batch_size": 0, "input": [], "output": []} | config

    def as_dict(self):
        return self.config


@pytest.fixture
def complete(backend, monkeypatch, tmp_path):
    """complete(graph inputs, graph outputs, **config): the configuration, completed from such a graph."""

    def build(inputs, outputs, **config):
        def values(tensors):
            return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in tensors.items()]

        nodes = [helper.make_node("Cast", [next(iter(inputs))], [name], to=kind) for name, (kind, _) in outputs.items()]
        graph = helper.make_graph(nodes, "tiny", values(inputs), values(outputs))
        path = tmp_path / "model.onnx"
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        path.write_bytes(model.SerializeToString())
        monkeypatch.setattr(backend, "model_path", lambda: str(path))
        return backend.TritonPythonModel.auto_complete_config(ModelConfig(**config)).as_dict()

    return build


FLOATS = (TensorProto.FLOAT, ["n", 3])
NUMBERS = (TensorProto.INT64, ["n", "k"])


def test_without_inputs_and_outputs_those_of_the_graph_are_taken_whole(complete):
    config = complete({"X": FLOATS}, {"Y": (TensorProto.INT64, ["n", 3])})
    assert config["max_batch_size"] == 0  # a free first axis need not be a batch
    assert config["input"] == [{"name": "X", "data_type": "TYPE_FP32", "dims": [-1, 3]}]
    assert config["output"] == [{"name": "Y", "data_type": "TYPE_INT64", "dims": [-1, 3]}]


def test_the_first_axis_is_the_batchs_where_the_configuration_says_so(complete):
    config = complete({"X": NUMBERS}, {"Y": (TensorProto.FLOAT, ["n", "k"])}, max_batch_size=8)
    assert [entry["dims"] for entry in (*config["input"], *config["output"])] == [[-1], [-1]]


def test_what_is_declared_stays_and_one_number_has_a_dimension(complete):
    declared = [{"name": "X", "data_type": "TYPE_FP32", "dims": [1], "reshape": {"shape": []}}]
    scalar = {"X": (TensorProto.FLOAT, [])}, {"Y": (TensorProto.FLOAT, [])}
    assert complete(*scalar)["input"] == declared
    assert complete(*scalar, input=declared)["input"] is declared
    whole = {"input": declared, "output": [{"name": "Y"}]}
    assert complete(*scalar, **whole)["output"] == [{"name": "Y"}]


def test_what_cannot_be_completed_is_named(complete, backend):
    with pytest.raises(backend.ModelError, match="'X' has no first axis"):
        complete({"X": (TensorProto.FLOAT, [])}, {"Y": (TensorProto.FLOAT, [])}, max_batch_size=8)
    with pytest.raises(backend.ModelError, match=r"'X' is tensor\(bfloat16\), which Triton cannot pass on"):
        complete({"X": (TensorProto.BFLOAT16, ["n"])}, {"Y": (TensorProto.FLOAT, ["n"])})


def test_triton_tells_of_the_file_on_the_command_line(backend, tmp_path):
    (tmp_path / "cmdline").write_bytes(b"/stub\0/r/m/1/model.onnx\0name\0")
    assert backend.model_path(tmp_path / "cmdline") == "/r/m/1/model.onnx"
