"""Groups similar texts: TF-IDF vectors and k-means, for a few dozen texts."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence

Vector = Mapping[str, float]

_WORD = re.compile(r"\w+")
_ROUNDS = 50


def clusters(texts: Sequence[str], k: int, seed: int = 0) -> tuple[int, ...]:
    """The cluster of each text, a number below k; some clusters may be empty.

    Lloyd's algorithm from a k-means++ start (Arthur and Vassilvitskii 2007).
    """
    vectors = tf_idf(texts)
    centres = _first_centres(vectors, k, random.Random(seed))
    labels: tuple[int, ...] = ()
    for _ in range(_ROUNDS):
        found = tuple(min(range(len(centres)), key=lambda c: _distance(each, centres[c])) for each in vectors)
        if found == labels:
            break
        labels = found
        for number in set(labels):
            centres[number] = _mean([v for v, label in zip(vectors, labels, strict=True) if label == number])
    return labels


def tf_idf(texts: Sequence[str]) -> list[Vector]:
    """Vectors of length 1 by word: its count times ln((1 + n) / (1 + df)) + 1. Unlike in scikit-learn, which has the
    same formula, words of one letter or digit count: in mathematics they matter most."""
    counts = [Counter(_WORD.findall(text.lower())) for text in texts]
    spread = Counter(word for each in counts for word in each)
    vectors: list[Vector] = []
    for each in counts:
        weighed = {w: n * (math.log((1 + len(texts)) / (1 + spread[w])) + 1) for w, n in each.items()}
        length = math.sqrt(math.fsum(v * v for v in weighed.values()))
        vectors.append({word: value / length for word, value in weighed.items()})
    return vectors


def _first_centres(vectors: Sequence[Vector], k: int, rng: random.Random) -> list[Vector]:
    """The first centre at random, each further one by its squared distance from the nearest centre."""
    centres = [vectors[rng.randrange(len(vectors))]] if vectors else []
    while vectors and len(centres) < k:
        far = [max(min(_distance(each, centre) for centre in centres), 0.0) for each in vectors]
        if math.fsum(far) < 1e-9:
            break
        centres.append(rng.choices(vectors, far)[0])
    return centres


def _distance(one: Vector, other: Vector) -> float:
    """The squared Euclidean distance."""
    product = math.fsum(value * other.get(word, 0.0) for word, value in one.items())
    return _square(one) + _square(other) - 2 * product


def _square(vector: Vector) -> float:
    return math.fsum(value * value for value in vector.values())


def _mean(vectors: Sequence[Vector]) -> Vector:
    total: dict[str, float] = {}
    for vector in vectors:
        for word, value in vector.items():
            total[word] = total.get(word, 0.0) + value
    return {word: value / len(vectors) for word, value in total.items()}
