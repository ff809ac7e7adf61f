"""A thread that serves those who wait in turns."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar, TypeVarTuple

from broker.domain.acting import SERVER, whose
from broker.domain.lines import Lines

T = TypeVar("T")
Args = TypeVarTuple("Args")


class FairThread:
    """A thread for the jobs of many users. Each user's jobs run in their order, and the users have their
    turns (`broker.domain.acting`). What the server does by itself is first: all users wait for it."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._of_server: deque[Callable[[], None]] = deque()
        self._of_users: Lines[Callable[[], None]] = Lines()

    def submit(self, function: Callable[[*Args], T], *args: *Args) -> "Future[T]":
        """Run a function when its turn has come.

        Raises:
            RuntimeError: the thread was shut down.
        """
        future: Future[T] = Future()
        job = partial(_run, future, function, args)
        key = whose()
        with self._lock:
            # One turn for each job. Which job it is turns out when it comes.
            self._thread.submit(self._turn)
            if key == SERVER:
                self._of_server.append(job)
            else:
                self._of_users.put(key, job)
        return future

    def _turn(self) -> None:
        with self._lock:
            job = self._of_server.popleft() if self._of_server else self._of_users.take()
        if job is not None:
            job()

    def submit_last(self, function: Callable[[*Args], T], *args: *Args) -> "Future[T]":
        """Run a function after all jobs that were submitted."""
        return self._thread.submit(function, *args)  # after their turns

    def shutdown(self) -> None:
        """Finish the submitted jobs, and end the thread."""
        self._thread.shutdown()


def _run(future: "Future[Any]", function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function(*args)
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
