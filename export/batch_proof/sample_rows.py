"""Rows of a definition's samples, for the trials of `independence`."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from export.batch_proof.independence import Kind
from export.definition import Definition
from export.definition.tensor import Array, Feed

# Of one shape, and shapes.
ROWS: Final = 32
SHAPES: Final = 4


def sample_kinds(definition: Definition) -> tuple[Kind, ...]:
    """A kind for each of the first few shapes that rows of the samples have, that of the first sample first.

    In the place of others come rows with the values of samples in another order, too: samples may be one row each.

    Args:
        definition: with a batch axis.
    """
    rows: dict[tuple[tuple[int, ...], ...], list[Feed]] = {}
    for feed in definition.checked("samples", definition.samples()):
        shape = tuple(feed[one.name].shape[1:] for one in definition.inputs)
        if shape not in rows and len(rows) == SHAPES:
            continue
        alike, count = rows.setdefault(shape, []), len(feed[definition.inputs[0].name])
        alike += [{name: value[row] for name, value in feed.items()} for row in range(min(count, ROWS - len(alike)))]
    return tuple(_kind(alike) for alike in rows.values())


def _kind(rows: Sequence[Feed]) -> Kind:
    def draw(count: int, chance: np.random.Generator) -> Feed:
        # Each once before one comes twice.
        order = np.concatenate([chance.permutation(len(rows)) for _ in range(-(-count // len(rows)))])[:count]
        return {name: np.stack([rows[row][name] for row in order]) for name in rows[0]}

    def others(batch: Feed, chance: np.random.Generator) -> Feed:
        copies = chance.integers(0, 4, len(next(iter(batch.values())))) == 0
        return {
            name: np.stack([value[0] if copy else _shuffled(value[row], chance) for row, copy in enumerate(copies)])
            for name, value in batch.items()
        }

    return Kind("the samples", draw, (others,))


def _shuffled(row: Array, chance: np.random.Generator) -> Array:
    return chance.permutation(row.reshape(-1)).reshape(row.shape)
