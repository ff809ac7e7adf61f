"""`imctl backup` and `imctl restore`."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import output
from cli.context import CONFIG, Config, connect, options
from cli.errors import CommandError


def backup(
    context: typer.Context,
    target: Annotated[
        Path,
        typer.Argument(
            metavar="FILE_OR_DIR",
            help="A new folder, or an archive: a new file that ends with .tar, .tar.gz or .tgz.",
            show_default=False,
        ),
    ],
) -> None:
    """Back up a running node: all that is stored as of one moment, and its keys.

    The node serves meanwhile. Whoever can read the backup can administer the node and read all messages: its
    files have mode 0600. The configuration and TLS certificates are not in it."""
    from server.backup_files import BackupError, write_backup

    with connect(context) as node, closing(node.listen("AdminService/Backup")) as parts:
        counted = _Counted(parts)
        try:
            write_backup(target, counted)
        except BackupError as error:
            raise CommandError(str(error)) from None
        except OSError as error:
            raise CommandError(f"cannot write {target}: {error.strerror or error}") from None
    output.line(f"{target}: {output.count(counted.files, 'file')}, {counted.size:,} bytes")


class _Counted:
    """The parts of a backup, with a progress bar on standard error if it is a terminal."""

    def __init__(self, parts: Iterable[Any]) -> None:
        self._parts = parts
        self._name = ""
        self.files = 0
        self.size = 0

    def __iter__(self) -> Iterator[Any]:
        if not sys.stderr.isatty():
            for part in self._parts:
                self._count(part)
                yield part
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("the node is copying", total=None)
            for part in self._parts:
                if self._count(part):
                    bar.reset(task, description=part.file, total=part.size)
                bar.advance(task, len(part.data))
                yield part

    def _count(self, part: Any) -> bool:
        """Returns whether the part is the first one of its file."""
        is_new: bool = part.file != self._name
        self._name = part.file
        self.files += is_new
        self.size += len(part.data)
        return is_new


def restore(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(metavar="FILE_OR_DIR", help="What imctl backup has made.", show_default=False)
    ],
    config: Config = CONFIG,
) -> None:
    """Restore a backup into the data directory of a node that does not run.

    What is there is kept in a folder beside it. The stores get a new generation: devices learn that offsets
    they have from before may mean other entries now."""
    from broker.config_sources import ConfigError
    from broker.domain.errors import StoreError
    from server.backup_files import BackupError
    from server.data_dir import StartError
    from server.restoring import restore as run

    try:
        restored = run(source, config, options(context).where)
    except (BackupError, ConfigError, StartError, StoreError) as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"cannot restore {source}: {error.filename or source}: {error.strerror}") from None
    made = output.local_time(restored.created_at)
    output.line(f"restored the backup of {made}, now generation {restored.store.generation}")
    output.line(f"{output.count(restored.sessions, 'session')} will be told what is lost")
    if restored.replaced is not None:
        output.line(f"what was there before is in {restored.replaced}")
