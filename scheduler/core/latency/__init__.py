"""How long a batch takes, by what earlier ones took.

For each latency key a line is learned: a fixed part, and so much for each row. Evidence keeps the fastest of late, for
what must not be refused by mistake. Whoever plans asks: batching for the size, admission for the deadline, backends for
when an instance is free.
"""
