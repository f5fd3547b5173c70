"""Attackers in a process of their own: who else asks gets every answer. How soon: see `python -m bench.attack`."""

from typing import Any

import pytest

from bench.attack.measure import ATTACKS, measure


@pytest.mark.parametrize("kind", ATTACKS)
async def test_every_request_of_others_is_answered_during_an_attack(serve: Any, kind: str) -> None:
    served = await serve()
    told = await measure(served.addresses.grpc, kind, per_s=40.0, seconds=1.0, rounds=1, model="floats")
    assert (told.answered, told.lost) == (120, {})
    assert told.done > 0
    assert told.ratio > 0
    assert told.ratio_to_alone > 0
