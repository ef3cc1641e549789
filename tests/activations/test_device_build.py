"""Builds whose batches are torch tensors on a device: the same files as from the host, whatever is kept.

On the CPU the tensors only stand in for a device's; with CUDA the same tests run on it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import neuralartifactdb as nadb
from neuralartifactdb.activations.source import ArraySource

torch = pytest.importorskip("torch")

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
]


class DeviceSource(ArraySource):
    """An array whose build batches lie on a device, encoded there."""

    def __init__(self, layer: str, array: np.ndarray, device: str) -> None:
        super().__init__(layer, array)
        self.device = torch.device(device)
        self.build_batch = 48

    def capture(self, layers, ids, spare=None):
        return {name: torch.from_numpy(rows).to(self.device) for name, rows in self.evaluate(layers, ids).items()}

    def make_encoder(self, layer, edges, n_inputs, row_group, maxima_cap):
        from neuralartifactdb.capture.device_encoder import TorchSegmentEncoder

        return TorchSegmentEncoder(edges, n_inputs, row_group, maxima_cap, device=self.device)


def segment_arrays(db: nadb.Database, key: str) -> list[dict[str, np.ndarray]]:
    entry = db._session.directory.state().indexes[key]
    readers = [db._session.directory.reader(ref) for ref in entry.segments]
    return [{name: reader.array(name) for name in reader.arrays} for reader in readers]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("storage", [0.1, 0.25, 0.6, "all"])
def test_a_device_writes_the_same_segments(tmp_path: Path, device: str, storage: float | str) -> None:
    rng = np.random.default_rng(5)
    array = np.maximum(rng.normal(size=(1_733, 24)), 0).astype(np.float32)
    array[:, 3] = 1.5
    with nadb.open(tmp_path / "a.nadb") as db:
        host = ArraySource("host", array)
        host.build_batch = 48
        for name, source in (("host", host), ("device", DeviceSource("device", array, device))):
            db._index(source, {name: name}, storage, "1MiB", False, False, False)
        expected, got = segment_arrays(db, "host"), segment_arrays(db, "device")
        assert len(expected) == len(got) > 0
        for one, other in zip(expected, got, strict=True):
            assert one.keys() == other.keys()
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])
        layer = db.activations["device"]
        assert layer.highest([1, 3, 5], k=7).verify()
        assert layer.nearest(11, [0, 2], k=7).verify()


@pytest.mark.parametrize("storage", [0.2, "all"])
def test_a_device_refuses_nan_by_name(tmp_path: Path, storage: float | str) -> None:
    array = np.random.default_rng(6).normal(size=(5_000, 4)).astype(np.float32)
    array[4_321, 2] = np.nan
    source = DeviceSource("device", array, "cpu")
    with nadb.open(tmp_path / "a.nadb") as db, pytest.raises(ValueError, match=r"neuron 2.*input 4321"):
        db._index(source, {"device": "device"}, storage, "1MiB", False, False, False)
