import pytest

from scheduler.core.queues.share import Account, VirtualTime


def test_a_charge_is_divided_by_the_weight():
    virtual, account = VirtualTime(), Account(4)
    virtual.serve(account, 2.0)
    assert account.start == 0.5


def test_before_the_first_charge_v_stays_at_nought():
    virtual = VirtualTime()
    virtual.catch_up(9.0)
    assert virtual.now == 0.0
    virtual.rest()
    assert virtual.now == 0.0


def test_v_is_the_start_tag_of_the_ticket_last_chosen():
    virtual, account = VirtualTime(), Account(1)
    virtual.serve(account, 2.0)
    assert virtual.now == 0.0
    virtual.serve(account, 3.0)
    assert virtual.now == 2.0


def test_an_idle_account_joins_at_v_without_credit():
    virtual, busy, idle = VirtualTime(), Account(1), Account(1)
    virtual.serve(busy, 2.0)
    virtual.serve(busy, 2.0)
    virtual.join(idle)
    assert idle.start == virtual.now == 2.0


def test_an_account_ahead_of_v_keeps_its_tag_when_it_joins_again():
    virtual, account = VirtualTime(), Account(1)
    virtual.serve(account, 5.0)
    virtual.join(account)
    assert account.start == 5.0


def test_v_never_goes_back():
    virtual, ahead, behind = VirtualTime(), Account(1), Account(1)
    virtual.serve(ahead, 5.0)
    virtual.serve(ahead, 5.0)
    virtual.serve(behind, 1.0)
    assert virtual.now == 5.0


def test_a_charge_without_a_turn_does_not_move_v():
    virtual, account = VirtualTime(), Account(2)
    virtual.charge(account, 3.0)
    virtual.charge(account, 3.0)
    assert account.start == 3.0
    assert virtual.now == 0.0


def test_rides_are_charged_up_to_a_bound_until_the_accounts_own_turn():
    virtual, rider = VirtualTime(), Account(2)
    for _ in range(10):
        virtual.ride(rider, 3.0, most_s=8.0)
    assert rider.start == 4.0
    virtual.serve(rider, 2.0)
    virtual.ride(rider, 3.0, most_s=8.0)
    assert rider.start == 4.0 + 1.0 + 1.5


def test_a_ride_is_charged_what_is_left_of_the_bound_however_little():
    virtual, rider = VirtualTime(), Account(1)
    virtual.ride(rider, 7.5, most_s=8.0)
    virtual.ride(rider, 3.0, most_s=8.0)
    assert rider.start == 8.0


def test_an_account_that_rides_for_ever_still_gets_its_turns():
    virtual, rider, busy = VirtualTime(), Account(1), Account(16)
    turns = []
    for _ in range(1000):
        chosen = min((busy, rider), key=lambda account: account.start)
        virtual.serve(chosen, 8.0)
        turns.append(chosen)
        virtual.ride(rider, 5.0, most_s=8.0)
    assert turns.count(rider) == pytest.approx(1000 / (1 + 2 * 16), abs=2)


def test_a_lower_bound_later_takes_nothing_back():
    virtual, rider = VirtualTime(), Account(1)
    virtual.ride(rider, 5.0, most_s=8.0)
    virtual.ride(rider, 5.0, most_s=2.0)
    assert rider.start == 5.0


def test_at_rest_v_passes_every_tag():
    virtual, served, rider = VirtualTime(), Account(1), Account(1)
    virtual.serve(served, 2.0)
    virtual.charge(rider, 7.0)
    virtual.rest()
    assert virtual.now == 7.0


@pytest.mark.parametrize("costs", [(1.0, 1.0), (1.0, 8.0), (0.003, 0.5)])
def test_two_backlogged_accounts_stay_within_the_sum_of_their_largest_normalised_costs(costs):
    virtual, accounts, served = VirtualTime(), [Account(1), Account(3)], [0.0, 0.0]
    for _ in range(2000):
        index = min((0, 1), key=lambda i: accounts[i].start)
        virtual.serve(accounts[index], costs[index])
        served[index] += costs[index] / accounts[index].weight
        assert abs(served[0] - served[1]) <= costs[0] / 1 + costs[1] / 3 + 1e-9


def test_after_its_own_turn_an_account_may_ride_the_whole_bound_again():
    virtual, rider = VirtualTime(), Account(1)
    virtual.ride(rider, 9.0, most_s=8.0)
    virtual.serve(rider, 1.0)
    virtual.ride(rider, 9.0, most_s=8.0)
    assert rider.start == 8.0 + 1.0 + 8.0


def test_v_follows_the_rides_and_passes_nobody():
    virtual, rider = VirtualTime(), Account(1)
    virtual.serve(rider, 1.0)
    virtual.charge(rider, 1.0)
    virtual.charge(rider, 1.0)
    virtual.catch_up(1.5)
    assert virtual.now == 1.5
    virtual.catch_up(9.0)
    assert virtual.now == 2.0
    virtual.catch_up(1.0)
    assert virtual.now == 2.0


def test_what_is_charged_later_is_told_and_moves_neither_v_nor_what_it_follows():
    virtual, account = VirtualTime(), Account(2)
    virtual.serve(account, 2.0)
    assert virtual.charge_more(account, 3.0) == 1.5
    assert (account.start, virtual.latest) == (2.5, 2.5)
    virtual.catch_up(9.0)
    assert virtual.now == 0.0


def test_what_is_charged_later_leaves_the_latest_tag_of_another():
    virtual, account, other = VirtualTime(), Account(1), Account(1)
    virtual.charge(other, 9.0)
    virtual.charge_more(account, 3.0)
    assert virtual.latest == 9.0
