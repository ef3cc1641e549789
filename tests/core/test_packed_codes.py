"""Reading packed codes: every width, every length around the word size, every place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralartifactdb import _core


def pack(codes: npt.NDArray[np.integer], bits: int) -> bytes:
    flat = (codes[:, None] >> np.arange(bits)) & 1
    return np.packbits(flat.astype(np.uint8).ravel(), bitorder="little").tobytes()


@given(st.data())
def test_all_readers_agree(data: st.DataObject) -> None:
    bits = data.draw(st.integers(1, 12))
    n = data.draw(st.one_of(st.integers(0, 50), st.sampled_from([1023, 1024, 1025, 2048, 2500])))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    codes = rng.integers(0, 2**bits, n)
    if data.draw(st.booleans()):
        codes[rng.random(n) < 0.5] = 2**bits - 1
    row = pack(codes, bits)
    got = _core.decode(row, n, bits)
    assert got.dtype == np.uint16
    assert (got == codes).all()
    assert (_core.decode(row + b"\xff" * 20, n, bits) == codes).all()
    code = data.draw(st.sampled_from([0, 2**bits - 1, *codes[:1].tolist()]))
    if not n:
        return
    # two neurons in two row groups: this row, and the same codes in another order
    other = rng.permutation(codes)
    rows, contents = [row, pack(other, bits), pack(other, bits), row], [[codes, other], [other, codes]]
    n_asked = rng.integers(0, 30)
    groups, positions = rng.integers(0, 2, n_asked), rng.integers(0, n, n_asked)
    expected = np.array([[contents[g][j][p] for g, p in zip(groups, positions, strict=True)] for j in (0, 1)])
    assert (_core.decode_at(rows, 2, groups, positions, bits) == expected.reshape(2, -1)).all()
    ranks = [
        [
            (contents[g][j][:p] == code).sum() if contents[g][j][p] == code else -1
            for g, p in zip(groups, positions, strict=True)
        ]
        for j in (0, 1)
    ]
    assert _core.rank_at(rows, 2, groups, positions, bits, code).tolist() == ranks


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)])
def test_any_buffer_will_do(kind: Any) -> None:
    assert _core.decode(kind(b"\x1b\x02"), 5, 2).tolist() == [3, 2, 1, 0, 2]


def test_bad_input() -> None:
    row = bytes(6)  # 16 codes of 3 bits
    text: Any = "text"
    narrow: Any = np.array([1], np.int32)
    zero = np.zeros(1, np.int64)
    bad: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: _core.decode(row, 17, 3), ValueError, r"`row\[0\]` must have at least 7 bytes, got 6"),
        (lambda: _core.decode(row, -1, 3), ValueError, "`n`.*got -1"),
        (lambda: _core.decode(row, 2**62, 3), ValueError, "`n`"),
        (lambda: _core.decode(row, 4, 0), ValueError, "`n_bits`.*got 0"),
        (lambda: _core.decode(row, 4, 13), ValueError, "`n_bits`.*got 13"),
        (lambda: _core.decode(text, 4, 3), TypeError, "bytes-like object, got str"),
        (lambda: _core.decode(np.zeros((4, 4), np.uint8)[:, ::2], 4, 3), TypeError, "contiguous"),
        (lambda: _core.decode_at([row], 1, zero, np.array([16]), 3), ValueError, "at least 7 bytes"),
        (
            lambda: _core.decode_at([row], 1, zero, np.array([-1]), 3),
            ValueError,
            "`positions`.* got 0 and -1 at index 0",
        ),
        (lambda: _core.decode_at([row], 1, zero, np.array([2**63 - 1]), 3), ValueError, "`positions`"),
        (lambda: _core.decode_at([row], 1, zero, narrow, 3), TypeError, "int64, got int32"),
        (lambda: _core.decode_at([row], 1, narrow, zero, 3), TypeError, "int64, got int32"),
        (lambda: _core.decode_at([row], 1, zero + 1, zero, 3), ValueError, "inside the rows, got 1 and 0"),
        (lambda: _core.decode_at([row], 1, zero - 1, zero, 3), ValueError, "inside the rows, got -1 and 0"),
        (lambda: _core.decode_at([row], 1, np.array([0, 0]), zero, 3), ValueError, "one item per position, 1, got 2"),
        (lambda: _core.decode_at([row] * 3, 2, zero, zero, 3), ValueError, r"\(2\) items per row group, got 3"),
        (lambda: _core.decode_at([row], 0, zero, zero, 3), ValueError, "`n_neurons`.*got 0"),
        (lambda: _core.decode_at([], 1, zero, zero, 3), ValueError, "inside the rows"),
        (lambda: _core.rank_at([row], 1, zero, np.array([17]), 3, 0), ValueError, "at least 7 bytes"),
        (lambda: _core.rank_at([row], 1, zero, zero, 3, 8), ValueError, r"`code` must lie in \[0, 7\], got 8"),
        (lambda: _core.rank_at([row], 1, zero, zero, 3, -1), ValueError, "`code`"),
    ]
    for call, error, match in bad:
        with pytest.raises(error, match=match):
            call()
    assert _core.rank_at([row], 1, zero, np.array([15]), 3, 0).tolist() == [[15]]
    assert _core.decode_at([b""], 1, zero[:0], zero[:0], 3).shape == (1, 0)
    assert _core.decode_at([], 4, zero[:0], zero[:0], 3).shape == (4, 0)
