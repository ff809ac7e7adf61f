"""The greeting a node prints when it has started."""

import os
import shlex
import shutil
import sys

from broker.config import Config, Storage


def _imctl(config: Config) -> str:
    """How to call imctl for this node from the directory it was started in."""
    program = sys.argv[0]
    if not program.endswith("imctl"):
        command = f"{os.path.relpath(sys.executable)} -m cli"
    else:
        command = "imctl" if shutil.which("imctl") == program else os.path.relpath(program)
    if config.storage.data_dir == Storage().data_dir:
        return command
    return f"{command} --data-dir {shlex.quote(config.storage.data_dir)}"


def greet(config: Config, addresses: dict[str, str]) -> None:
    """Print the node's addresses and the first commands to try."""
    imctl = _imctl(config)
    print(f"Parley is serving, data in {config.data_dir.absolute()}")
    for name, address in addresses.items():
        print(f"  {name:<8} {address}")
    print("Try, in another terminal:")
    print(f"  {imctl} user add alice --password wonderland")
    print(f"  {imctl} user add bob --password builder")
    print(f"  {imctl} send bob hello --as alice", flush=True)
