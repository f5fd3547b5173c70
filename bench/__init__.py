"""Load tests, tuning and measurements: everything that puts load on a server and says what came of it.

Whoever runs `fairlane bench`, `fairlane capacity`, `fairlane tune` or `python -m bench.NAME` comes in by the command
modules of this folder (`cli`, `capacity`, `tune`, `edge`, `cancellations`) and by the folders that are commands
themselves (`attack`, `micro`; `backend` and `kinds` for `fairlane bench`). The other folders are the parts that these
commands share, in layers: what is above imports what is below (pyproject.toml, import-linter). Nothing in `scheduler`
imports any of it, but for the command line, which does so by name.
"""
