"""What a tenant may have in flight.

A tenant has caps in requests and in rows, over all models and of each. At a cap its flows are parked, and they come
back when something of it has ended, so that it stands in nobody's way. Steps ask for a ticket's tenant; queues ask
whether it is at a cap; endings ask who may run again.
"""
