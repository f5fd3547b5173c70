"""The identity model: what Triton and its Python stub cost without a model, told apart from what a backend adds.

It has the inputs, outputs, batching and instances of another model, and computes nothing: it is handed the inputs and
answers with outputs of the same size that were there before. Triton runs the file beside it, `identity_model.py`.
"""

import shutil
from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format

SUFFIX: Final = "_identity"
LENGTH: Final = "open_axis_length"
MODEL_PY: Final = Path(__file__).with_name("identity_model.py")


def add_identity(repository: Path, config: Any, length: int) -> str:
    """Put the identity model of a model into a repository.

    Args:
        repository: where the model lies.
        config: its ModelConfig message.
        length: size of the outputs' axes that vary.

    Returns:
        The name of the identity model.
    """
    made = type(config)(name=config.name + SUFFIX, backend="python", max_batch_size=config.max_batch_size)
    for slots, others in ((made.input, config.input), (made.output, config.output)):
        for other in others:
            slots.add(name=other.name, data_type=other.data_type, dims=other.dims)
    made.instance_group.extend(config.instance_group)
    if config.HasField("dynamic_batching"):
        made.dynamic_batching.CopyFrom(config.dynamic_batching)
    made.parameters[LENGTH].string_value = str(length)
    version = repository / made.name / "1"
    version.mkdir(parents=True)
    shutil.copy(MODEL_PY, version / "model.py")
    version.with_name("config.pbtxt").write_text(text_format.MessageToString(made))
    return str(made.name)
