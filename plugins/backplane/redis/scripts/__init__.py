"""The scripts that Redis runs. Each is one step that nothing comes in between."""

from pathlib import Path

_FOLDER = Path(__file__).parent


def script(name: str) -> str:
    """The text of a script."""
    return (_FOLDER / f"{name}.lua").read_text()
