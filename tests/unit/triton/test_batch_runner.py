"""Batches of one instance: by the caller where they come alone, on a thread under load."""

import gc
import itertools
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
        self.sender = None

    def get_response_sender(self):
        return self

    def send(self, response, flags):
        if self.broken:
            raise RuntimeError("the client is gone")
        self.sender = threading.current_thread()
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
        return [lambda: self.answer]

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


class Reader:
    """Stands for ReaderCpus: notes what it was told."""

    def __init__(self, *, away):
        self.away, self.told, self.runs = away, [], []

    def ran(self, ran_s, waited_s):
        self.runs.append((ran_s, waited_s))

    def read_beside(self):
        self.told.append("read beside")

    def run_itself(self):
        self.told.append("run itself")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def module(backend):
    module = sys.modules["batch_runner"]
    module.ROOM = 0  # however little shared memory there is here: test_sending.py
    return module


@pytest.fixture(params=[True, False], ids=["away", "among the models' CPUs"])
def reader(request):
    return Reader(away=request.param)


@pytest.fixture
def runner(module, clock, reader):
    made = module.BatchRunner(reader, side_by_side=True, now=clock)
    yield made
    made.close()


def loner(runner, clock):
    """Run a batch by itself: lone(after_s, takes_s) -> what `execute` returned."""

    def run(after_s, takes_s):
        def take():
            clock.s += takes_s
            return [lambda: "by the caller"]

        clock.s += after_s
        return runner.answer([Request()], take)

    return run


@pytest.fixture
def lone(runner, clock):
    return loner(runner, clock)


def load(lone, module):
    """Batches come sooner than they ran; the next one is tried on the thread."""
    lone(1.0, 0.002)
    for _ in range(module.IN_A_ROW - 1):
        lone(0.001, 0.002)


@pytest.fixture
def loaded(lone, module):
    load(lone, module)


FINAL = 1  # the stand-in's flag


def test_batches_that_come_alone_are_run_by_their_caller(lone):
    # Each comes when the last one has been over for longer than it took.
    assert [lone(0.003, 0.002) for _ in range(20)] == [["by the caller"]] * 20


def test_a_model_that_is_done_sooner_than_a_batch_comes_stays_with_its_caller(lone):
    assert [lone(0.0004, 0.0001) for _ in range(20)] == [["by the caller"]] * 20


def test_on_one_cpu_every_batch_is_run_by_its_caller(module, clock):
    runner = module.BatchRunner(Reader(away=False), side_by_side=False, now=clock)

    def take():
        clock.s += 0.002
        return [lambda: "by the caller"]

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
def test_who_waits_for_the_next_turn_answers_the_one_before_where_it_is_away(runner, reader):
    reader.away = True
    first, second = Work("a"), Work("b")
    first.submit(runner).join(WAIT_S)
    waiting = second.submit(runner)
    until_queued(runner, waiting)
    first.may_end.set()
    waiting.join(WAIT_S)
    assert (first.requests[0].sent, first.requests[0].sender) == ([("a", FINAL)], waiting)
    # Nobody waits behind the second: the thread that ran it answers it.
    second.may_end.set()
    second.answered()
    assert second.requests[0].sender is runner._running


@pytest.mark.usefixtures("loaded")
def test_among_the_models_cpus_a_third_thread_answers(runner, reader):
    reader.away = False
    first, second = Work("a"), Work("b")
    one_behind_the_other(runner, first, second)
    assert [work.answered() for work in (first, second)] == [[("a", FINAL)], [("b", FINAL)]]
    assert (first.requests[0].sender, second.requests[0].sender) == (runner._sending, runner._running)


class SlowRequest(Request):
    """Its answer is sent when it may be."""

    def __init__(self):
        super().__init__()
        self.may_be_sent, self.sending = threading.Event(), threading.Event()

    def send(self, response, flags):
        self.sending.set()
        assert self.may_be_sent.wait(WAIT_S)
        super().send(response, flags)


