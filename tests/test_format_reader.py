"""docs/FORMAT.md holds: its reader, taken from the page, reads what the package writes, and its example is real."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuralartifactdb.storage import DatabaseDirectory, SegmentRef, SegmentWriter, WriteTransaction

PAGE = (Path(__file__).parent.parent / "docs" / "FORMAT.md").read_text()


@pytest.fixture(scope="module")
def reader() -> dict[str, Any]:
    """The names that the reader of the page defines."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code.count("\n") < 40
    assert set(re.findall(r"^import (.*)$", code, re.MULTILINE)) == {"json, os, zlib", "numpy as np"}
    names: dict[str, Any] = {}
    exec(compile(code, "docs/FORMAT.md", "exec"), names)
    return names


def test_the_page_is_short_enough() -> None:
    assert PAGE.count("\n") <= 200


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Rows of codes as rows of bytes, as slowly and plainly as the page says it."""
    n_neurons, n = codes.shape
    out = np.zeros((n_neurons, -(-n * bits // 8)), np.uint8)
    for j in range(n_neurons):
        for i in range(n):
            for bit in range(bits):
                if int(codes[j, i]) >> bit & 1:
                    at = i * bits + bit
                    out[j, at // 8] |= 1 << at % 8
    return out


STORED = {"float16": np.float16, "bfloat16": np.uint16, "float32": np.float32, "float64": np.float64}


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values, exact in the dtype, as they are stored."""
    if dtype == "bfloat16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(STORED[dtype])


def write_segment(
    writer: SegmentWriter, first: int, values: np.ndarray, dtype: str, bits: int, rows: int
) -> tuple[SegmentRef, np.ndarray, np.ndarray]:
    """Write a segment of small whole values (exact in every dtype), and say which intervals must be read."""
    n, m = values.shape
    meta = {"first": first, "n": n, "bits": bits, "row_group": rows, "n_neurons": m}
    groups = [values[i : i + rows] for i in range(0, n, rows)] if rows else []
    if not bits:
        if not rows:  # nothing is kept
            return writer.commit(meta), np.full((n, m), -np.inf), np.full((n, m), np.inf)
        out = writer.create_array("values", STORED[dtype], block_bytes=24)
        for group in groups:
            out.write(np.ascontiguousarray(stored(group.T, dtype)))
        return writer.commit(meta), values, values
    n_partitions = 1 << bits
    edges = np.linspace(-9, 9, n_partitions - 1)
    codes = np.searchsorted(edges, values, side="right")
    bounds = np.empty((m, n_partitions, 2))
    bounds[:] = [np.inf, -np.inf]
    lower, upper = np.empty((n, m)), np.empty((n, m))
    maxima: list[float] = []
    starts = np.zeros((m, len(groups) + 1), np.uint32)
    with writer.create_array("codes", np.uint8, block_bytes=7) as out:
        for g in range(len(groups)):
            out.write(pack(codes[g * rows : (g + 1) * rows].T, bits))
    for j in range(m):
        for code in range(n_partitions):
            inside = values[codes[:, j] == code, j]
            if inside.size:
                bounds[j, code] = inside.min(), inside.max()
        lower[:, j], upper[:, j] = bounds[j, codes[:, j]].T
        starts[j] = len(maxima)
        if j % 2:  # every other neuron keeps its maxima
            for g in range(len(groups)):
                top = g * rows + np.flatnonzero(codes[g * rows : (g + 1) * rows, j] == n_partitions - 1)
                maxima += values[top, j].tolist()
                starts[j, g + 1 :] = len(maxima)
                lower[top, j] = upper[top, j] = values[top, j]
    writer.add_array("bounds", stored(bounds, dtype))
    if maxima:
        writer.add_array("starts", starts)
        writer.add_array("maxima", stored(np.array(maxima), dtype), block_bytes=10)
    writer.add_array("tolerance", np.ones(m, np.float32))
    return writer.commit(meta), lower, upper


def check(reader: dict[str, Any], path: Path, key: str, dtype: str, expected: list[Any]) -> None:
    _, segments = reader["indexes"](str(path))[key]
    assert len(segments) == len(expected)
    for segment, (first, lower, upper) in zip(segments, expected, strict=True):
        found = reader["intervals"](str(path), segment, dtype)
        assert found[0] == first
        assert np.array_equal(found[1], lower)
        assert np.array_equal(found[2], upper)


