"""The README's code runs, block after block as a reader would, and prints what the README says that it prints."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```python\n(.*?)```(?:\s*```text\n(.*?)```)?", re.DOTALL)


def blocks() -> list[tuple[str, str | None]]:
    return [(found[1], found[2]) for found in BLOCK.finditer(README)]


def steady(printed: str) -> str:
    """Printed output without what depends on the machine's speed."""
    return re.sub(r"about \d+ s", "about ... s", printed).strip()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_block_runs_twice_and_prints_what_it_says(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    for again in (False, True):  # a reader runs the blocks again where the databases are already
        names: dict[str, object] = {"__name__": "__main__"}
        compared = 0
        for position, (source, expected) in enumerate(blocks()):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(source, f"README.md, Python block {position}", "exec"), names)
            if expected is None:
                assert printed.getvalue() == ""
                continue
            compared += 1
            if again and "to index" in expected:  # of the plan: then nothing is left to index
                assert printed.getvalue().startswith("0 of 2,000 inputs to index")
                assert printed.getvalue().splitlines()[-1] == expected.splitlines()[-1]
            else:
                assert steady(printed.getvalue()) == steady(expected)
        assert compared >= 3


def test_the_first_block_needs_neither_torch_nor_a_download(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "smoke.py", ROOT / "README.md"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "without torch, pandas, matplotlib" in done.stdout
    assert len(blocks()[0][0].strip().splitlines()) <= 12


def test_the_smoke_check_can_fail(tmp_path):
    wrong = tmp_path / "README.md"
    wrong.write_text(README.replace("rank     id    score", "rank     id    other", 1), encoding="utf-8")
    command = [sys.executable, ROOT / ".ci" / "smoke.py", wrong]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "expected" in done.stderr


def test_what_the_readme_links_to_exists():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [target for target in targets if "://" not in target and not (ROOT / target).exists()]
    assert missing == []


def test_its_number_stands_in_the_benchmarks():
    found = re.search(r"<!-- number.*?-->\n(.*?)<!-- /number -->", README, re.DOTALL)
    assert found is not None
    measured = (ROOT / "docs" / "BENCHMARKS.md").read_text(encoding="utf-8")
    run = re.search(r"\*\*(\d+) of 10,000\*\*", found[1])
    assert run is not None
    assert re.search(rf"nearest, 10 neurons, storage 0\.2[^\n]*\s{run[1]}\s", measured)


def test_commands_that_it_names_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make (\w+)`?", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
