"""What ends a command early."""


class CommandError(Exception):
    """Refused, not found or not possible: one line for the user, exit status 1."""


class OutputClosedError(Exception):
    """Whoever read the output has gone (`imctl user list | head`); there is nobody left to tell."""
