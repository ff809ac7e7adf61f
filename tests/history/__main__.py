"""Check the history of any deployment: `python -m tests.history --node HOST:PORT --node ... --seconds 30`.

Users are made by the admin gRPC of a node (`--grpc`, `--token-file`), or named with passwords (`--user`).
Exit status 1: something is wrong, and is printed.
"""

import argparse
import asyncio
import secrets
import sys
from collections import Counter
from pathlib import Path

import grpc
import msgspec

from bridge.grpc_api import im_admin_pb2 as pb
from bridge.grpc_api import im_admin_pb2_grpc as services
from tests.history.checks import violations
from tests.history.client import Address, Person
from tests.history.driver import Traffic, drive, save
from tests.history.records import Run


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.history", description=__doc__)
    parser.add_argument("--node", action="append", default=[], help="HOST:PORT of MQTT, of each node")
    parser.add_argument("--user", action="append", default=[], help="NAME:PASSWORD, of each user")
    parser.add_argument("--grpc", help="HOST:PORT of a node's gRPC, to make users")
    parser.add_argument("--token-file", type=Path, help="the admin.token of that node's data directory")
    parser.add_argument("--users", type=int, default=6, help="how many to make")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between two messages of a client")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", help="write the run to this file")
    parser.add_argument("--check", type=Path, help="check a run that was written before")
    parser.add_argument("--faults", action="store_true", help="nodes or stores may fail meanwhile")
    return parser.parse_args()


def _made_people(options: argparse.Namespace) -> list[Person]:
    metadata = (("authorization", f"Bearer {options.token_file.read_text().strip()}"),)
    people = [Person(f"h-{secrets.token_hex(6)}", secrets.token_hex(12)) for _ in range(options.users)]
    with grpc.insecure_channel(options.grpc) as channel:
        admin = services.AdminServiceStub(channel)  # type: ignore[no-untyped-call]
        for name, password in people:
            request = pb.AddUserRequest(user_id=name, password=password, role="user")
            admin.AddUser(request, metadata=metadata, timeout=30)
    return people


def _recorded(options: argparse.Namespace) -> Run:
    if options.check:
        return msgspec.json.decode(options.check.read_bytes(), type=Run)
    people = [Person(*user.split(":", 1)) for user in options.user] or _made_people(options)
    nodes = [Address.of(node) for node in options.node]
    traffic = Traffic(options.seconds, pause=options.pause)
    run = asyncio.run(drive(nodes, people, traffic, options.seed))
    run.may_repeat = options.faults
    if options.record:
        save(run, options.record)
    return run


def summary(run: Run) -> str:
    """One line about a run."""
    counts = Counter(sent.acknowledged for sent in run.sent)
    again = sum(sent.tries > 1 for sent in run.sent)
    delivered = sum(len(reader.deliveries) for reader in run.readers)
    connections = sum(reader.connections for reader in run.readers)
    return (
        f"{counts[True]} messages acknowledged, {counts[False]} not, {again} sent again, "
        f"{len(run.edits)} edits; {delivered} deliveries to {len(run.readers)} readers "
        f"on {connections} connections"
    )


def main() -> None:
    run = _recorded(_arguments())
    found = violations(run)
    print(summary(run))
    for violation in found:
        print(violation)
    print(f"{len(found)} violations" if found else "nothing is wrong")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
