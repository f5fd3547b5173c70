"""Batch compositions: the same rows of a definition's samples, alone and in one batch.

Example: a sample of three rows gives three feeds of one row each, and one feed of all three. A row whose answer
differs between the two depends on its neighbours.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final

import numpy as np

from export.definition import Definition
from export.definition.tensor import BATCH, Feed
from export.errors import DefinitionError

# The feeds of rows alone, and one feed with all of them, in the same order.
BatchComposition = tuple[Sequence[Feed], Feed]

ROWS: Final = 16


def batch_compositions(definition: Definition) -> Iterator[BatchComposition]:
    """Each row alone and all together: of samples and the first calibration input, and of those of a row alone.

    Raises:
        DefinitionError: no two rows of one shape are among them, so that nothing could be said.
    """
    if definition.max_batch_size <= 1:
        return
    lone: dict[tuple[tuple[int, ...], ...], list[Feed]] = {}
    found = False
    for feed in _feeds(definition):
        if _count(definition, feed) == 1:
            alike = lone.setdefault(tuple(feed[one.name].shape for one in definition.inputs), [])
            if len(alike) < ROWS:
                alike.append(feed)
        else:
            found = True
            yield _batch_composition(definition, feed)
    for rows in lone.values():
        if len(rows) > 1:
            found = True
            yield _batch_composition(
                definition, {name: np.concatenate([one[name] for one in rows]) for name in rows[0]}
            )
    if not found:
        raise DefinitionError(
            f"{definition.name}: samples: expected two rows or more of one shape, to compare alone and in a batch; got "
            f"one row of each shape, in samples and in the first {ROWS} inputs of calibration. Add a sample of two rows"
        )


def take(feed: Feed, rows: Any) -> Feed:
    """Some rows of a feed; of one with fewer, from the first again."""
    return {name: np.take(value, rows, axis=0, mode="wrap") for name, value in feed.items()}


def _feeds(definition: Definition) -> Iterator[Feed]:
    samples = definition.checked("samples", definition.samples())
    if definition.calibration is None:
        return samples
    first, *others = islice(definition.checked("calibration", definition.calibration()), ROWS)
    return chain(samples, [first, *(one for one in others if _count(definition, one) == 1)])


def _batch_composition(definition: Definition, feed: Feed) -> BatchComposition:
    rows = range(min(_count(definition, feed), ROWS))
    return [take(feed, [row]) for row in rows], take(feed, rows)


def _count(definition: Definition, feed: Feed) -> int:
    return len(feed[next(one.name for one in definition.inputs if one.dims[:1] == (BATCH,))])
