"""Which tickets leave together.

A batch has tickets of one merge key, in the order of their turns, up to the rows that its class may put into one and
that leave each of them enough time. A class that somebody waits behind makes smaller batches. The dispatcher asks
when a backend has a place.
"""
