"""Tickets that belong together: steps of a stateful sequence.

All steps of a sequence go to one backend, one at a time and in order, and a sequence that begins waits for a slot.
Steps that come too early wait for the one before. Arrivals hand every ticket to steps first; endings tell when one
has ended.
"""
