"""What tests of changed models share: a question that runs the model, whatever was evaluated before."""

from __future__ import annotations

import neuralartifactdb as nadb

__all__ = ["ask_anew"]


def ask_anew(db: nadb.Database, layer: str, k: int = 5) -> nadb.Result:
    """The nearest to an input in three neurons; the answer took forward passes."""
    db._session.evaluated.forget()
    result = db.activations[layer].nearest(4, [0, 1, 2], k=k)
    assert isinstance(result, nadb.Result)
    assert result.stats.inputs_inferred
    return result
