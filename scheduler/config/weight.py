"""A share relative to others."""

from typing import Annotated, Final

from pydantic import Field

# Beyond these a share is a mistyped one, or meant to be `strict`; virtual time keeps its precision between them.
LEAST_WEIGHT: Final = 1e-6
MOST_WEIGHT: Final = 1e6

Weight = Annotated[float, Field(ge=LEAST_WEIGHT, le=MOST_WEIGHT)]
