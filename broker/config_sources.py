"""Gathers the values of the configuration, and remembers where each came from.

Later sources win: the file, `IM_KEY__PATH` variables, `--set key.path=value`. A fault is reported with the
file and line, the variable or the option that it is in, whatever finds it.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ENV_PREFIX = "IM_"

_PART_ENDS = re.compile(r"[.:, ]")


class ConfigError(Exception):
    """The configuration is wrong. The text names the path of the key, and where its value came from."""


class Sources:
    """Where the value of each key came from, by the key's path with dots."""

    def __init__(self, default: str = "") -> None:
        self._default = default
        self._known: dict[str, str] = {}

    def note(self, path: str, source: str) -> None:
        """The value of a key, and all below it, came from here."""
        below = f"{path}."
        for gone in [known for known in self._known if known.startswith(below)]:
            del self._known[gone]
        self._known[path] = source

    def add(self, path: str, source: str) -> None:
        """A part of a value came from here."""
        self._known[path] = source

    def named(self, fault: str) -> str:
        """A text that begins with the path of a key, with the source of that key in front: of the key
        itself, or else of the nearest one above it. Each line is a text of its own."""
        return "\n".join(f"{self._of(line)}: {line}" for line in fault.splitlines())

    def _of(self, fault: str) -> str:
        # The path ends where a part of it does not: try all prefixes, the longest first.
        ends = [match.start() for match in _PART_ENDS.finditer(fault + " ")]
        known = (self._known.get(fault[:end]) for end in reversed(ends))
        return next(filter(None, known), self._default)


class Gathered:
    """The values of all sources so far, as in the file: sections of keys."""

    def __init__(self, file: Path) -> None:
        """Read the file.

        Raises:
            ConfigError: it is missing, or not YAML.
        """
        self.sources = Sources(str(file))
        self.values = _read(file, self.sources)

    def take_environment(self, environment: Mapping[str, str], sections: Collection[str]) -> None:
        """Variables override the file. Only those of these sections: other programs use the prefix, too."""
        for name, text in sorted(environment.items()):
            if name.startswith(ENV_PREFIX):
                path = name.removeprefix(ENV_PREFIX).lower().split("__")
                if path[0] in sections:
                    self.put(path, _value(name, text), name)

    def take_settings(self, settings: Iterable[str]) -> None:
        """`key.path=value`, with the value in YAML, override the file and variables.

        Raises:
            ConfigError: one of them is not of this form.
        """
        for setting in settings:
            key, separator, text = setting.partition("=")
            if not separator:
                raise ConfigError(f"--set {setting}: expected key.path=value")
            source = f"--set {key}"
            self.put(_split(self.values, key), _value(source, text), source)

    def put(self, path: Sequence[str], value: object, source: str) -> None:
        """Set the value of a key."""
        here = self.values
        for depth, level in enumerate(path[:-1], start=1):
            inner = here.get(level)
            if not isinstance(inner, dict):
                inner = here[level] = {}
                self.sources.note(".".join(path[:depth]), source)
            here = inner
        here[path[-1]] = value
        self.sources.note(".".join(path), source)


def _read(file: Path, sources: Sources) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
        values = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f":{error.problem_mark.line + 1}"
        raise ConfigError(f"{file}{line}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: expected sections, found {type(values).__name__}")
    _note_lines(yaml.compose(text, Loader=yaml.SafeLoader), "", file, sources)
    return values


def _note_lines(node: Any, path: str, file: Path, sources: Sources) -> None:
    """Note the lines of the keys of a YAML mapping, and of those in it. Any: yaml has no types."""
    if isinstance(node, yaml.SequenceNode):
        # amqtt's list of plugins: each item is a mapping, and errors do not count the items.
        for item in node.value:
            _note_lines(item, path, file, sources)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = f"{path}.{key.value}" if path else str(key.value)
            sources.add(below, f"{file}:{key.start_mark.line + 1}")
            if value.start_mark.index > key.start_mark.index:  # not an alias, which may lead back here
                _note_lines(value, below, file, sources)


def _value(name: str, text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: {text!r} is not valid YAML") from error


def _split(values: dict[str, Any], key: str) -> list[str]:
    """Split a dotted path. A key may itself hold dots, as a plugin's name: the longest key that exists in
    `values` is taken."""
    parts = key.split(".")
    path: list[str] = []
    here: object = values
    while parts:
        known = here if isinstance(here, dict) else {}
        count = next((n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in known), 1)
        path.append(".".join(parts[:count]))
        here = known.get(path[-1])
        parts = parts[count:]
    return path
