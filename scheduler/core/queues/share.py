"""Who is served next: start-time fair queuing (SFQ) over weighted accounts.

Source: P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queuing", SIGCOMM 1996. Ticket k of account f
with cost c (seconds of service) and weight w gets the tags

    start(k)  = max(V, finish(k - 1))        finish(k) = start(k) + c / w

and the ticket with the least start tag is served; V, the virtual time, is the start tag of the
ticket last chosen. The tags of a backlogged account form a chain, so one number per account is
enough: the start tag of its next ticket. An account that was idle joins at V: it gets no credit for
its idleness. Two backlogged accounts differ in normalised service by at most the sum of their
largest c / w (theorem 1 of the paper), whatever the sizes of the requests. Ties between tenants go to
who has just come (flow.py), which adds a tenth of one to it.

A ticket that rides in another's batch is charged, but does not move V: it was not chosen for its
tag, and V would otherwise run ahead of accounts that still wait. Without V moving, rides could put an
account ahead without bound and put its next turn off for as long. Where that would fall on others (batch.py:
not all tenants of a class ride) `ride` bounds what is charged between two turns of the account's own. What a ticket
costs may be known only when all are taken that ride with it: the rest is charged then.
"""


class Account:
    """One account's place in virtual time.

    Attributes:
        weight: share relative to the other accounts.
        start: start tag of the account's next ticket, in virtual seconds.
        ridden_s: seconds of service that `ride` has charged since the account's last turn.
    """

    __slots__ = ("ridden_s", "start", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.start = 0.0
        self.ridden_s = 0.0


class VirtualTime:
    """The virtual time V of one set of accounts, in seconds of service per unit of weight.

    Attributes:
        now: V.
        latest: the largest start tag of any account.
        taken: start tag of the ticket last charged, whether it was chosen or rode.
    """

    __slots__ = ("latest", "now", "taken")

    def __init__(self) -> None:
        self.now = 0.0
        self.latest = 0.0
        self.taken = 0.0

    def join(self, account: Account) -> None:
        """The account becomes backlogged (or eligible again): it starts no earlier than V."""
        if account.start < self.now:
            account.start = self.now

    def catch_up(self, least: float) -> None:
        """V follows the rides, yet passes nobody: `least` is the least tag of the accounts that wait."""
        at = self.taken if self.taken < least else least
        if at > self.now:
            self.now = at

    def serve(self, account: Account, cost_s: float) -> None:
        """Charge the account that was chosen for its tag; V moves to that tag."""
        if account.start > self.now:
            self.now = account.start
        account.ridden_s = 0.0
        self.charge(account, cost_s)

    def charge(self, account: Account, cost_s: float) -> None:
        """Charge an account for a ticket that was not chosen for its tag; V stays."""
        self.taken = account.start
        account.start = start = self.taken + cost_s / account.weight
        if start > self.latest:
            self.latest = start

    def charge_more(self, account: Account, cost_s: float) -> float:
        """Charge for what was charged already, as more than it was taken for; returns by how much the tag grows."""
        more = cost_s / account.weight
        account.start = start = account.start + more
        if start > self.latest:
            self.latest = start
        return more

    def ride(self, account: Account, cost_s: float, *, most_s: float) -> None:
        """As `charge`, of no more than `most_s` seconds between two turns of the account's own."""
        charged_s = min(cost_s, max(0.0, most_s - account.ridden_s))
        account.ridden_s += charged_s
        self.charge(account, charged_s)

    def rest(self) -> None:
        """Nobody is backlogged: the busy period ends, V passes every tag, and accounts may be forgotten."""
        self.now = self.latest
