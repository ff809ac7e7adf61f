"""The command of `make cluster`: starts all processes, watches them, and stops them at Ctrl-C."""

import argparse
import fcntl
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from deploy.local.layout import HOST, Layout, lay_out, taken
from deploy.local.running import ClusterError, Running
from deploy.local.servers import announce, prepare_nodes, programs

_LOOK_SECONDS = 0.5


def main(arguments: Sequence[str]) -> int:
    """Run a cluster until SIGINT or SIGTERM. Returns the exit status."""
    options = _parser().parse_args(arguments)
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    again = threading.Event()
    signal.signal(signal.SIGHUP, lambda _number, _frame: again.set())
    try:
        layout = lay_out(Path(options.data).resolve(), options.base_port)
        with _owned(layout.folder):
            _need_ports(layout)
            _run(layout, options.data, stopping, again)
    except (ClusterError, ValueError, OSError) as error:
        print(f"make cluster: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make cluster", description="Run a cluster on this machine.")
    parser.add_argument("--data", default="cluster-data", metavar="DIR", help="data of all processes")
    parser.add_argument(
        "--base-port", type=int, metavar="N", help="use the ports from N on, not the README's"
    )
    return parser


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """The folder is this process's while the context lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(
                f"a cluster runs on {folder} already (another folder: ARGS='--data DIR')"
            ) from None
        yield


def _need_ports(layout: Layout) -> None:
    if found := taken(layout):
        raise ClusterError(
            f"port {found[0]}, for {found[1]}, is in use (other ports: ARGS='--base-port 21000')"
        )


def _run(layout: Layout, shown: str, stopping: threading.Event, again: threading.Event) -> None:
    started: list[Running] = []
    here = layout.folder / "node.json"
    try:
        prepare_nodes(layout)
        for program in programs(layout):
            if stopping.is_set():
                return
            print(f"starting {program.name}", flush=True)
            started.append(Running(program))
            started[-1].wait_until_ready()
        announce(layout)
        _greet(layout, shown)
        _watch(started, stopping, again)
    finally:
        here.unlink(missing_ok=True)
        print("stopping", flush=True)
        for each in reversed(started):
            each.stop()


def _watch(started: list[Running], stopping: threading.Event, again: threading.Event) -> None:
    """Tell of each process that ends. The others go on: that is what a cluster is for. `again`: start those
    that have ended."""
    gone: set[int] = set()
    while not stopping.wait(_LOOK_SECONDS):
        for each in started:
            if each.has_ended() and each.pid not in gone:
                gone.add(each.pid)
                print(f"{each.report()}\nStart it again with:  kill -HUP {os.getpid()}", flush=True)
        if again.is_set():
            again.clear()
            for each in filter(Running.has_ended, started):
                print(f"starting {each.program.name}", flush=True)
                each.start_again()


def _greet(layout: Layout, shown: str) -> None:
    """Print the addresses and the first commands to try."""
    outside = layout.outside
    print(f"A cluster is serving, data and logs in {layout.folder}")
    for name, port in (
        ("mqtt", outside.mqtt),
        ("ws", outside.ws),
        ("grpc", outside.grpc),
        ("http", outside.http),
    ):
        print(f"  {name:<8} {HOST}:{port}")
    nodes = ", ".join(member.name for member in layout.members)
    print(f"  through nginx, to {nodes}; behind them redis, mariadb and mongodb")
    program = os.path.relpath(Path(sys.executable).parent / "imctl")
    default = _parser().get_default("data")
    imctl = program if shown == default else f"{program} --data-dir {shown}"
    print("Try, in another terminal:")
    print(f"  {imctl} user add alice --password wonderland")
    print(f"  {imctl} user add bob --password builder")
    print(f"  {imctl} send bob hello --as alice")
    print(f"  {imctl} sessions")
    print("Ctrl-C stops them all.", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
