"""Real text without a download: the distinct sentences of the standard library's docstrings, as padded word tokens.

About 24,000 sentences, depending on the Python version. The tokenizer is a plain one: lower-case words, numbers and
single punctuation marks, the most frequent ones get a token of their own.
"""

from __future__ import annotations

import ast
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["FIRST_WORD", "MASK", "PAD", "UNKNOWN", "Corpus", "docstring_sentences", "tokenize"]

PAD, UNKNOWN, MASK, FIRST_WORD = 0, 1, 2, 3

_WORD = re.compile(r"[a-z]+|[0-9]+|[^\sa-z0-9]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_LEAST_WORDS = 4


@dataclass(frozen=True)
class Corpus:
    """Tokenized sentences.

    Attributes:
        sentences: the texts.
        tokens (int64[n, length]): word tokens, then `PAD`; longer sentences are cut.
        attention_mask (bool[n, length]): true where there is a word.
        vocabulary: the word of each token from `FIRST_WORD` on.
    """

    sentences: tuple[str, ...]
    tokens: NDArray[np.int64]
    attention_mask: NDArray[np.bool_]
    vocabulary: tuple[str, ...]

    @property
    def n_tokens(self) -> int:
        """Number of different tokens, the special ones included."""
        return FIRST_WORD + len(self.vocabulary)


def docstring_sentences(root: Path | None = None) -> list[str]:
    """The distinct sentences of at least four words in all docstrings below `root` (the standard library)."""
    root = Path(sysconfig.get_path("stdlib")) if root is None else root
    found: dict[str, None] = {}
    for path in sorted(root.rglob("*.py")):
        if "site-packages" not in path.parts:
            for docstring in _docstrings(path):
                for paragraph in re.split(r"\n\s*\n", docstring):
                    for sentence in _SENTENCE_END.split(" ".join(paragraph.split())):
                        if len(re.findall(r"[A-Za-z]+", sentence)) >= _LEAST_WORDS:
                            found.setdefault(sentence)
    return list(found)


def _docstrings(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old sources
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # some of the standard library's test files are wrong on purpose
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring


def tokenize(sentences: list[str], *, length: int = 48, n_words: int = 4_000) -> Corpus:
    """Tokenizes sentences over the `n_words` most frequent words (ties in order of first use)."""
    words = [_WORD.findall(sentence.lower())[:length] for sentence in sentences]
    counts = Counter(word for sentence in words for word in sentence)
    vocabulary = tuple(word for word, _ in counts.most_common(n_words))
    token_of = {word: FIRST_WORD + i for i, word in enumerate(vocabulary)}
    tokens = np.full((len(words), length), PAD, dtype=np.int64)
    for i, sentence in enumerate(words):
        tokens[i, : len(sentence)] = [token_of.get(word, UNKNOWN) for word in sentence]
    return Corpus(tuple(sentences), tokens, tokens != PAD, vocabulary)
