"""Who is alone at a backend, and who waits meanwhile."""

import asyncio

import pytest

from scheduler.triton.exclusive import Exclusives

PLACE = ("gpu0", "m")


class Visitor:
    """One that comes, stays until it may leave, and tells when it is there."""

    def __init__(self, held) -> None:
        self.there = asyncio.Event()
        self.may_leave = asyncio.Event()
        self.task = asyncio.create_task(self._visit(held))

    async def _visit(self, held) -> None:
        async with held:
            self.there.set()
            await self.may_leave.wait()

    async def leave(self) -> None:
        self.may_leave.set()
        await self.task


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_many_share_a_place_and_one_is_alone_after_them_and_before_the_next():
    exclusives = Exclusives()
    first, second = Visitor(exclusives.shared(PLACE)), Visitor(exclusives.shared(PLACE))
    await asyncio.gather(first.there.wait(), second.there.wait())
    alone = Visitor(exclusives.alone(PLACE))
    await turns()
    late, elsewhere = Visitor(exclusives.shared(PLACE)), Visitor(exclusives.shared(("gpu1", "m")))
    await elsewhere.there.wait()
    await first.leave()
    await turns()
    assert not alone.there.is_set()
    await second.leave()
    await alone.there.wait()
    await turns()
    assert not late.there.is_set()
    await alone.leave()
    await late.there.wait()
    await asyncio.gather(late.leave(), elsewhere.leave())
    assert [len(each) for each in (exclusives._out, exclusives._open, exclusives._empty)] == [0, 0, 0]


async def test_those_that_want_to_be_alone_take_turns():
    exclusives = Exclusives()
    first, second = Visitor(exclusives.alone(PLACE)), Visitor(exclusives.alone(PLACE))
    await first.there.wait()
    await turns()
    assert not second.there.is_set()
    await first.leave()
    await second.there.wait()
    await second.leave()


async def test_who_cannot_be_alone_in_time_gives_up_and_lets_the_others_in():
    exclusives = Exclusives()
    first = Visitor(exclusives.shared(PLACE))
    await first.there.wait()
    with pytest.raises(TimeoutError):
        async with exclusives.alone(PLACE, 0.0):
            pass
    late = Visitor(exclusives.shared(PLACE))
    await late.there.wait()
    await asyncio.gather(first.leave(), late.leave())


async def test_who_is_cancelled_leaves_the_place_as_it_was():
    exclusives = Exclusives()
    first = Visitor(exclusives.shared(PLACE))
    await first.there.wait()
    alone = Visitor(exclusives.alone(PLACE))
    await turns()
    alone.task.cancel()
    await asyncio.gather(alone.task, return_exceptions=True)
    late = Visitor(exclusives.shared(PLACE))
    await late.there.wait()
    await asyncio.gather(first.leave(), late.leave())
    assert [len(each) for each in (exclusives._out, exclusives._open, exclusives._empty)] == [0, 0, 0]
