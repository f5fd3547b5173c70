"""The servers under test: Triton, plain proxies before it, and Fairlane."""
