"""What the backends hold, what they can take, and which of them is trusted.

A backend has as many executions as it has instances and one that lies ready; where the configuration does not tell, the
number is learned. A breaker leaves out a backend, or one of its models, that failed several times; a batch that is
overdue is doubted by evidence. The dispatcher asks for a place; endings report what came of a batch.
"""
