"""The exceptions that end a command early."""


class CommandError(Exception):
    """The command failed. The text is printed as one line; the exit status is 1."""


class OutputClosedError(Exception):
    """The reader of the output has closed it, as in `imctl user list | head`. That is not a failure."""
