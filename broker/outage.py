"""An outage of the store: commits fail for a reason that may pass, such as a full disk.

Meanwhile publishers are kept and not acknowledged. What they have published is committed in its order once
commits work again.
"""

import logging
import time

from broker.domain.errors import StoreUnavailableError

logger = logging.getLogger(__name__)


class Outage:
    """Which commits fail now, and why. One line of the log says that an outage begins, one that it ends."""

    def __init__(self) -> None:
        self._failing: dict[str, str] = {}
        self._began = 0.0
        self.is_on = False
        """Read with every publish, hence an attribute."""

    def failed(self, what: str, error: StoreUnavailableError) -> None:
        """Commits of `what`, such as "messages", fail."""
        if not self.is_on:
            self.is_on = True
            self._began = time.monotonic()
            logger.error("commits fail, publishers wait: %s", error)
        self._failing[what] = str(error)

    def recovered(self, what: str) -> None:
        """A commit of `what` has worked."""
        if self._failing.pop(what, None) is not None and not self._failing:
            self.is_on = False
            logger.warning("commits work again after %.1f s", time.monotonic() - self._began)

    @property
    def reason(self) -> str:
        """Why commits fail; "" if they work."""
        return next(iter(self._failing.values()), "")
