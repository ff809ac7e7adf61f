"""The servers that tests use: they answer, are shared, and end with the run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.integration.node import wait_for
from tests.servers import mariadb, postgres
from tests.servers.processes import find

ROOT = Path(__file__).parents[2]

_RUN = """
import sys, time
from pathlib import Path
from tests.servers.processes import begin_run, folder_of, keep, shared, end_run
begin_run()
def start(folder):
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    keep("sleeper", sleep, folder_of(folder, "sleeper"), lambda: True)
    return str(folder)
folder = Path(shared("sleeper", start))
assert shared("sleeper", lambda _: "started twice") == str(folder)
while not (folder / "sleeper.keeper").exists():
    time.sleep(0.01)
print(folder, (folder / "sleeper.keeper").read_text(), flush=True)
if sys.stdin.readline():
    end_run(keep_logs=False)
"""


@pytest.mark.parametrize("killed", [False, True])
def test_a_server_ends_with_the_run(killed: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_TEST")}
    run = subprocess.Popen(
        [sys.executable, "-c", _RUN],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdin is not None
    assert run.stdout is not None
    folder, pid = run.stdout.readline().split()
    keeper = psutil.Process(int(pid))
    wait_for(keeper.children, "the server to start")
    (server,) = keeper.children()
    if killed:
        run.kill()
    run.communicate("end\n" if not killed else None)
    wait_for(lambda: not server.is_running() and not keeper.is_running(), "the server to end")
    assert not (Path(folder) / "sleeper").exists()
    assert killed or not Path(folder).exists()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_program_that_is_missing() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"no-such-program .* apt-get install no-such-package"):
        find("no-such-program", "no-such-package")


async def test_each_database_is_new() -> None:
    for kind in (mariadb, postgres):
        for _ in range(2):
            async with kind.new_database() as url:
                assert await kind.run(url, "CREATE TABLE once (id INTEGER)", "SELECT * FROM once") == []
