"""`python -m bench.attack`: what attackers do to a tenant that does no harm."""
