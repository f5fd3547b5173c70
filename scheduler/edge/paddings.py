"""How the requests of each model are padded, by the configuration and by what Triton says of the model."""

import logging

from scheduler.config import Config
from scheduler.triton.pad import Padding, padding_of
from scheduler.triton.spec import ModelSpec

log = logging.getLogger(__name__)


class Paddings:
    """Worked out once for each model as it is loaded.

    Args:
        config: which models are padded, and how.
    """

    def __init__(self, config: Config) -> None:
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Go on with these settings."""
        self._config = config
        self._found: dict[str, tuple[ModelSpec, Padding | None]] = {}

    def of(self, spec: ModelSpec) -> Padding | None:
        """How the model's requests are padded; None where they are not, or cannot be, which the log says once."""
        entry = self._config.padding(spec.name)
        if entry is None:
            return None
        known = self._found.get(spec.name)
        if known is None or known[0] is not spec:
            padding = None
            try:
                padding = padding_of(spec, entry.axis, entry.mask, entry.values)
            except ValueError as error:
                log.warning("model %s is not padded: models.%s.pad.%s", spec.name, spec.name, error)
            known = self._found[spec.name] = spec, padding
        return known[1]
