"""docs/ARCHITECTURE.md names every file of the package and of the core, in the line of its folder, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "neuralartifactdb"
CORE = ROOT / "src" / "cpp"
TEXT = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
LINES = TEXT.split("### Where to find what\n")[1].split("\n## ")[0].splitlines()
FOLDERS = [folder for folder in (*PACKAGE.iterdir(), *CORE.iterdir()) if folder.is_dir()]


def line_of(folder: str) -> set[str]:
    """The names in the line that has the folder, without endings."""
    [line] = [line for line in LINES if f"`{folder}`:" in line]
    return {name.removesuffix(".h").removesuffix(".inl") for name in re.findall(r"`([^`]+)`", line)}


def files_in(folder: Path) -> set[str]:
    found = {path.stem for pattern in ("*.py", "*.h", "*.cpp", "*.inl") for path in folder.rglob(pattern)}
    return found - {"__init__", "__main__"}


@pytest.mark.parametrize("folder", [f for f in FOLDERS if f.name not in ("__pycache__", "demo")], ids=lambda f: f.name)
def test_every_file_is_named_in_the_line_of_its_folder(folder: Path) -> None:
    name = folder.name if folder.parent == PACKAGE else f"src/cpp/{folder.name}"
    assert files_in(folder) <= line_of(name)


def test_every_module_of_the_package_itself_is_named() -> None:
    [line] = [line for line in LINES if line.startswith("- the package:")]
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert modules == set(re.findall(r"`([^`]+)`", line))


def test_no_file_is_named_that_is_not_there() -> None:
    there = files_in(PACKAGE) | files_in(CORE) | {folder.name for folder in FOLDERS}
    there |= {f"src/cpp/{folder.name}" for folder in FOLDERS if folder.parent == CORE} | {"io", ".py"}
    named = {name.removesuffix(".h").removesuffix(".inl") for line in LINES for name in re.findall(r"`([^`]+)`", line)}
    assert named <= there
