"""Whether a ticket may wait here at all, and when it may come back.

A ticket is refused on arrival where a bound is reached, a rate is used up, or its deadline cannot be met; a more
important one takes the place of the least important that waits. A refusal names the time to come back. Arrivals ask
before a ticket is queued; endings ask for the time that a refused one is told.
"""
