"""Batches of one instance: by the caller where they come alone, on a thread under load."""

import gc
import sys
import threading
import weakref

import pytest

WAIT_S = 10.0  # never waited out: each wait ends with what it waits for


class Clock:
    """Seconds that move when told."""

    def __init__(self):
        self.s = 0.0

    def __call__(self):
        return self.s


class Request:
    """Notes what is sent to it, as its response sender."""

    def __init__(self, *, broken=False):
        self.broken, self.sent, self.answered = broken, [], threading.Event()

    def get_response_sender(self):
        return self

    def send(self, response, flags):
        if self.broken:
            raise RuntimeError("the client is gone")
        self.sent.append((response, flags))
        self.answered.set()


class Work:
    """A batch of one request whose run begins, and ends when it may."""

    def __init__(self, answer, *, request=None, error=None):
        self.answer, self.error = answer, error
        self.requests = [request or Request()]
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.returned = None

    def run(self):
        self.begun.set()
        assert self.may_end.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        return [self.answer]

    def submit(self, runner):
        """As Triton does: `execute` is called, on its own thread; joined when it has returned."""

        def execute():
            self.returned = runner.answer(list(self.requests), self.run)

        thread = threading.Thread(target=execute, daemon=True)
        thread.start()
        return thread

    def answered(self):
        assert self.requests[0].answered.wait(WAIT_S)
        return self.requests[0].sent


def until_queued(runner, call):
    while runner._batches.empty():
        assert call.is_alive()
        call.join(0.001)


def one_behind_the_other(runner, first, second):
    """Two batches on the thread: the second is queued before the first ends."""
    first.submit(runner).join(WAIT_S)
    call = second.submit(runner)
    until_queued(runner, call)
    for work in (first, second):
        work.may_end.set()
    call.join(WAIT_S)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def module(backend):
    return sys.modules["batch_runner"]


@pytest.fixture
def runner(module, clock):
    made = module.BatchRunner(2, clock)
    yield made
    made.close()


@pytest.fixture
def lone(runner, clock):
    """Run a batch by itself: lone(after_s, takes_s) -> what `execute` returned."""

    def run(after_s, takes_s):
        def take():
            clock.s += takes_s
            return ["by the caller"]

        clock.s += after_s
        return runner.answer([Request()], take)

    return run


@pytest.fixture
def loaded(lone, module):
    """Batches have come sooner than they ran; the next one is tried on the thread."""
    lone(1.0, 0.002)
    for _ in range(module.IN_A_ROW - 1):
        lone(0.001, 0.002)


FINAL = 1  # the stand-in's flag


def test_batches_that_come_alone_are_run_by_their_caller(lone):
    # Each comes when the last one has been over for longer than it took.
    assert [lone(0.003, 0.002) for _ in range(20)] == [["by the caller"]] * 20


def test_a_model_that_is_done_sooner_than_a_batch_comes_stays_with_its_caller(lone):
    assert [lone(0.0004, 0.0001) for _ in range(20)] == [["by the caller"]] * 20


def test_on_one_cpu_every_batch_is_run_by_its_caller(module, clock):
    runner = module.BatchRunner(1, clock)

    def take():
        clock.s += 0.002
        return ["by the caller"]

    # Each comes at once after the one before.
    assert [runner.answer([Request()], take) for _ in range(20)] == [["by the caller"]] * 20
    runner.close()


@pytest.mark.usefixtures("loaded")
def test_under_load_execute_returns_when_its_batch_begins_and_the_answer_is_sent_when_it_ends(runner):
    work = Work("a")
    work.submit(runner).join(WAIT_S)
    assert work.begun.is_set()
    assert (work.returned, work.requests[0].sent) == ([None], [])
    work.may_end.set()
    assert work.answered() == [("a", FINAL)]


@pytest.mark.usefixtures("loaded")
def test_one_runs_and_one_waits_and_the_order_is_kept(runner):
    first, second, third = Work("a"), Work("b"), Work("c")
    first.submit(runner).join(WAIT_S)
    second_call = second.submit(runner)
    until_queued(runner, second_call)
    assert second_call.is_alive()
    assert not second.begun.is_set()
    first.may_end.set()
    second_call.join(WAIT_S)
    assert second.begun.is_set()
    third_call = third.submit(runner)
    second.may_end.set()
    third_call.join(WAIT_S)
    third.may_end.set()
    assert [work.answered() for work in (first, second, third)] == [[(name, FINAL)] for name in "abc"]


@pytest.mark.usefixtures("loaded")
def test_a_run_that_raises_is_answered_to_its_own_requests(runner, backend):
    bad, good = Work("a", error=MemoryError("no room")), Work("b")
    one_behind_the_other(runner, bad, good)
    ((failure, flag),) = bad.answered()
    assert (failure.error.message, failure.error.code, flag) == ("MemoryError('no room')", "INTERNAL", FINAL)
    assert good.answered() == [("b", FINAL)]


@pytest.mark.usefixtures("loaded")
def test_an_answer_that_cannot_be_sent_is_logged_and_stops_nobody(runner, backend):
    gone, other = Work("a", request=Request(broken=True)), Work("b")
    one_behind_the_other(runner, gone, other)
    assert other.answered() == [("b", FINAL)]
    runner.close()  # the two are sent by different threads
    assert backend.pb_utils.Logger.errors == ["a response could not be sent: RuntimeError('the client is gone')"]


@pytest.mark.usefixtures("loaded")
def test_requests_are_kept_until_they_are_answered_and_no_longer(runner):
    work = Work("a")
    work.submit(runner).join(WAIT_S)
    kept = weakref.ref(work.requests.pop())
    gc.collect()
    assert kept() is not None
    sent = kept().answered
    work.may_end.set()
    assert sent.wait(WAIT_S)
    runner.close()
    gc.collect()
    assert kept() is None


@pytest.mark.usefixtures("loaded")
def test_when_nothing_lies_ready_for_long_batches_go_back_to_their_caller(runner, module, lone):
    held, ready = Work("held"), Work("ready")
    one_behind_the_other(runner, held, ready)  # one lay ready: the load is there
    ready.answered()
    for _ in range(module.NONE_READY - 1):
        work = Work("alone")
        work.may_end.set()
        work.submit(runner).join(WAIT_S)
        assert work.answered() == [("alone", FINAL)]
        assert work.returned == [None]
    assert lone(1.0, 0.002) == ["by the caller"]


@pytest.mark.usefixtures("loaded")
def test_close_returns_when_everything_is_answered(runner):
    work = Work("a")
    work.submit(runner).join(WAIT_S)
    closing = threading.Thread(target=runner.close, daemon=True)
    closing.start()
    work.may_end.set()
    closing.join(WAIT_S)
    assert work.requests[0].sent == [("a", FINAL)]
