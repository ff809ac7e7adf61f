"""The backplane on Redis."""

from .backplane import RedisBackplane, open_backplane
from .options import RedisOptions

__all__ = ["RedisBackplane", "RedisOptions", "open_backplane"]
