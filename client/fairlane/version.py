"""The version of Fairlane. The SDK and the server are released together, and both distributions read it here."""

from typing import Final

__version__: Final = "0.1.0"
