"""The servers under test: Triton alone, a plain proxy or nginx before it, and Fairlane.

Each is an async context that starts the server on a free port and stops it with all that it started; two never run at
once. A target tells its address, and the process between client and Triton where there is one. The runner of scenarios,
`bench.tuning`, `bench.kinds` and `bench.attack` start them.
"""
