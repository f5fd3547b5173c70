"""The embedded `onnxruntime` backend behind a real tritonserver."""

import asyncio
import os

import numpy as np
import psutil
import pytest
import tritonclient.grpc.aio as aioclient
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from scheduler.cpus import divide
from scheduler.triton.launcher import EmbeddedTriton

GATHER_DELAY_US = 500_000  # long enough for every request of a test to be in one Triton batch
IDENTITIES = {
    "BOOL": np.array([[True, False, True]]),
    "UINT8": np.array([[0, 255]], np.uint8),
    "INT8": np.array([[-128, 127]], np.int8),
    "INT32": np.array([[-(2**31), 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1]], np.int64),
    "FP16": np.array([[0.5, -65504.0, np.inf]], np.float16),
    "FP32": np.array([[1.5, -0.0, np.inf]], np.float32),
    "FP64": np.array([[1e300, -1e-300]], np.float64),
}


@pytest.fixture(scope="module")
def server(triton_factory, new_repository):
    models = new_repository()
    models.add_arithmetic()
    models.add_embedding()
    models.add_embedding("gathering", delay_us=GATHER_DELAY_US)
    for kind in IDENTITIES:
        models.add_identity(f"identity_{kind}", kind)
    models.add_identity("identity_STRING", "STRING")
    models.add_reshaped()
    models.add_slow()
    models.add_identity("unbatched", "FP32", rows=0, dims=[-1, -1])
    models.add_identity("unbatched_STRING", "STRING", rows=0)
    return triton_factory(models)


@pytest.fixture
async def client(server):
    async with aioclient.InferenceServerClient(server.address.grpc) as client:
        yield client


def tensor(name, value, kind):
    made = InferInput(name, list(value.shape), kind)
    made.set_data_from_numpy(value)
    return made


def ids(*rows):
    return [tensor("IDS", np.array(rows, np.int64), "INT64")]


def vectors(*rows):
    return np.array([[[word, 10 * word] for word in row] for row in rows], np.float32)


async def executions(client, model):
    """How many times the model has run, and for how many requests."""
    stats = (await client.get_inference_statistics(model)).model_stats[0]
    return stats.execution_count, stats.inference_stats.success.count + stats.inference_stats.fail.count


@pytest.mark.parametrize("kind", IDENTITIES)
async def test_every_type_comes_back_bit_for_bit(client, kind):
    value = IDENTITIES[kind]
    answer = (await client.infer(f"identity_{kind}", [tensor("IN", value, kind)])).as_numpy("OUT")
    assert answer.dtype == value.dtype
    np.testing.assert_array_equal(answer, value)


@pytest.mark.parametrize("words", [[b"plain", b"", "Grüße, 世界".encode()], [b"nul\0inside", b"x" * 5000, b"\n"]])
@pytest.mark.parametrize("model", ["identity_STRING", "unbatched_STRING"])
async def test_text_comes_back_byte_for_byte(client, model, words):
    value = np.array(words, np.object_)
    value = value if model.startswith("unbatched") else value[np.newaxis]
    answer = (await client.infer(model, [tensor("IN", value, "BYTES")])).as_numpy("OUT")
    assert answer.tolist() == value.tolist()


async def test_bytes_that_are_not_utf8_are_refused_by_name(client):
    value = np.array([[b"fine", b"\xff\xfe"]], np.object_)
    with pytest.raises(InferenceServerException, match="input 'IN': element 1 is not UTF-8"):
        await client.infer("identity_STRING", [tensor("IN", value, "BYTES")])


async def test_unbatched_model_keeps_its_shape(client):
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    answer = await client.infer("unbatched", [tensor("IN", value, "FP32")])
    np.testing.assert_array_equal(answer.as_numpy("OUT"), value)


async def test_only_requested_outputs_come_back(client):
    ones = np.ones((2, 4), np.float32)
    inputs = [tensor("A", ones, "FP32"), tensor("B", ones, "FP32")]
    answer = await client.infer("arithmetic", inputs, outputs=[InferRequestedOutput("DIFFERENCE")])
    assert answer.as_numpy("SUM") is None
    np.testing.assert_array_equal(answer.as_numpy("DIFFERENCE"), 0 * ones)


async def test_concurrent_requests_run_once_and_each_gets_its_rows(client):
    before = await executions(client, "gathering")
    rows = [[[word, 1]] for word in range(4)] + [[[4, 0], [5, 9]]]
    answers = await asyncio.gather(*(client.infer("gathering", ids(*each)) for each in rows))
    for each, answer in zip(rows, answers, strict=True):
        np.testing.assert_array_equal(answer.as_numpy("VECTORS"), vectors(*each))
    after = await executions(client, "gathering")
    assert (after[0] - before[0], after[1] - before[1]) == (1, 5)


async def test_bad_token_id_fails_its_own_request_alone(client):
    before = await executions(client, "gathering")
    rows = [[[1, 2]], [[3, 99]], [[5, 6]], [[7, 8]]]
    answers = await asyncio.gather(*(client.infer("gathering", ids(*each)) for each in rows), return_exceptions=True)
    assert isinstance(answers[1], InferenceServerException)
    assert "idx=99" in str(answers[1])
    assert answers[1].status() == "StatusCode.INVALID_ARGUMENT"
    for index in (0, 2, 3):
        np.testing.assert_array_equal(answers[index].as_numpy("VECTORS"), vectors(*rows[index]))
    assert (await executions(client, "gathering"))[0] - before[0] == 1, "they were one Triton batch"


