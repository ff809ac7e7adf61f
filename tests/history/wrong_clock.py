"""`imctl` whose wall clock is `WRONG_CLOCK` seconds ahead: `python -m tests.history.wrong_clock serve ...`.

libfaketime does not do here: with it `time.sleep` fails in the threads of MongoDB's driver.
"""

import os
import time

_AHEAD = int(os.environ["WRONG_CLOCK"])
_time, _time_ns = time.time, time.time_ns

# Before anything else is imported, which may keep the functions themselves.
time.time = lambda: _time() + _AHEAD
time.time_ns = lambda: _time_ns() + _AHEAD * 1_000_000_000


def main() -> None:
    from cli.main import run

    run()


if __name__ == "__main__":
    main()
