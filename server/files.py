"""The process's limit on open files, which sockets count for."""

import contextlib
import resource


def raise_open_files() -> int:
    """Raise the limit on open files to the highest the system allows this process. Returns the limit.

    The usual limit of 1,024 is for programs that use `select`. Each connection needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # some systems allow less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