@pytest.mark.parametrize("dtype", STORED)
def test_intervals(reader: dict[str, Any], tmp_path: Path, dtype: str) -> None:
    rng = np.random.default_rng(7)
    cases = [(bits, rows) for bits in (1, 2, 3, 5, 8, 12) for rows in (4, 9, 100)] + [(0, 4), (0, 100), (0, 0)]
    expected: list[Any] = []
    with DatabaseDirectory(tmp_path / "db") as directory, directory.write() as tx:
        tx.commit([{"op": "create_index", "index": "l", "meta": {"dtype": dtype}}])
        first = 0
        for bits, rows in cases:
            n = int(rng.integers(1, 23))
            values = rng.integers(-10, 11, (n, 5)).astype(np.float64)
            values[:, 3] = 10  # all in the top partition
            ref, lower, upper = write_segment(tx.new_segment(), first, values, dtype, bits, rows)
            tx.commit([{"op": "add_segment", "index": "l", "segment": ref, "meta": {"n_inputs": first + n}}])
            expected.append((first, lower, upper))
            first += n
            assert ((lower <= values) & (values <= upper)).all()
    check(reader, tmp_path / "db", "l", dtype, expected)
    assert reader["indexes"](str(tmp_path / "db"))["l"][0] == {"dtype": dtype, "n_inputs": first}


def test_every_kind_of_change_and_more_than_one_whole_list(reader: dict[str, Any], tmp_path: Path) -> None:
    def segment(tx: WriteTransaction, first: int) -> SegmentRef:
        return write_segment(tx.new_segment(), first, np.ones((2, 1)), "float32", 0, 2)[0]

    with DatabaseDirectory(tmp_path / "db") as directory, directory.write() as tx:
        for number in range(70):
            tx.commit([{"op": "create_index", "index": f"i{number}", "meta": {}, "segments": [segment(tx, number)]}])
        tx.commit([{"op": "drop_index", "index": "i3"}, {"op": "set_index_meta", "index": "i4", "meta": {"a": 1}}])
        tx.commit([{"op": "replace_index", "index": "i69", "meta": {"b": 2}, "segments": [segment(tx, 5)]}])
        tx.commit([{"op": "add_segment", "index": "i4", "segment": segment(tx, 6)}])
        tx.commit([{"op": "set_inputs", "segments": [], "key": None, "meta": {}}])
        state = tx.state
    found = reader["indexes"](str(tmp_path / "db"))
    assert found == {key: [index.meta, [list(s) for s in index.segments]] for key, index in state.indexes.items()}
    assert len(found) == 69


def test_the_reader_notices_damage(reader: dict[str, Any], tmp_path: Path) -> None:
    with DatabaseDirectory(tmp_path / "db") as directory, directory.write() as tx:
        ref, _, _ = write_segment(tx.new_segment(), 0, np.ones((30, 3)), "float32", 3, 10)
        tx.commit([{"op": "create_index", "index": "l", "meta": {}, "segments": [ref]}])
    for name in (f"segments/{ref.id}/codes.npy", f"segments/{ref.id}/segment.json", f"versions/{2:020d}.json"):
        file = tmp_path / "db" / name
        data = file.read_bytes()
        file.write_bytes(data[:135] + bytes([data[135] ^ 4]) + data[136:])
        with pytest.raises(AssertionError, match="is damaged"):
            reader["intervals"](str(tmp_path / "db"), reader["indexes"](str(tmp_path / "db"))["l"][1][0], "float32")
        file.write_bytes(data)


def test_the_hex_dump_is_what_is_written(tmp_path: Path) -> None:
    with DatabaseDirectory(tmp_path / "db") as directory, directory.write() as tx:
        writer = tx.new_segment()
        writer.create_array("codes", np.uint8).write(pack(np.array([[1, 0, 7, 3, 2], [0, 0, 1, 0, 6]]), 3))
        ref = writer.commit({})
        data = (tmp_path / "db" / "segments" / ref.id / "codes.npy").read_bytes()
    lines = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        both = " ".join(f"{byte:02x}" for byte in row[:8]), " ".join(f"{byte:02x}" for byte in row[8:])
        lines.append(f"{at:08x}  {both[0]:<23}  {both[1]:<23}  |{text}|")
    assert "\n".join(lines) in PAGE