async def test_lone_bad_token_id_fails_and_the_model_serves_on(client):
    with pytest.raises(InferenceServerException, match="idx=-11"):
        await client.infer("embedding", ids([-11]))
    np.testing.assert_array_equal((await client.infer("embedding", ids([3]))).as_numpy("VECTORS"), vectors([3]))


async def test_inputs_with_different_batch_sizes_are_refused(client):
    inputs = [tensor("A", np.ones((2, 4), np.float32), "FP32"), tensor("B", np.ones((3, 4), np.float32), "FP32")]
    with pytest.raises(InferenceServerException, match=r"(?i)batch|shape"):
        await client.infer("arithmetic", inputs)


async def test_malformed_text_is_refused_by_name_and_the_model_serves_on(client):
    broken = InferInput("IN", [1, 1], "BYTES")
    broken.set_data_from_numpy(np.array([[b"four"]], np.object_))
    broken._raw_content = b"\xff\xff\xff\x7fx"  # says two GiB, has one byte
    good = np.array([[b"good"]], np.object_)
    with pytest.raises(InferenceServerException, match="IN"):
        await client.infer("identity_STRING", [broken])
    answer = await client.infer("identity_STRING", [tensor("IN", good, "BYTES")])
    assert answer.as_numpy("OUT").tolist() == good.tolist()


async def test_no_rows_at_all_are_answered_or_refused_and_the_model_serves_on(client):
    with pytest.raises(InferenceServerException):
        await client.infer("embedding", [tensor("IDS", np.zeros((0, 2), np.int64), "INT64")])
    np.testing.assert_array_equal((await client.infer("embedding", ids([3]))).as_numpy("VECTORS"), vectors([3]))
    empty = await client.infer("embedding", [tensor("IDS", np.zeros((2, 0), np.int64), "INT64")])
    assert empty.as_numpy("VECTORS").shape == (2, 0, 2)


async def test_reshape_of_a_scalar_per_row_is_undone_for_the_client(client):
    value = np.arange(3, dtype=np.float32)[:, np.newaxis]
    answer = (await client.infer("reshaped", [tensor("IN", value, "FP32")])).as_numpy("OUT")
    np.testing.assert_array_equal(answer, value)


async def infer_slow(client, number):
    answer = await client.infer("slow", [tensor("IN", np.array([[number]], np.float32), "FP32")])
    return answer.as_numpy("OUT").item()


async def test_under_load_every_answer_is_of_its_own_request_and_each_runs_once(client):
    # Runs are longer than what lies between them, so that the next batch is read and the last answered while one runs.
    before = await executions(client, "slow")

    async def ask(first):
        return [await infer_slow(client, number) for number in range(first, first + 12)]

    firsts = [100 * which for which in range(4)]
    assert await asyncio.gather(*map(ask, firsts)) == [list(range(first, first + 12)) for first in firsts]
    after = await executions(client, "slow")
    assert (after[0] - before[0], after[1] - before[1]) == (48, 48)


async def test_beside_short_batches_what_reads_and_answers_keeps_off_the_models_cpus(new_repository):
    division = divide(os.sched_getaffinity(0))
    if division is None:
        pytest.skip("one CPU alone is shared")
    models = new_repository()
    models.add_slow(numbers=400_000)  # about a millisecond a run: short, and long enough for the next to lie ready
    triton = EmbeddedTriton(models.path, cpus=division.triton)
    try:
        address = await triton.start()
        children = psutil.Process(triton.pid).children()
        (stub,) = (child.pid for child in children if child.name().startswith("triton_python"))
        assert os.sched_getaffinity(stub) == division.triton.models
        async with aioclient.InferenceServerClient(address.grpc) as client:

            async def ask(number):
                while os.sched_getaffinity(stub) != division.triton.server:
                    assert await infer_slow(client, number) == number

            async with asyncio.timeout(30):
                await asyncio.gather(*map(ask, range(4)))
            assert await infer_slow(client, 7) == 7
        cpus = [os.sched_getaffinity(thread.id) for thread in psutil.Process(stub).threads()]
        assert division.triton.models in cpus  # of what runs the model
    finally:
        await triton.stop(grace_s=0.0)


async def test_a_failed_run_under_load_is_told_to_its_own_client(client):
    async def ask(word):
        return await client.infer("embedding", ids([word]))

    words = [3, 99, 4, -11, 5] * 20
    answers = await asyncio.gather(*map(ask, words), return_exceptions=True)
    for word, answer in zip(words, answers, strict=True):
        if word in {99, -11}:
            assert isinstance(answer, InferenceServerException)
            assert f"idx={word}" in str(answer)
        else:
            np.testing.assert_array_equal(answer.as_numpy("VECTORS"), vectors([word]))


async def test_unloaded_while_one_runs_and_one_waits_each_is_answered(triton_factory, new_repository):
    models = new_repository()
    models.add_slow()
    server = triton_factory(models)
    async with aioclient.InferenceServerClient(server.address.grpc) as client:
        for _ in range(6):  # at once, so that the seventh runs beside `execute`
            await infer_slow(client, 0)
        asked = [asyncio.create_task(infer_slow(client, number)) for number in range(3)]
        assert await asked[0] == 0
        await client.unload_model("slow")
        assert await asyncio.gather(*asked[1:]) == [1, 2]
        with pytest.raises(InferenceServerException):
            await infer_slow(client, 3)
        await client.load_model("slow")
        assert await infer_slow(client, 4) == 4
