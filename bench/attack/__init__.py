"""`python -m bench.attack`: the p99 of a tenant that does no harm, alone and under attack.

Attacks are named in `attacks`; `attacker` does one of them in a process of its own, and `decoy` is somebody else on the
machine who can be attacked. Each round measures the tenant with nobody attacked, with the decoy attacked and with the
service attacked, so that what attackers take of the machine is told from what they do to the service. The command and
the tests of the edge call it.
"""