def test_it_reads_what_the_package_indexes(reader: dict[str, Any], tmp_path: Path) -> None:
    nadb = pytest.importorskip("neuralartifactdb", exc_type=ImportError)
    pytest.importorskip("neuralartifactdb._core", exc_type=ImportError)
    values = np.maximum(np.random.default_rng(0).standard_normal((3000, 40)), 0).astype(np.float32)
    with nadb.open(tmp_path / "db") as db:
        db.index_arrays("coded", values, storage=0.2)
        db.index_arrays("kept", values, storage="all")
    for key in ("coded", "kept"):
        _, segments = reader["indexes"](str(tmp_path / "db"))[key]
        for segment in segments:
            first, lower, upper = reader["intervals"](str(tmp_path / "db"), segment, "float32")
            inside = values[first : first + len(lower)]
            assert ((lower <= inside) & (inside <= upper)).all()
            assert np.mean(lower == upper) > (0.99 if key == "kept" else 0.4)  # ReLU's zeros and the maxima are exact


def named(section: str, sentence: str = "") -> set[str]:
    """Names in backticks of a section; of a sentence that begins so, those outside parentheses."""
    text = " ".join(PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0].split())
    if sentence:
        text = re.sub(r"\([^()]*\)", "", text.split(sentence)[1].split(". ")[0])
    return set(re.findall(r"`([a-z_0-9]+)`", text))


def test_every_key_that_is_written_is_on_the_page(reader: dict[str, Any], tmp_path: Path) -> None:
    """And of descriptions no other: what the page lists is what the package writes."""
    nadb = pytest.importorskip("neuralartifactdb", exc_type=ImportError)
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    pixels = np.zeros((12, 4, 5), np.uint8)
    with nadb.open(tmp_path / "db") as db:
        db.set_inputs({"label": np.arange(300)})
        db.index_arrays("kept", values)
        db.index_arrays("coded", values, storage=0.4)
        db.index_function("computed", lambda ids: values[ids], 300, (8,), fingerprint="v1", storage=0.4)
        db.index_activations(
            torch.nn.Sequential(torch.nn.Linear(8, 4)), torch.from_numpy(values), ["0"], progress=False
        )
        for index in ("append", "lazy"):
            masks = db.create_masks(index, dtype="uint8", index=index)
            boxes = {"object": [[1, 2, 3, 4]] * 12}
            masks.append(pixels, input_id=range(12), boxes=boxes, attrs={"model": "a"}, progress=False)
            masks.filter(nadb.count((0, 0, 3, 3), 3) > 2)
            masks.append([pixels[0], pixels[1, :2]], input_id=[0, 1], replace_on="input_id", progress=False)
            masks.delete([5])
        del db.activations["kept"], db.masks["append"]
    found: dict[str, set[str]] = {}
    for version in sorted((tmp_path / "db" / "versions").iterdir()):
        body = reader["sealed"](version)
        found.setdefault("version", set()).update(body)
        for change in body["changes"]:
            found.setdefault("change", set()).update(change)
            found["change"].add(change["op"])
            if "meta" in change and change["op"] != "set_inputs":
                what = "index" if "index" in change else "collection"
                found.setdefault(what, set()).update(change["meta"])
                for part in ("storage", "probes") if what == "index" else ():
                    found.setdefault("index parts", set()).update(change["meta"][part])
    for folder in (tmp_path / "db" / "segments").iterdir():
        body = reader["sealed"](folder / "segment.json")
        found.setdefault("manifest", set()).update(body, *body["arrays"])
        found.setdefault(body["kind"], set()).update(body["meta"])
        found.setdefault("arrays", set()).update(entry["name"].split(".")[0] for entry in body["arrays"])
    activations, masks_page = "An activation index", "A collection of masks"
    assert found["index"] == named(activations, "Index `meta`:")
    assert found["activations"] == named(activations, "Segment `meta`:")
    assert found["index parts"] <= named(activations)
    assert found["collection"] == named(masks_page, "Collection `meta`:")
    assert found["masks"] == named(masks_page, "Segment `meta`:")
    assert found["mask_index"] | found["mask_deletes"] <= named(masks_page)
    assert found["version"] | found["change"] <= named("Version files")
    assert found["manifest"] | found["inputs"] <= named("Segments")
    assert found["arrays"] <= named(activations) | named(masks_page) | {"table"}
    for kind in ("activations", "masks", "inputs", "mask_deletes", "mask_index"):
        assert kind in named("Segments")


