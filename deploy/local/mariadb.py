"""MariaDB, which refuses to run as root."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from deploy.local.layout import HOST, Layout
from deploy.local.running import ClusterError, Program, as_user, find

USER = "mysql"
"""Who runs it if root starts the cluster."""
DATABASE = "parley"
"""Also the name and the password of the account of the nodes."""
_PACKAGE = "mariadb-server"
_ELSEWHERE = "/var/tmp"  # noqa: S108  # a new folder is made in it, for this user alone


def mariadb(layout: Layout) -> Program:
    """The server, with a database and an account for the nodes. Its tables are made if there are none."""
    log = layout.folder / "mariadb.log"
    data = _prepared(layout.folder, log)
    first = data / "parley.sql"
    account = f"'{DATABASE}'@'{HOST}'"
    first.write_text(
        f"CREATE DATABASE IF NOT EXISTS {DATABASE};\n"
        f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY '{DATABASE}';\n"
        f"GRANT ALL ON {DATABASE}.* TO {account};\n"
    )
    command = (
        *(find("mariadbd", _PACKAGE), "--no-defaults", f"--datadir={data}", f"--port={layout.mariadb}"),
        *(f"--bind-address={HOST}", "--socket=socket", "--pid-file=pid", "--skip-name-resolve"),
        *(f"--init-file={first}", "--max-connections=500", "--innodb-buffer-pool-size=128M"),
    )
    return Program("mariadb", command, log, lambda: _greets(layout.mariadb), USER, data)


def _prepared(folder: Path, log: Path) -> Path:
    data, done = folder / "mariadb", folder / "mariadb.installed"
    if done.exists() and data.exists():
        return data.resolve()
    done.unlink(missing_ok=True)
    _remove(data)  # a first start that was interrupted
    place = _new_folder(data)
    command = (find("mariadb-install-db", _PACKAGE), "--no-defaults", f"--datadir={place}")
    options = as_user(USER)
    with log.open("ab") as out:
        installed = subprocess.run(
            [*command, "--skip-test-db", "--skip-name-resolve"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            check=False,
            cwd=place,
            **options,
        )
    if installed.returncode:
        raise ClusterError(f"MariaDB's tables cannot be made; see {log}")
    done.touch()
    return place


def _remove(data: Path) -> None:
    if data.is_symlink():
        shutil.rmtree(data.resolve(), ignore_errors=True)
        data.unlink()
    shutil.rmtree(data, ignore_errors=True)


def _new_folder(data: Path) -> Path:
    """The new folder `data`. If the server's user cannot reach it, as below root's home, it is one elsewhere
    that `data` is a link to."""
    data.mkdir()
    if os.getuid() != 0:
        return data
    shutil.chown(data, USER, USER)
    if subprocess.run(["/usr/bin/test", "-w", str(data)], check=False, **as_user(USER)).returncode == 0:
        return data
    data.rmdir()
    place = Path(tempfile.mkdtemp(prefix="parley-mariadb-", dir=_ELSEWHERE))
    shutil.chown(place, USER, USER)
    data.symlink_to(place)
    return place


def _greets(port: int) -> bool:
    """MariaDB speaks first, once it takes connections."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            return bool(connection.recv(1))
    except OSError:
        return False
