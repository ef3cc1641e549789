"""A small torch.nn transformer encoder over the corpus, trained for at most two minutes to fill in masked words.

The MLP activations of its three layers, reduced over the valid positions, are the text workload (issue 2, item 9).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bench.activations.corpus import FIRST_WORD, MASK, Corpus

__all__ = ["MLP_LAYERS", "MaskedWordModel", "TrainedEncoder", "build_encoder", "train_encoder"]

MLP_LAYERS = tuple(f"encoder.layers.{i}.activation" for i in range(3))
"""After the nonlinearity of each MLP: [batch, position, 512]."""

_WIDTH, _HEADS, _MLP = 128, 4, 512
_MASKED_SHARE = 0.15


class MaskedWordModel(nn.Module):
    """Embedding, three pre-norm encoder layers, and logits over the words by the embedding's transpose."""

    def __init__(self, n_tokens: int, length: int) -> None:
        super().__init__()
        self.words = nn.Embedding(n_tokens, _WIDTH)
        self.places = nn.Parameter(torch.zeros(length, _WIDTH))
        layer = nn.TransformerEncoderLayer(
            _WIDTH, _HEADS, _MLP, dropout=0.1, activation=nn.GELU(), batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(_WIDTH)
        self.encoder = nn.TransformerEncoder(layer, len(MLP_LAYERS), norm=norm, enable_nested_tensor=False)
        nn.init.normal_(self.words.weight, std=0.05)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Hidden states, float32[batch, position, 128]."""
        hidden = self.words(input_ids) + self.places[: input_ids.shape[1]]
        out: torch.Tensor = self.encoder(hidden, src_key_padding_mask=~attention_mask)
        return out


@dataclass(frozen=True)
class TrainedEncoder:
    """The encoder in eval mode, and how training went."""

    model: MaskedWordModel
    loss: float
    seconds: float
    steps: int


def build_encoder(n_tokens: int, length: int, *, seed: int = 0) -> MaskedWordModel:
    """The untrained encoder; the caller's random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MaskedWordModel(n_tokens, length)


def train_encoder(corpus: Corpus, *, seed: int = 0, epochs: float = 2.0, batch_size: int = 128) -> TrainedEncoder:
    """Trains on masked words; batches hold sentences of similar length, so that little of them is padding.

    Args:
        corpus: the sentences.
        seed: of weights, order and masks.
        epochs: passes over the corpus; a fraction stops within one.
        batch_size: sentences per step.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _train(corpus, seed, epochs, batch_size)


def _train(corpus: Corpus, seed: int, epochs: float, batch_size: int) -> TrainedEncoder:
    model = MaskedWordModel(corpus.n_tokens, corpus.tokens.shape[1])
    rng = np.random.default_rng(seed)
    lengths = corpus.attention_mask.sum(axis=1)
    per_epoch = -(-len(lengths) // batch_size)
    n_steps = max(1, round(epochs * per_epoch))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    warm = max(1, n_steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (n_steps - step) / max(1, n_steps - warm))
    )
    model.train()
    losses: list[float] = []
    batches: list[NDArray[np.int64]] = []
    start = time.perf_counter()
    for _ in range(n_steps):
        if not batches:
            order = np.lexsort((rng.random(len(lengths)), lengths))
            batches = np.array_split(order, per_epoch)
            rng.shuffle(batches)
        ids = batches.pop()
        tokens = torch.from_numpy(corpus.tokens[ids, : lengths[ids].max()])
        valid = torch.from_numpy(corpus.attention_mask[ids, : lengths[ids].max()])
        masked = torch.from_numpy(rng.random(tokens.shape) < _MASKED_SHARE) & (tokens >= FIRST_WORD)
        if not masked.any():
            continue
        hidden = model(tokens.masked_fill(masked, MASK), valid)[masked]
        loss = nn.functional.cross_entropy(hidden @ model.words.weight.T, tokens[masked])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    seconds = time.perf_counter() - start
    model.eval()
    return TrainedEncoder(model, float(np.mean(losses[-per_epoch // 2 :])), seconds, n_steps)
