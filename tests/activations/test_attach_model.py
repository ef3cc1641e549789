"""A model attached in a later session: aliases, inputs of modules, a model that is trained in between, new inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import neuralartifactdb as nadb

torch = pytest.importorskip("torch")


def make_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(12, 32), torch.nn.ReLU(), torch.nn.Linear(32, 16), torch.nn.ReLU())


@pytest.fixture
def images() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(600, 12)).astype(np.float32))


@pytest.mark.parametrize("layers", [["1", "3"], {"early": "1", "late": "3"}, ["3:input"], "*"])
def test_a_later_session_attaches_whatever_the_layers_were_called(
    tmp_path: Path, images: torch.Tensor, layers: object
) -> None:
    model = make_model()
    with nadb.open(tmp_path / "a.nadb") as db:
        asked = (
            {name: model.get_submodule(path) for name, path in layers.items()} if isinstance(layers, dict) else layers
        )
        db.index_activations(model, images, asked, storage=0.3)
        expected = {key: db.activations[key].highest([0, 2], k=5) for key in db.activations}
    with nadb.open(tmp_path / "a.nadb") as db:
        db.attach(make_model(), images)
        assert {key: db.activations[key].highest([0, 2], k=5) for key in db.activations} == expected


def test_training_after_attaching_is_noticed(tmp_path: Path, images: torch.Tensor) -> None:
    model = make_model()
    with nadb.open(tmp_path / "a.nadb") as db:
        (layer,) = db.index_activations(model, images, "3", storage=0.3)
        assert layer.nearest(3, [0, 1, 2], k=5).verify()
        with torch.no_grad():
            model[2].bias.add_(1e-6)  # too little for any bound to notice
        db._session.evaluated.forget()
        with pytest.raises(nadb.StaleIndexError, match="weights or buffers in 2"):
            layer.nearest(4, [0, 1, 2], k=5)
        with torch.no_grad():
            model[2].load_state_dict(make_model()[2].state_dict())
        assert layer.nearest(4, [0, 1, 2], k=5).verify()


def test_a_new_input_is_a_target(tmp_path: Path, images: torch.Tensor) -> None:
    with nadb.open(tmp_path / "a.nadb") as db:
        (layer,) = db.index_activations(make_model(), images, "3", storage=0.3)
        of_id = layer.nearest(17, [0, 1, 2], k=5)
        of_input = layer.nearest(input=images[17], neurons=[0, 1, 2], k=5)
        assert of_input.ids.tolist() == of_id.ids.tolist()
        with pytest.raises(TypeError, match="either a target"):
            layer.nearest(3, [0], input=images[17])


def test_attaching_by_another_name_says_which_there_are(tmp_path: Path, images: torch.Tensor) -> None:
    with nadb.open(tmp_path / "a.nadb") as db:
        with pytest.raises(KeyError, match=r"db\.index_activations makes one"):
            db.attach(make_model(), images)
        db.index_arrays("feats", np.zeros((600, 3), np.float32))
        with pytest.raises(KeyError, match=r"feats \(array\), for attach_array"):
            db.attach(make_model(), images)
        for name in ("e1", "e2"):
            db.index_activations(make_model(), images, "3", name=name, storage=0.3)
        with pytest.raises(KeyError, match=r"say which: name='e1' \(others are e2\)"):
            db.attach(make_model(), images)
        with pytest.raises(KeyError, match=r"no index of a model named 'e3'; did you mean 'e2' or 'e1'\?|'e1' or 'e2'"):
            db.attach(make_model(), images, name="e3")
    with nadb.open(tmp_path / "b.nadb") as db:
        db.index_activations(make_model(), images, "3", storage=0.3)
        with pytest.raises(KeyError, match=r"no index of a model named 'e1'.*leave name= out"):
            db.attach(make_model(), images, name="e1")


def test_worker_processes_read_ahead(tmp_path: Path, images: torch.Tensor) -> None:
    values = [images[i] for i in range(len(images))]
    with nadb.open(tmp_path / "a.nadb") as db:
        capture = nadb.Capture(batch_size=64, num_workers=1)
        (layer,) = db.index_activations(make_model(), values, "3", storage="all", capture=capture)
        with torch.no_grad():
            expected = make_model()(images[:64]).numpy()
        np.testing.assert_array_equal(layer.values(range(64)), expected)
