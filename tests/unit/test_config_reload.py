"""`Config.reload`: which keys change while a node runs, and which need a restart."""

import re
from pathlib import Path

import pytest
import yaml

from broker.config import RELOADED, Config, load

FILE = Path(__file__).resolve().parents[2] / "config" / "broker.yaml"


def config(*settings: str) -> Config:
    return load(FILE, {}, settings)


def sections(tmp_path: Path) -> Config:
    """The configuration of a file with `listeners` and `plugins` only."""
    values = yaml.safe_load(FILE.read_text())
    file = tmp_path / "short.yaml"
    file.write_text(yaml.safe_dump({name: values[name] for name in ("listeners", "plugins")}))
    return load(file, {}, ())


def test_parts_that_hold_a_section_see_the_change() -> None:
    running = config()
    limits, topics = running.limits, running.topics
    changes = running.reload(config("limits.max_queued=5", 'topics.open=["a/#"]'))
    assert sorted(changes.done) == ["limits.max_queued: 1000 -> 5", "topics.open: [] -> ['a/#']"]
    assert changes.need_restart == []
    assert (limits.max_queued, topics.open) == (5, ["a/#"])
    assert running.limits is limits


def test_other_keys_keep_their_values_and_are_named_each_time() -> None:
    running = config()
    new = config("node.id=7", "limits.max_packet_bytes=2048", "listeners.ws.bind=127.0.0.1:1")
    for _ in range(2):
        changes = running.reload(new)
        assert changes.done == []
        assert sorted(changes.need_restart) == ["limits.max_packet_bytes", "listeners.ws", "node.id"]
    assert (running.node.id, running.limits.max_packet_bytes) == (0, 256 * 1024)


def test_plugins_that_come_or_go_are_named() -> None:
    running, new = config(), config()
    without = new.model_copy(update={"plugins": {"a.B": {}}})
    assert f"plugins.{next(iter(running.plugins))}" in running.reload(without).need_restart
    assert "plugins.a.B" in running.reload(without).need_restart


def test_a_reload_changes_no_defaults(tmp_path: Path) -> None:
    running = sections(tmp_path)
    running.reload(config("limits.max_queued=5"))
    assert sections(tmp_path).limits.max_queued == 1000
    changes = running.reload(sections(tmp_path))
    assert changes.done == ["limits.max_queued: 5 -> 1000"]


def test_nothing_changes_twice() -> None:
    running, new = config(), config("log.level=debug")
    assert running.reload(new).done == ["log.level: 'info' -> 'debug'"]
    assert running.reload(new) == ([], [])


@pytest.mark.parametrize("path", sorted(RELOADED))
def test_every_key_that_is_reloaded_exists(path: str) -> None:
    section, _, key = path.partition(".")
    assert hasattr(getattr(config(), section), key)


def test_the_file_marks_the_keys_that_are_reloaded() -> None:
    """`# (reload)` above a section means all of its keys, `# (reload): a, b and c` only these."""
    marked = set()
    for named, section in re.findall(r"^# \(reload\)((?:.*\n#)*.*)\n(\w+):$", FILE.read_text(), re.MULTILINE):
        keys = set(re.findall(r"\w+", named)) - {"and"} or set(type(getattr(config(), section)).model_fields)
        marked |= {f"{section}.{key}" for key in keys}
    assert marked == RELOADED
