"""The command `nadb`: exit codes, what info and verify say of whole, unfinished and damaged databases, and as JSON."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import neuralartifactdb as nadb
from neuralartifactdb import cli
from neuralartifactdb.cli.text_table import aligned_pairs, aligned_table

N, NEURONS = 400, 30


def features() -> np.ndarray:
    return np.maximum(np.random.default_rng(3).normal(size=(N, 5, 6)), 0).astype(np.float32)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "run.nadb"
    with nadb.open(path) as db:
        db.set_inputs({"label": np.arange(N) % 10, "path": [f"{i}.png" for i in range(N)]}, key="path")
        db.set_inputs({"weight": [None, *np.linspace(0, 1, N - 1)]})
        db.index_arrays("feats", features(), storage="all", progress=False)
        db.index_arrays("coded", features(), storage=0.4, progress=False)
        db.index_function("half", lambda ids: features()[ids, 0], N, 6, fingerprint="v7", storage=0.5, progress=False)
    return path


@pytest.fixture
def copy(database: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(database, tmp_path / "copy.nadb"))


def segment_file(path: Path, name: str) -> Path:
    return max(path.glob(f"segments/*/{name}"), key=lambda file: file.stat().st_size)


def flip(file: Path, offset: int) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 0x10
    file.write_bytes(data)


# --- info -------------------------------------------------------------------------------------------------------------


def test_info_shows_the_facts_of_each_layer(database, capsys):
    assert cli.main(["info", str(database)]) == cli.OK
    out, err = capsys.readouterr()
    assert err == ""
    assert f"{N} inputs, 3 layers" in out
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "5 x 6" in lines["feats"]
    assert "every activation" in lines["feats"]
    assert lines["feats"].endswith("all")
    assert " bits" in lines["coded"]
    assert lines["coded"].endswith("0.4")
    assert "int64" in lines["label"]
    assert lines["path"].endswith("key")
    assert lines["weight"].split()[2] == "1"  # one NULL
    assert "version  v7" in out
    header = next(line for line in out.splitlines() if line.startswith("layer "))
    assert lines["coded"].index("float32") == header.index("dtype")  # aligned


def test_info_as_json_agrees_with_the_api(database, capsys):
    assert cli.main(["info", "--json", str(database)]) == cli.OK
    facts = json.loads(capsys.readouterr().out)
    with nadb.open(database, "r") as db:
        assert facts["n_inputs"] == db.n_inputs == N
        assert facts["nbytes"] == db.nbytes
        assert [layer["key"] for layer in facts["layers"]] == sorted(db.activations)
        for facts_of in facts["layers"]:
            layer = db.activations[facts_of["key"]]
            assert tuple(facts_of["shape"]) == layer.shape
            assert facts_of["n_neurons"] == layer.n_neurons
            assert facts_of["bits"] == layer.bits
            assert facts_of["nbytes"] == layer.nbytes
            assert facts_of["storage"] == layer.storage
            assert facts_of["dtype"] == layer.dtype
            assert facts_of["share_of_float32"] == pytest.approx(layer.nbytes / (4 * N * layer.n_neurons))
            assert facts_of["complete"]
    names = {column["name"]: column for column in facts["attributes"]["columns"]}
    assert facts["attributes"]["key"] == "path"
    assert names["path"]["dtype"] == "text"
    assert names["weight"]["n_null"] == 1


def test_info_of_an_unfinished_index_says_so(tmp_path, capsys, monkeypatch):
    from neuralartifactdb.activations import budget

    monkeypatch.setattr(budget, "MAX_SEGMENT_INPUTS", 1_024)
    rows = np.random.default_rng(0).normal(size=(3_000, 4)).astype(np.float32)
    calls = 0

    def evaluate(ids: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += len(ids) * bool(len(ids) > 16)  # hashing asks for 16 at most
        if calls > 2_500:
            raise KeyboardInterrupt
        return rows[ids]

    with nadb.open(tmp_path / "db") as db, pytest.raises(KeyboardInterrupt):
        db.index_function("f", evaluate, 3_000, 4, fingerprint="1", storage="all", progress=False)
    assert cli.main(["info", str(tmp_path / "db")]) == cli.OK
    out = capsys.readouterr().out
    assert "unfinished: f has 1,000 of 3,000 inputs" in out or "unfinished: f has 2,000 of 3,000 inputs" in out
    assert cli.main(["verify", str(tmp_path / "db")]) == cli.OK


def test_info_shows_a_budget_in_bytes_and_a_model(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU())
    with nadb.open(tmp_path / "db") as db:
        db.index_arrays("feats", features(), storage=30_000, progress=False)
        db.index_activations(model, torch.rand(64, 6), ["0", "1"], name="epoch4", progress=False)
    assert cli.main(["info", str(tmp_path / "db")]) == cli.OK
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert lines["feats"].endswith("29.3 KiB")
    assert "source of epoch4/0, epoch4/1" in out  # one model, one paragraph
    assert lines["name"].split() == ["name", "epoch4"]
    assert lines["class"].endswith("Sequential")
    assert "SHA-256 " in lines["weights"]
    assert "64, 16 of them hashed" in out
    assert f"torch {torch.__version__}" in lines["numerics"]


def test_info_of_a_database_with_attributes_alone(tmp_path, capsys):
    with nadb.open(tmp_path / "db") as db:
        db.set_inputs({"label": [1, 2, 3]})
    assert cli.main(["info", str(tmp_path / "db")]) == cli.OK
    out = capsys.readouterr().out
    assert "3 inputs, 0 layers" in out
    assert "no activation indexes" in out


# --- verify -----------------------------------------------------------------------------------------------------------


def test_verify_reads_every_byte(database, capsys):
    assert cli.main(["verify", "--json", str(database)]) == cli.OK
    report = json.loads(capsys.readouterr().out)
    on_disk = sum(file.stat().st_size for file in database.rglob("*") if file.is_file() and file.name != "lock")
    with nadb.open(database, "r") as db:
        assert report["n_bytes"] >= db.nbytes
    assert report["n_bytes"] <= on_disk
    assert report["intact"]
    assert {part["name"] for part in report["parts"]} == {"versions", "feats", "coded", "half", "attributes"}


@pytest.mark.parametrize(
    "name", ["codes.npy", "bounds.npy", "values.npy", "checksums.npy", "segment.json", "table.parquet"]
)
def test_verify_finds_one_altered_byte(copy, capsys, name):
    file = segment_file(copy, name)
    flip(file, file.stat().st_size // 2)
    assert cli.main(["verify", str(copy)]) == cli.DAMAGED
    out, err = capsys.readouterr()
    assert out.count("DAMAGED (1)") == 1
    assert err.startswith("nadb: ")
    assert name.split(".")[0] in err
    assert "Traceback" not in err


def test_verify_goes_on_after_the_first_damage(copy, capsys):
    for name in ("codes.npy", "values.npy"):
        flip(segment_file(copy, name), 500)
    assert cli.main(["verify", "--json", str(copy)]) == cli.DAMAGED
    report = json.loads(capsys.readouterr().out)
    damaged = {part["name"] for part in report["parts"] if part["problems"]}
    assert len(damaged) == 2
    assert "feats" in damaged
    assert not report["intact"]


def test_verify_finds_a_missing_and_a_truncated_file(copy, capsys):
    segment_file(copy, "bounds.npy").unlink()
    values = segment_file(copy, "values.npy")
    values.write_bytes(values.read_bytes()[:-7])
    assert cli.main(["verify", str(copy)]) == cli.DAMAGED
    err = capsys.readouterr().err
    assert "bounds.npy" in err
    assert "no such file" in err
    assert "values.npy" in err


def test_verify_mentions_leftovers_and_calls_them_harmless(copy, capsys):
    (copy / "segments" / "0123456789abcdef").mkdir()
    assert cli.main(["verify", str(copy)]) == cli.OK
    assert "1 unused segment left behind" in capsys.readouterr().out


# --- invariants: segments whose checksums hold, but that were written wrong -------------------------------------------


class Fake:
    """A segment reader over arrays in memory."""

    def __init__(self, path: Path, change: dict) -> None:
        from neuralartifactdb.storage.directory import DatabaseDirectory

        with DatabaseDirectory(path, "r") as directory:
            entry = directory.state().indexes["coded"]
            reader = directory.reader(entry.segments[0])
            self.ref, self.meta, self.arrays, self.index = reader.ref, dict(reader.meta), reader.arrays, entry.meta
            self._held = {name: reader.array(name).copy() for name in reader.arrays}
        for name, value in change.items():
            if name in self._held:
                value(self._held[name].reshape(-1))
            else:
                self.meta[name] = value

    def array(self, name: str) -> np.ndarray:
        return self._held[name]


def problems(database: Path, **change: object) -> list[str]:
    from neuralartifactdb.cli.invariants import segment_problems

    fake = Fake(database, change)
    return list(segment_problems(fake, fake.index))  # type: ignore[arg-type]


def test_a_sound_segment_has_no_problems(database):
    assert problems(database) == []


def test_bounds_that_are_not_sound(database):
    def swap(bounds: np.ndarray) -> None:
        pairs = bounds.reshape(-1, 2)
        wide = int(np.argmax(pairs[:, 0] < pairs[:, 1]))
        pairs[wide] = pairs[wide, ::-1]

    assert "no sound bounds" in problems(database, bounds=swap)[0]


def test_bounds_of_a_partition_that_is_empty_or_overlaps(database):
    def widen(bounds: np.ndarray) -> None:
        pairs = bounds.reshape(-1, 2)
        used = np.flatnonzero(np.isfinite(pairs[:, 0]))
        pairs[used[1], 0] = pairs[used[0], 0]  # two partitions of neuron 0

    assert any("overlaps" in problem for problem in problems(database, bounds=widen))

    def erase(bounds: np.ndarray) -> None:
        bounds.reshape(-1, 2)[0] = (np.inf, -np.inf)

    assert "hold inputs but have no sound bounds" in problems(database, bounds=erase)[0]


def test_maxima_that_do_not_fit_codes_or_bounds(database):
    assert any("maxima of neuron" in p for p in problems(database, maxima=lambda m: m.__setitem__(0, m[0] + 1)))

    def shift(starts: np.ndarray) -> None:
        starts[0] += 1

    assert any("'starts' does not cut" in p or "another number" in p for p in problems(database, starts=shift))


def test_segments_must_follow_one_another(database):
    from neuralartifactdb.cli.invariants import index_problems

    fake = Fake(database, {"first": 5})
    assert "must begin at input 0" in next(iter(index_problems([fake], fake.index)))  # type: ignore[list-item]
    sound, short = Fake(database, {}), {**fake.index, "n_inputs": 3}
    assert "expected at most 3" in next(iter(index_problems([sound], short)))  # type: ignore[list-item]


# --- errors and exit codes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["info", "verify"])
def test_no_database_is_an_error(tmp_path, capsys, command):
    assert cli.main([command, str(tmp_path / "none")]) == cli.ERROR
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("nadb: no database at ")
    assert "mode" not in err
    assert "neuralartifactdb.open(path)" in err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("command", ["info", "verify"])
def test_what_is_not_a_readable_database_exits_with_3(tmp_path, capsys, command, copy):
    (tmp_path / "file").write_text("hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.txt").write_text("hello")
    newest = max((copy / "versions").iterdir())
    flip(newest, 60)
    for path in (tmp_path / "file", tmp_path / "folder", copy):
        assert cli.main([command, str(path)]) == cli.DAMAGED
        assert capsys.readouterr().err.startswith("nadb: ")


@pytest.mark.parametrize(
    "arguments",
    [[], ["frobnicate"], ["info"], ["info", "a", "b"], ["demo", "--inputs", "10"], ["demo", "--storage", "2"]],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    assert cli.main(arguments) == cli.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "usage: nadb" in err


def test_help_documents_the_exit_codes(capsys):
    assert cli.main(["verify", "--help"]) == cli.OK
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for code, word in ((0, "stdout"), (1, "error"), (2, "usage"), (3, "damaged"), (130, "Ctrl-C")):
        assert any(line.strip().startswith(str(code)) and word in line for line in out.splitlines())
    assert cli.main(["--version"]) == cli.OK
    assert capsys.readouterr().out == f"nadb {nadb.__version__}\n"


def test_interrupt_exits_with_130_and_a_bug_is_not_hidden(database, capsys, monkeypatch):
    from neuralartifactdb.cli import info

    def stop(path: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "describe", stop)
    assert cli.main(["info", str(database)]) == cli.INTERRUPTED
    assert capsys.readouterr().err == "nadb: interrupted\n"

    def bug(path: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(info, "describe", bug)
    with pytest.raises(ZeroDivisionError):
        cli.main(["info", str(database)])


def test_as_a_process_whose_reader_went_away(database):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "neuralartifactdb", "info", "--json", str(database)]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (cli.OK, "")


def test_info_imports_no_torch_and_no_demo(database):
    code = (
        "import sys\nfrom neuralartifactdb.cli import main\n"
        f"main(['info', {str(database)!r}])\n"
        "assert not {'torch', 'sklearn', 'matplotlib'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60, env={**os.environ})


# --- tables -----------------------------------------------------------------------------------------------------------


def test_tables_align_and_have_no_trailing_space():
    text = aligned_table(["layer", "bytes", "note"], [["a", "1,024", ""], ["longer", "9", "x"]], indent=2)
    assert text.splitlines() == ["  layer   bytes  note", "  a       1,024", "  longer      9  x"]
    assert aligned_table(["a", "b"], []) == "a  b\n"
    assert aligned_pairs([("n", "1"), ("name", "x")]) == "  n     1\n  name  x\n"
