"""Asks one query in a process of its own and says how much memory that took above the open database.

`python -m bench.masks.query_memory PATH KIND QUESTION`, with the fields of a `Question` as a JSON object, writes one.
Kinds beside those that are timed: the overlap of two models' masks, a region that is another collection's mask, and
`where=` from an attribute.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import neuralartifactdb as nadb
from bench.masks.ours import Ours
from bench.masks.queries import Question
from bench.masks.workloads import MODELS
from bench.process_memory import peak_bytes

__all__ = ["BY_ATTRIBUTE", "BY_OTHER_MASK", "BY_OVERLAP", "MORE_KINDS", "OTHER", "main"]

#: a collection with one mask of each input
OTHER = "object"
BY_OVERLAP = "top-25, IoU of two"
BY_OTHER_MASK = "top-25, other mask"
BY_ATTRIBUTE = "filter, box, where="
#: take their low end, box and threshold from "filter, box"
MORE_KINDS = (BY_OVERLAP, BY_OTHER_MASK, BY_ATTRIBUTE)


def main(arguments: list[str]) -> None:
    """Asks and reports."""
    path, kind, fields = arguments
    question = Question(**json.loads(fields))
    ours = Ours(Path(path))
    before = peak_bytes()
    if kind in (BY_OVERLAP, BY_OTHER_MASK):
        if kind == BY_OVERLAP:
            result = ours.masks.group_by("input_id").top_k(nadb.iou(low=question.low), k=question.k)
        else:
            result = ours.masks.top_k(nadb.count(nadb.mask(OTHER, low=128), low=question.low), k=question.k)
        masks_read, n_rows = result.stats.masks_read, len(result)
    else:
        where = ours.masks.table()["model"] == MODELS[0] if kind == BY_ATTRIBUTE else None
        answer = ours.answer(question, where)
        masks_read, n_rows = answer.masks_read, len(answer.ids)
    above = peak_bytes() - before
    sys.stdout.write(json.dumps({"above_bytes": above, "masks_read": masks_read, "rows": n_rows}))


if __name__ == "__main__":
    main(sys.argv[1:])