@pytest.mark.usefixtures("loaded")
def test_where_answers_leave_slower_than_they_are_made_the_caller_helps_and_waits(runner, reader, module):
    reader.away = False
    slow = [SlowRequest() for _ in range(module.UNSENT + 2)]
    works = [Work(place, request=request) for place, request in enumerate(slow)] + [Work("last")]
    works[0].submit(runner).join(WAIT_S)
    for work, after in itertools.pairwise(works):
        # One runs, and the next lies ready.
        call = after.submit(runner)
        until_queued(runner, call)
        work.may_end.set()
        if work is works[0]:
            assert slow[0].sending.wait(WAIT_S)
        if after is not works[-1]:
            call.join(WAIT_S)
            assert not call.is_alive()
    # One is being sent and as many wait as may: Triton gets its thread back, and the next batch, when one has left.
    assert slow[1].sending.wait(WAIT_S)
    assert call.is_alive()
    slow[1].may_be_sent.set()
    call.join(WAIT_S)
    assert slow[1].sender is call
    for request in slow:
        request.may_be_sent.set()
    works[-1].may_end.set()
    assert [work.answered() for work in works] == [[(work.answer, FINAL)] for work in works]


@pytest.mark.usefixtures("loaded")
def test_an_answer_that_nobody_takes_over_is_sent_at_the_end(runner, reader):
    reader.away = True
    work = Work("a")
    work.submit(runner).join(WAIT_S)
    closing = threading.Thread(target=runner.close, daemon=True)
    closing.start()
    while runner._batches.empty():
        closing.join(0.001)
    work.may_end.set()
    closing.join(WAIT_S)
    assert work.requests[0].sent == [("a", FINAL)]


def broken():
    raise ValueError("no such row")


@pytest.mark.usefixtures("loaded")
def test_a_response_that_cannot_be_made_fails_its_own_request_only(runner):
    requests = [Request(), Request()]
    assert runner.answer(requests, lambda: [broken, lambda: "b"]) == [None, None]
    runner.close()
    ((failure, flag),) = requests[0].sent
    assert (failure.error.message, failure.error.code, flag) == ("ValueError('no such row')", "INTERNAL", FINAL)
    assert requests[1].sent == [("b", FINAL)]


def test_so_it_is_where_the_batch_came_alone(runner):
    failure, other = runner.answer([Request(), Request()], lambda: [broken, lambda: "b"])
    assert (failure.error.message, failure.error.code, other) == ("ValueError('no such row')", "INTERNAL", "b")


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


def run_at_once(runner, name):
    work = Work(name)
    work.may_end.set()
    work.submit(runner).join(WAIT_S)
    assert work.answered() == [(name, FINAL)]


def test_it_is_told_before_each_batch_whether_its_caller_runs_it(runner, module, lone, reader):
    load(lone, module)
    assert reader.told == ["run itself"] * module.IN_A_ROW
    reader.told.clear()
    held, ready = Work("held"), Work("ready")
    one_behind_the_other(runner, held, ready)
    ready.answered()
    run_at_once(runner, "alone")
    assert reader.told == ["read beside"] * 3


@pytest.mark.usefixtures("loaded")
def test_how_long_each_batch_on_the_thread_took_and_was_waited_for_is_told(runner, clock, reader):
    first, second = Work("a"), Work("b")
    clock.s += 0.0005  # since the end of the last one, which took 0.002
    first.submit(runner).join(WAIT_S)
    call = second.submit(runner)
    until_queued(runner, call)
    clock.s += 0.003
    first.may_end.set()
    call.join(WAIT_S)  # it lay ready: nothing waited
    clock.s += 0.004
    second.may_end.set()
    second.answered()
    clock.s += 0.001
    run_at_once(runner, "late")
    clock.s += 1.0
    run_at_once(runner, "after a lull")
    runner.close()
    assert reader.runs == [pytest.approx(each) for each in [(0.003, 0.0005), (0.004, 0.0), (0.0, 0.001), (0.0, 0.0)]]


@pytest.mark.usefixtures("loaded")
def test_close_returns_when_everything_is_answered(runner):
    work = Work("a")
    work.submit(runner).join(WAIT_S)
    closing = threading.Thread(target=runner.close, daemon=True)
    closing.start()
    work.may_end.set()
    closing.join(WAIT_S)
    assert work.requests[0].sent == [("a", FINAL)]