@pytest.mark.parametrize("index", ["append", "lazy"])
def test_masks_are_as_the_page_says(reader: dict[str, Any], tmp_path: Path, index: str) -> None:
    nadb = pytest.importorskip("neuralartifactdb", exc_type=ImportError)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2100, 7, 9), dtype=np.uint8)
    with nadb.open(tmp_path / "db") as db:
        masks = db.create_masks("cams", dtype="uint8", nodata=255, index=index, grid=2, edges=[0, 50, 200])
        masks.append(pixels, input_id=np.arange(2100), boxes={"object": [[1, 2, 3, 4]] * 2100}, attrs={"model": "a"})
        masks.append([pixels[0], pixels[1, :5, :2]], input_id=[5, 6])
        masks.delete([7])
        masks.filter(nadb.count(nadb.whole, 51, 190) > 20)  # fills in an index that is lazy
    names = sorted((tmp_path / "db" / "versions").iterdir())
    changes = [change for name in names for change in reader["sealed"](name)["changes"]]
    of_masks = [change for change in changes if change.get("masks") == "cams"]
    meta: dict[str, Any] = {}
    for change in of_masks:
        meta |= change.get("meta", {})
    assert (meta["dtype"], meta["nodata"], meta["grid"], meta["edges"], meta["next_id"]) == (
        "uint8",
        255,
        2,
        [0, 50, 200],
        2102,
    )

    def arrays(segment: list[Any]) -> tuple[dict[str, Any], Callable[[str], np.ndarray]]:
        folder = tmp_path / "db" / "segments" / segment[0]
        return reader["sealed"](folder / "segment.json"), lambda name: np.load(folder / f"{name}.npy")

    def byte(mask: np.ndarray, edge: int, i: int, j: int) -> int:
        (height, width), g = mask.shape, 2
        cell = mask[i * height // g : (i + 1) * height // g, j * width // g : (j + 1) * width // g]
        return int(((cell >= edge) & (cell != 255)).sum()) // (-(-height // g) * -(-width // g) // 256 + 1)

    def check_rows(histograms: np.ndarray, ids: list[int], masks_of: Any) -> None:
        for at in (0, 2047, 2048, len(ids) - 1):
            if 0 <= at < len(ids):
                start = at // 2048 * 2048
                n = min(2048, len(ids) - start)
                block = histograms[start * 12 : (start + n) * 12].reshape(3, n, 2, 2)
                for b, edge in enumerate(meta["edges"]):
                    expected = [[byte(masks_of(ids[at]), edge, i, j) for j in (0, 1)] for i in (0, 1)]
                    assert block[b, at - start].tolist() == expected

    first, second = (
        segment for change in of_masks if change["op"] == "add_mask_segments" for segment in change["segments"]
    )
    (deleted,) = (segment for change in of_masks if change["op"] == "delete_masks" for segment in change["segments"])
    body, load = arrays(first)
    assert (body["kind"], body["meta"]["first"], body["meta"]["n"], body["meta"]["shape"]) == ("masks", 0, 2100, [7, 9])
    assert np.array_equal(load("pixels").reshape(2100, 7, 9), pixels)
    assert load("boxes")[5].tolist() == [[1, 2, 3, 4]]
    if index == "append":
        assert load("edges").tolist() == meta["edges"]
        check_rows(load("histograms"), list(range(2100)), lambda i: pixels[i])
    else:
        filled = [segment for change in changes if change["op"] == "add_mask_index" for segment in change["segments"]]
        assert filled
        for segment in filled:
            body, load = arrays(segment)
            if body["meta"]["of"] == 0:
                check_rows(load("histograms"), load("ids").tolist(), lambda i: pixels[i])
    body, load = arrays(second)
    assert (body["meta"]["first"], body["meta"]["shape"], load("shapes").tolist()) == (2100, None, [[7, 9], [5, 2]])
    assert load("pixels").tobytes() == pixels[0].tobytes() + pixels[1, :5, :2].tobytes()
    assert arrays(deleted)[1]("ids").tolist() == [7]
