"""Child processes of a measurement: they end with their parent, and give way to what is measured.

A child is killed by the kernel when its parent ends, SIGKILL included; one that would run on another machine in reality
takes a low CPU priority in a session of its own. Nothing here knows what the processes do. Load, targets, backend and
attack start their processes by it.
"""
