"""config.pbtxt: made from a definition, read back through Triton's own message, and its warm-up tried.

A configuration is written only if Triton would read it as it is meant.
The exporter, the repository, and `fairlane tune` call it.
"""
