"""Peers that mean harm, as a process of its own: `python -m bench.attack.attacker KIND HOST:PORT PER_S SECONDS`.

What it does is in attacks.py. It reads the body of a request from stdin, and prints how often it did what it does as
one line of JSON. It takes the lowest priority of the machine: what is to be seen is what it does to the service, not
that two processes share a processor.
"""

import asyncio
import json
import sys
import time
from typing import Final

from bench.attack.attacks import Attack, make_attack
from bench.processes.cpu_priority import LOWEST, lower_cpu_priority

STEP_S: Final = 0.02


async def attack(once: Attack, address: str, per_s: float, seconds: float) -> int:
    """Do it `per_s` times a second for `seconds`; how often it was done, those included that the server cut short."""
    began, done = time.monotonic(), 0
    while (passed := time.monotonic() - began) < seconds:
        due = int(passed * per_s) - done
        done += due
        await asyncio.gather(*(once(address) for _ in range(due)), return_exceptions=True)
        await asyncio.sleep(STEP_S)
    return done


async def main(kind: str, address: str, per_s: str, seconds: str) -> None:
    """Attack, and tell how often."""
    lower_cpu_priority(LOWEST)
    once = make_attack(kind, sys.stdin.buffer.read())
    sys.stdout.write(json.dumps({"done": await attack(once, address, float(per_s), float(seconds))}) + "\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
