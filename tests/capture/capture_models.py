"""Small networks and datasets for the tests of capture, and a record of everything that a capture must not disturb."""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset


def conv_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 5),
    )
    net.train()
    net(torch.randn(32, 1, 8, 8))  # running statistics that differ from the initial ones
    return net


def images(n: int = 100, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


class Mlp(nn.Module):
    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first = nn.Linear(4, width)
        self.act = nn.ReLU()
        self.second = nn.Linear(width, width)
        self.head = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(self.second(self.act(self.first(x)))))


class TextEncoder(nn.Module):
    """torch's own transformer over padded token batches."""

    def __init__(self, width: int = 32, n_layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, width, padding_idx=0)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, n_layers)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        padding = None if attention_mask is None else attention_mask == 0
        return self.encoder(self.embedding(input_ids), src_key_padding_mask=padding)


class Sentences(Dataset[Any]):
    """Token sequences of different length."""

    def __init__(self, n: int = 60, longest: int = 40, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.items = [torch.from_numpy(rng.integers(1, 50, rng.integers(2, longest))) for _ in range(n)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.items[index]


def pad_right(items: list[torch.Tensor]) -> dict[str, Any]:
    ids = nn.utils.rnn.pad_sequence(items, batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(item) for item in items], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask, "text": [str(item.tolist()) for item in items]}


def pad_left(items: list[torch.Tensor]) -> dict[str, Any]:
    batch = pad_right([item.flip(0) for item in items])
    return {"input_ids": batch["input_ids"].flip(1), "attention_mask": batch["attention_mask"].flip(1)}


class Attention(nn.Module):
    """A hand-written attention with dict inputs; its blocks return tuples."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.block = AttentionBlock()
        self.pool = nn.Tanh()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: Any = None) -> torch.Tensor:
        hidden, _ = self.block(self.embedding(input_ids), attention_mask)
        return self.pool(hidden[:, 0])


class AttentionBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        scores = q @ k.transpose(1, 2) / 4
        weights = scores.masked_fill(mask[:, None, :] == 0, -torch.inf).softmax(-1)
        return self.out(weights @ v), weights


@dataclass
class Output:
    hidden: torch.Tensor
    extra: int


class Batchless(nn.Module):
    """Depends on its batch mates: normalises by the batch even in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4, track_running_stats=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")
GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything about a model and the process that a capture must leave as it was."""
    modules = dict(model.named_modules())
    return {
        "training": {name: module.training for name, module in modules.items()},
        "hooks": {name: {kind: dict(getattr(module, kind)) for kind in HOOKS} for name, module in modules.items()},
        "hooked": {
            name: [id(f) for kind in HOOKS for f in getattr(module, kind).values()] for name, module in modules.items()
        },
        "global hooks": [list(getattr(torch.nn.modules.module, kind)) for kind in GLOBAL_HOOKS],
        "gradients": {name: (id(p.grad), p.requires_grad) for name, p in model.named_parameters()},
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "versions": {name: (id(t), t._version, t.requires_grad, str(t.device)) for name, t in model.named_parameters()},
        "buffers": {name: (id(t), t._version, str(t.device)) for name, t in model.named_buffers()},
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "fastpath": torch.backends.mha.get_fastpath_enabled(),
        "dtype": torch.get_default_dtype(),
        "rng": torch.get_rng_state(),
        "cuda rng": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": np.random.get_state()[1].copy(),  # noqa: NPY002
        "python": random.getstate(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "interrupt": signal.getsignal(signal.SIGINT),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
    }


def assert_undisturbed(before: dict[str, Any], model: nn.Module) -> None:
    after = snapshot(model)
    for name, expected in before.items():
        assert_equal(after[name], expected, name)


def assert_equal(found: Any, expected: Any, name: str) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), name
        for key in expected:
            assert_equal(found[key], expected[key], f"{name}[{key}]")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), name
    elif isinstance(expected, np.ndarray):
        assert np.array_equal(found, expected), name
    elif isinstance(expected, list):
        assert len(found) == len(expected), name
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other, name)
    else:
        assert found == expected, name
