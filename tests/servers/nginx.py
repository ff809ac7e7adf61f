"""nginx in front of nodes: one of a test's own."""

from pathlib import Path

from deploy.local import nginx
from tests.servers.processes import Process, answers, find

_PACKAGE = "nginx libnginx-mod-stream"


def own(folder: Path, port: int, configuration: str) -> Process:
    """A server of a test's own, not started yet. It keeps its files in `folder`, and listens on `port`."""
    program = find("nginx", _PACKAGE)
    file = nginx.write(folder, configuration)
    command = [program, "-p", str(folder), "-c", str(file), "-e", "stderr"]
    return Process(command, folder / "nginx.log", lambda: answers(port))
