"""The check that nothing is assigned from outside finds every form of it."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check_assignments.py"

FROM_OUTSIDE = (
    "other.x = 1",
    "other.x += 1",
    "other.x: int = 1",
    "self.other.x = 1",
    "a, other.x = 1, 2",
    "[a, *other.x] = 1, 2",
    "for other.x in (): pass",
    "with open('f') as other.x: pass",
    "del other.x",
    "setattr(other, 'x', 1)",
    "object.__setattr__(other, 'x', 1)",
    "call().x = 1",
    "vars(other)['x'] = 1",
    "other.__dict__.update(x=1)",
    "msgspec.structs.force_setattr(other, 'x', 1)",
    "assign = setattr",
)
FROM_INSIDE = ("self.x = 1", "self.x += 1", "other.x()", "other['x'] = 1", "y = other.x", "del self.x")


def check(folder: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    body = "".join(f"        {line}\n" for line in lines)
    (folder / "module.py").write_text(f"class Some:\n    def method(self, other):\n{body}")
    command = [sys.executable, SCRIPT, folder]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("line", FROM_OUTSIDE)
def test_from_outside(tmp_path: Path, line: str) -> None:
    found = check(tmp_path, "pass", line)
    assert found.returncode == 1
    assert f"{tmp_path / 'module.py'}:4: " in found.stdout


def test_from_inside(tmp_path: Path) -> None:
    assert check(tmp_path, *FROM_INSIDE).returncode == 0


def test_a_function_s_self_is_another_object(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("def tie(self, other):\n    self.x = other\n")
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1


def test_a_folder_without_modules_is_an_error(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "no files to check\n")
