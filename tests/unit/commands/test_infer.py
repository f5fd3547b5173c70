"""`fairlane infer` against a fake server."""

import json
import math
import socket

import grpc
import numpy as np
import pytest
from click.testing import CliRunner
from tritonclient.grpc import service_pb2 as pb

from scheduler.commands.infer import infer
from tests.client.fake_kserve import Answer, Refuse

WIDE = {"COLUMNS": "200"}


def answer(model, output, array):
    array = np.asarray(array, np.float32)
    response = pb.ModelInferResponse(model_name=model, model_version="1", raw_output_contents=[array.tobytes()])
    response.outputs.add(name=output, datatype="FP32", shape=array.shape)
    return Answer(response)


@pytest.fixture
def run(server, repository):
    def invoke(*args, address=server.address):
        options = ["--address", address, "--model-repository", str(repository)]
        return CliRunner().invoke(infer, [*args, *options], env=WIDE)

    return invoke


def tensors(seen):
    return {
        tensor.name: (tensor.datatype, np.frombuffer(raw, {"INT64": "<i8", "FP32": "<f4"}[tensor.datatype]).tolist())
        for tensor, raw in zip(seen.request.inputs, seen.request.raw_input_contents, strict=True)
    }


def test_minilm_prints_every_pair_of_sentences(run, server):
    server.play(answer("minilm", "sentence_embedding", [[2, 0], [3, 4]]))
    result = run("minilm", "--text", "a cat sleeps", "--text", "kitten [b]")
    assert result.exit_code == 0
    assert "kitten [b]" in result.stdout
    rows = [line for line in result.stdout.splitlines() if "0.600" in line]
    assert ["1.000" in row for row in rows] == [True, True]


def test_minilm_sends_tokens_padded_to_the_longest(run, server):
    server.play(answer("minilm", "sentence_embedding", [[1, 0], [1, 0]]))
    run("minilm", "--text", "a cat sleeps", "--text", "kitten", "--priority", "background", "--tenant", "acme")
    seen = server.seen[0]
    assert tensors(seen) == {
        "input_ids": ("INT64", [2, 3, 5, 4, 0, 0]),
        "attention_mask": ("INT64", [1, 1, 1, 1, 0, 0]),
    }
    assert [list(tensor.shape) for tensor in seen.request.inputs] == [[2, 3], [2, 3]]
    assert (seen.metadata["x-priority"], seen.metadata["x-tenant-id"]) == ("background", "acme")
    assert 5 < seen.left_s < 11


def test_minilm_json(run, server):
    server.play(answer("minilm", "sentence_embedding", [[2, 0], [3, 4]]))
    told = json.loads(run("minilm", "--text", "cat", "--text", "kitten", "--json").stdout)
    assert (told["model"], told["version"], told["attempts"]) == ("minilm", "1", 1)
    assert told["sentences"] == ["cat", "kitten"]
    assert np.allclose(told["similarity"], [[1, 0.6], [0.6, 1]])


def test_digits_prints_what_was_seen_beside_the_truth(run, server):
    logits = np.zeros((2, 10))
    logits[0, 7] = logits[1, 5] = math.log(9)  # nine against nine ones: half
    server.play(answer("digits", "logits", logits))
    result = run("digits", "--sample", "0", "--sample", "2")
    assert result.exit_code == 0
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "%" in line]
    assert cells == [["0", "7", "7", "50.0%"], ["2", "3", "5", "50.0%"]]


def test_digits_sends_the_samples_of_the_highest_version(run, server):
    server.play(answer("digits", "logits", np.eye(1, 10)))
    run("digits", "--sample", "1")
    assert tensors(server.seen[0]) == {"image": ("FP32", [float(value) for value in range(64, 128)])}
    assert list(server.seen[0].request.inputs[0].shape) == [1, 1, 8, 8]


def test_digits_json(run, server):
    server.play(answer("digits", "logits", np.full((1, 10), 3.0)))
    told = json.loads(run("digits", "--sample", "1", "--json").stdout)
    assert told["samples"] == [{"sample": 1, "label": 1, "predicted": 0, "confidence": pytest.approx(0.1)}]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["resnet"], "MODEL: expected minilm or digits, which have a demo input; got 'resnet'"),
        (["minilm"], 'minilm: expected at least one --text, for example --text "a cat on the sofa"'),
        (["digits"], "digits: expected at least one --sample, for example --sample 7"),
        (["minilm", "--sample", "1"], "minilm: expected --text; got --sample"),
        (["digits", "--sample", "1", "--text", "a"], "digits: expected --sample; got --text"),
        (["digits", "--sample", "3"], "--sample: expected a number from 0 to 2; got 3"),
        (["digits", "--sample", "-1"], "--sample: expected a number from 0 to 2; got -1"),
    ],
)
def test_wrong_use_says_what_is_expected(run, server, args, message):
    result = run(*args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert server.seen == []


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (
            Refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue\nfull", 60_000),
            "has no room: queue full; come back in 60 s",
        ),
        (Refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", -1), "has no room: full; it named no time to come back"),
        (Refuse(grpc.StatusCode.UNAVAILABLE, "draining"), "can not serve now: draining"),
        (Refuse(grpc.StatusCode.NOT_FOUND, "unknown model 'digits'"), "NOT_FOUND: unknown model 'digits'"),
        (Refuse(grpc.StatusCode.INTERNAL, "digits: boom"), "INTERNAL: digits: boom"),
    ],
)
def test_refusal_is_one_line_on_stderr(run, server, refusal, message):
    server.play(refusal)
    result = run("digits", "--sample", "1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.endswith(f"{message}\n")
    assert result.stderr.count("\n") == 1


def test_nothing_there_says_how_to_start_it(run):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        result = run("digits", "--sample", "1", address=address)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"nothing answers at {address}; start the server with `make serve`" in result.stderr


@pytest.mark.parametrize(
    ("gone", "message"),
    [("minilm/1/tokenizer.json", "tokenizer.json: expected this file"), ("minilm/1", "expected a version folder")],
)
def test_missing_files_are_named(run, repository, gone, message):
    (repository / "minilm/1/tokenizer.json").unlink()
    if gone == "minilm/1":
        (repository / gone).rmdir()
    result = run("minilm", "--text", "a")
    assert result.exit_code == 1
    assert message in result.stderr
    assert "make models" in result.stderr


def test_address_comes_from_the_environment(server, repository):
    server.play(answer("digits", "logits", np.eye(1, 10)))
    args = ["digits", "--sample", "0", "--model-repository", str(repository)]
    assert CliRunner().invoke(infer, args, env={**WIDE, "FAIRLANE_ADDRESS": server.address}).exit_code == 0
    assert len(server.seen) == 1
