"""The version of the distribution `fairlane-server` that runs."""

from importlib.metadata import version
from typing import Final

# The installed distribution's own word: the SDK beside it may be of another release.
VERSION: Final = version("fairlane-server")
