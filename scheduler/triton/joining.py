"""Which requests Triton runs as one by itself, and how many of them at a time.

The dynamic batcher and the sequence batcher concatenate what waits for an instance: requests of one model version whose
inputs have the same names, datatypes and shapes beside the batch dimension. A ragged input may have any shape. What
else a request says (parameters, requested outputs, its tenant) does not matter. An ensemble has no batcher of its
own: its requests are joined in each of its parts, and as many executions run as its parts have instances.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from scheduler.triton.spec import ModelSpec

# Ensembles within ensembles, at most; Triton's own have been seen three deep.
MOST_NESTED: Final = 16


def join_key(request: Any, spec: ModelSpec) -> str | None:
    """What a validated `ModelInferRequest` has in common with those that Triton runs it with; None: it runs alone."""
    if not spec.joins:
        return None
    parts = [request.model_version]
    for tensor in request.inputs:
        expected = spec.inputs.get(tensor.name)
        ragged = expected is not None and expected.ragged
        shape = "*" if ragged else ",".join(map(str, tensor.shape[1:]))
        parts.append(f"{tensor.name}:{tensor.datatype}:{shape}")
    return repr(parts)  # not joined: the names are the client's, and may hold any separator


def with_parts(specs: Mapping[str, ModelSpec]) -> dict[str, ModelSpec]:
    """The models of one backend, each ensemble with the instances of its parts; it joins where all of them do."""
    return {name: _of_parts(spec, specs) if spec.parts else spec for name, spec in specs.items()}


def _of_parts(ensemble: ModelSpec, specs: Mapping[str, ModelSpec]) -> ModelSpec:
    leaves = _leaves(ensemble, specs, MOST_NESTED)
    if not leaves:
        return ensemble
    joins = ensemble.max_batch_size > 0 and all(leaf.joins for leaf in leaves)
    return replace(ensemble, instances=sum(leaf.instances for leaf in leaves), joins=joins)


def _leaves(ensemble: ModelSpec, specs: Mapping[str, ModelSpec], depth: int) -> list[ModelSpec]:
    """The models that the ensemble runs, each as often as it does; one that is not loaded is left out."""
    leaves: list[ModelSpec] = []
    for part in ensemble.parts:
        spec = specs.get(part)
        if spec is not None and not spec.parts:
            leaves.append(spec)
        elif spec is not None and depth:
            leaves += _leaves(spec, specs, depth - 1)
    return leaves
