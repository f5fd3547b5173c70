"""What waits, and whose turn it is.

A lane holds what waits for one model: a queue for each class, and in it a flow for each tenant. By start-time fair
queueing each class and each tenant has its share of the time by weight; within a tenant the earliest deadline goes
first. The dispatcher asks for the next turn; arrivals and endings put in and take out.
"""
