"""What holds for all tests."""

import signal

from hypothesis import settings

# An example that a busy machine runs slowly is no failure.
settings.register_profile("parley", deadline=None)
settings.load_profile("parley")

# A shell's background job ignores Ctrl-C, and so would the programs that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
