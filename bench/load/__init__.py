"""The load generator: when requests are due, what they hold, and the processes that send them."""
