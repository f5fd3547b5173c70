"""Which models merge, as their configuration has it."""

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from scheduler.triton.spec import spec_from_config

RAGGED = 'input [{ name: "X" data_type: TYPE_FP32 dims: [-1] allow_ragged_batch: true }]'
COUNT = 'batch_input [{ kind: BATCH_ELEMENT_COUNT target_name: "N" data_type: TYPE_FP32 source_input: "X" }]'
SCATTER = 'batch_output [{ target_name: "Y" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "X" }]'


@pytest.mark.parametrize(
    ("text", "merges"),
    [
        ("max_batch_size: 8", True),
        ("max_batch_size: 0", False),
        ("max_batch_size: 8 dynamic_batching { }", True),
        ("max_batch_size: 8 sequence_batching { }", False),
        ("max_batch_size: 8 ensemble_scheduling { }", False),
        ("max_batch_size: 8 model_transaction_policy { decoupled: true }", False),
        (f"max_batch_size: 8 {RAGGED}", True),
        (f"max_batch_size: 8 {RAGGED} {COUNT}", False),
        (f"max_batch_size: 8 {RAGGED} {SCATTER}", False),
    ],
)
def test_rows_of_different_requests_may_go_as_one(text: str, merges: bool) -> None:
    config = text_format.Parse(f'name: "m" {text}', model_config_pb2.ModelConfig())
    assert spec_from_config(config, ("1",)).mergeable is merges
