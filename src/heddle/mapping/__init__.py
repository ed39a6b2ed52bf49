"""Field rules as data: checked, compiled to a function, printed as the mapping document."""

from heddle.mapping.mapping import Mapping
from heddle.mapping.transcoder import Emission, Transcoder

__all__ = ["Emission", "Mapping", "Transcoder"]
