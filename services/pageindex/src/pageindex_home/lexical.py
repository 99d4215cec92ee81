"""BM25 over small pieces of text: the prior that no model, however small, can spoil.

Forty lines of our own instead of a library: the corpora are one person's documents, and the
ranking has to agree with the word splitting of :mod:`pageindex_home.text`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from .text import content_terms

_K1 = 1.4
_B = 0.6


class Ranking:
    """Scores of every text in *texts* for any question."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._counts = [Counter(content_terms(text)) for text in texts]
        self._lengths = [sum(counts.values()) for counts in self._counts]
        self._average = (sum(self._lengths) / len(self._lengths) if self._lengths else 0.0) or 1.0
        frequency: Counter[str] = Counter()
        for counts in self._counts:
            frequency.update(counts.keys())
        total = len(self._counts)
        self._weight = {term: math.log(1 + (total - count + 0.5) / (count + 0.5)) for term, count in frequency.items()}
        self._unknown = math.log(1 + (total + 0.5) / 0.5)

    def weight(self, term: str) -> float:
        """How telling a term is: rare terms weigh more, unknown ones most."""
        return self._weight.get(term, self._unknown)

    def scores(self, question: str) -> list[float]:
        """One BM25 score a text, 0 where no term of *question* occurs."""
        wanted = set(content_terms(question))
        result = []
        for counts, length in zip(self._counts, self._lengths, strict=True):
            score = 0.0
            for term in wanted & counts.keys():
                count = counts[term]
                score += self._weight[term] * count * (_K1 + 1) / (count + _K1 * (1 - _B + _B * length / self._average))
            result.append(score)
        return result

    def coverage(self, question: str, text: str) -> float:
        """Share of the telling words of *question* that *text* holds; 1 for a question without any."""
        wanted = set(content_terms(question))
        if not wanted:
            return 1.0
        present = wanted & set(content_terms(text))
        return sum(map(self.weight, present)) / sum(map(self.weight, wanted))
