"""`Capture` and numbers of bytes: what is accepted, and what each refusal says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from neuralartifactdb.capture import Capture
from neuralartifactdb.errors import DtypeError, InvalidValueError
from neuralartifactdb.quantities import format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"batch_size": 0}, InvalidValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": 2.0}, DtypeError, "batch_size must be an int, got 2.0"),
        ({"batch_size": True}, DtypeError, "batch_size must be an int, got True"),
        ({"num_workers": -1}, InvalidValueError, "num_workers must be at least 0, got -1"),
        ({"seed": "x"}, DtypeError, "seed must be an int, got 'x'"),
        ({"call": -2}, InvalidValueError, "call must be at least -1, got -2"),
        ({"reduce": "median"}, InvalidValueError, "got 'median'"),
        ({"reduce": ["max"]}, DtypeError, "got .'max'."),
        ({"reduce": ("max",)}, InvalidValueError, "max"),
        ({"reduce": ("max", 0)}, InvalidValueError, "other than 0, the batch"),
        ({"reduce": ("max", (1, 1))}, InvalidValueError, "distinct axes"),
        ({"reduce": ("max", "1")}, DtypeError, "axes as an int"),
        ({"reduce": {"a": "sum"}}, InvalidValueError, "Capture.reduce.'a'."),
        ({"positions": 3}, DtypeError, "positions must be a function"),
        ({"forward": "f"}, DtypeError, "forward must be a function"),
        ({"collate_fn": 1}, DtypeError, "collate_fn must be a function"),
        ({"output": 1.5}, DtypeError, "output must be a function, an index, a key"),
        ({"output": {"a": True}}, DtypeError, "Capture.output.'a'."),
        ({"device": 0}, DtypeError, "device must be a text"),
        ({"memory_limit": "1 parsec"}, InvalidValueError, "memory_limit.*1 parsec"),
        ({"memory_limit": 0}, InvalidValueError, "from 1 byte"),
    ],
)
def test_refuses_what_cannot_be_meant(options, error, words):
    with pytest.raises(error, match=words):
        Capture(**options)


def test_takes_every_documented_form():
    for reduce in (None, "max", "mean", ("max", 1), ("mean", (1, -1)), abs, {"a": "max", "b.*": None}):
        assert Capture(reduce=reduce).reduce == reduce
    assert Capture(memory_limit="64MiB").memory_limit_bytes == 64 << 20
    assert Capture().batch_size == 256


def test_bytes_with_units():
    assert [parse_bytes(v) for v in (7, "7", "7 B", "2kB", "2KiB", "1.5 MB", ".5GiB", "1e3")] == [
        7, 7, 7, 2000, 2048, 1_500_000, 1 << 29, 1000,
    ]  # fmt: skip
    assert parse_bytes("9007199254740993") == 9007199254740993  # beyond what a float holds
    for bad in ("", "GB", "-1", "1 XB", "nan", "1e999", 0, -5, 2**63):
        with pytest.raises(InvalidValueError):
            parse_bytes(bad, "storage")
    for bad in (1.5, None, True):
        with pytest.raises(DtypeError, match="storage must be"):
            parse_bytes(bad, "storage")
    assert [format_bytes(n) for n in (0, 1023, 1024, 10_485_760, 2**40)] == [
        "0 B", "1023 B", "1.00 KiB", "10.0 MiB", "1.00 TiB",
    ]  # fmt: skip


def test_options_need_no_torch():
    code = (
        "import sys, neuralartifactdb.capture as c; c.Capture(batch_size=3); assert 'torch' not in sys.modules;"
        "import importlib.abc\n"
        "class No(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.split('.')[0] == 'torch': raise ModuleNotFoundError('No module named torch', name='torch')\n"
        "sys.meta_path.insert(0, No())\n"
        "try: c.ModelSource\n"
        "except ImportError as e: print(type(e).__name__, e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ExtraMissingError" in done.stdout
    assert "pip install 'neuralartifactdb[torch]'" in done.stdout
