"""The exceptions that end a command early."""


class CommandError(Exception):
    """The command failed. The text is printed as one line, and `status` is the exit status."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


class OutputClosedError(Exception):
    """The reader of the output has closed it, as in `imctl user list | head`. That is not a failure."""
