"""nginx in front of nodes: one of a test's own."""

from pathlib import Path

from tests.servers.processes import Process, answers, find

_PACKAGE = "nginx libnginx-mod-stream"
_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def own(folder: Path, port: int, servers: str) -> Process:
    """A server of a test's own, not started yet. `servers`: sections of its configuration; one listens
    on `port`."""
    program = find("nginx", _PACKAGE)
    for name in ("body", "proxy"):
        (folder / name).mkdir()
    file = folder / "nginx.conf"
    module = f"load_module {_MODULE};" if _MODULE.exists() else ""
    # In the foreground, and without a process of its own for the files of a system's nginx.
    file.write_text(
        f"{module} daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr warn;\n"
        f"events {{ worker_connections 1024; }}\n{servers}\n"
    )
    command = [program, "-p", str(folder), "-c", str(file), "-e", "stderr"]
    return Process(command, folder / "nginx.log", lambda: answers(port))
