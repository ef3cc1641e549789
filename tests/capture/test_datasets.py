"""Readers: every kind of dataset gives the batch of its ids; what has no positions is refused, with a remedy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from capture_models import Sentences, pad_right
from PIL import Image
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from neuralartifactdb.capture import Capture
from neuralartifactdb.capture.datasets import open_reader
from neuralartifactdb.errors import DtypeError, InvalidValueError

X = torch.arange(20.0).reshape(10, 2)
IDS = [7, 0, 7, 9]


class Counting(Dataset):
    """Counts its reads."""

    def __init__(self):
        self.reads = []

    def __len__(self):
        return 10

    def __getitem__(self, index):
        self.reads.append(index)
        return X[index], index


class Columns:
    """Like a Hugging Face dataset: len, rows as dicts, several at once."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return {"x": X[index], "text": f"row {index}"}

    def __getitems__(self, indices):
        return [self[i] for i in indices]


def read(dataset, ids=IDS, **capture):
    return open_reader(dataset, Capture(**capture)).read(ids)


def test_every_kind_of_dataset():
    for dataset in (
        X,
        X.numpy(),
        list(X),
        tuple(X),
        list(X.numpy()),
        DataLoader(X, batch_size=3),
        Subset(X, range(10)),
    ):
        assert torch.equal(read(dataset), X[IDS])
    for dataset in (
        TensorDataset(X, X[:, 0]),
        DataLoader(TensorDataset(X, X[:, 0])),
        Subset(TensorDataset(X, X[:, 0]), range(10)),
    ):
        x, y = read(dataset)
        assert torch.equal(x, X[IDS])
        assert torch.equal(y, X[IDS, 0])
    for dataset in ({"x": X, "y": X.numpy()[:, 0]}, [{"x": a, "y": a[0]} for a in X]):
        batch = read(dataset)
        assert torch.equal(batch["x"], X[IDS])
        assert torch.equal(batch["y"], X[IDS, 0])
    batch = read(Columns())
    assert torch.equal(batch["x"], X[IDS])
    assert batch["text"] == ["row 7", "row 0", "row 7", "row 9"]
    assert read(["a", "b"], [1, 0]) == ["b", "a"]


def test_arrays_of_any_layout(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, X.numpy())
    mapped = np.load(path, mmap_mode="r")
    for array in (
        mapped,
        X.numpy().astype(">f4"),
        np.asfortranarray(X.numpy()),
        X.numpy()[::-1][::-1],
        X.t().contiguous().t(),
    ):
        assert torch.equal(read(array), X[IDS])
    assert not read(X.clone().requires_grad_()).requires_grad


def test_an_id_that_comes_twice_is_read_once():
    dataset = Counting()
    read(dataset)
    assert dataset.reads == [7, 0, 9]


def test_collate_fn_gets_items():
    assert read(X, collate_fn=lambda items: torch.stack(items) + 1).tolist() == (X[IDS] + 1).tolist()
    assert read({"x": X}, collate_fn=lambda items: [i["x"].tolist() for i in items]) == X[IDS].tolist()
    assert read(Sentences(), [0, 1], collate_fn=pad_right)["input_ids"].shape[0] == 2


def test_a_loader_gives_its_own_options():
    loader = DataLoader(Sentences(), batch_size=7, collate_fn=pad_right)
    reader = open_reader(loader, Capture())
    assert reader.batch_size == 7
    assert set(reader.read([3])) == {"input_ids", "attention_mask", "text"}
    own = open_reader(loader, Capture(collate_fn=len))
    assert own.read([3, 4]) == 2


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


@pytest.mark.parametrize(
    ("dataset", "error", "words"),
    [
        (Stream(), DtypeError, r"len\(\) and access by position.*list\(dataset\)"),
        ((x for x in X), DtypeError, r"got generator.*list\(dataset\)"),
        ({1, 2}, DtypeError, "got set"),
        ("words", DtypeError, "got str"),
        (DataLoader(Stream()), DtypeError, r"list\(loader.dataset\)"),
        (DataLoader(X, shuffle=True), InvalidValueError, r"shuffles.*shuffle=False.*loader.dataset"),
        (DataLoader(X, batch_size=3, drop_last=True), InvalidValueError, r"drop_last=True.*drop_last=False"),
        (
            DataLoader(X, sampler=SubsetRandomSampler([1, 2])),
            InvalidValueError,
            "order of its own .SubsetRandomSampler",
        ),
        (DataLoader(X, sampler=WeightedRandomSampler([1.0] * 10, 3)), InvalidValueError, "order of its own"),
        (DataLoader(X, batch_sampler=[[1, 2], [3]]), InvalidValueError, "batches of its own .list"),
        (DataLoader(X, batch_size=None), InvalidValueError, "batch_size=None"),
        ([], InvalidValueError, "no inputs"),
        (X[:0], InvalidValueError, "no inputs"),
        (DataLoader([]), InvalidValueError, "no inputs"),
        ({}, InvalidValueError, "empty dict"),
        ({"x": X, "y": X[:3]}, InvalidValueError, "agree in their number of inputs.*10.*3"),
        ({"x": [1, 2]}, DtypeError, "entry 'x'.*got list"),
        (np.array(["a", "b"]), DtypeError, "numeric, got dtype <U1"),
        (np.array(3.0), InvalidValueError, "axis of inputs"),
        (
            [torch.zeros(2), torch.zeros(3)],
            InvalidValueError,
            r"differ in shape, for example \[2\] and \[3\].*pad_sequence",
        ),
        ([{"x": [1, 2, 3]}] * 2, InvalidValueError, r"lists of numbers \(entry 'x', of length 3\).*with_format"),
        ([Image.new("L", (2, 2))] * 2, DtypeError, r"PIL images.*ToTensor\(\)"),
        ([(Image.new("L", (2, 2)), 0)] * 2, DtypeError, "PIL images"),
        ([object(), object()], DtypeError, r"type object.*Capture\(collate_fn="),
    ],
    ids=lambda value: type(value).__name__,
)
def test_refusals_say_what_helps(dataset, error, words):
    with pytest.raises(error, match=words):
        read(dataset, [0, 1])


def test_errors_inside_the_dataset_are_its_own():
    class Broken(Counting):
        def __getitem__(self, index):
            raise OSError(f"no file for {index}")

    with pytest.raises(OSError, match="no file for 3"):
        read(Broken(), [3])


def test_workers_read_ahead_in_the_announced_order():
    reader = open_reader(X.numpy(), Capture(num_workers=1))
    try:
        reader.announce([[1, 2], [3, 3], [9, 0]])
        assert reader._ahead is not None
        assert torch.equal(reader.read([1, 2]), X[[1, 2]])
        assert torch.equal(reader.read([3, 3]), X[[3, 3]])
        assert torch.equal(reader.read([5]), X[[5]])  # not what was announced
        assert reader._ahead is None
        assert torch.equal(reader.read([9, 0]), X[[9, 0]])
    finally:
        reader.close()


def test_workers_carry_dicts_and_custom_collation():
    reader = open_reader(DataLoader(Sentences(), batch_size=4, collate_fn=pad_right, num_workers=1), Capture())
    try:
        reader.announce([[4, 5]])
        batch = reader.read([4, 5])
        assert batch["text"] == pad_right([Sentences()[4], Sentences()[5]])["text"]
    finally:
        reader.close()
