"""EM-INF: draw from logits whose entropy was lowered first (arXiv 2505.15134, section 3.3 and appendix).

Per token, Adam (fresh each time) takes a few steps on the logits to lower their entropy, held near the original by a
KL term; it stops below a threshold, so where the model is sure nothing changes. Then it is drawn at a low temperature.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.base.types import EntropyMinimisation

# Beyond the likeliest few hundred tokens the probabilities are too small to move the entropy.
_KEPT = 512
# Adam's constants (Kingma and Ba 2015), which torch has as defaults.
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8


class EntropySampler:
    """Draws tokens for one sequence, with its own random state."""

    def __init__(self, settings: EntropyMinimisation, seed: int) -> None:
        self._settings = settings
        self._random = np.random.default_rng(seed)

    def draw(self, logits: NDArray[np.float32]) -> int:
        kept = np.argpartition(logits, -_KEPT)[-_KEPT:] if len(logits) > _KEPT else np.arange(len(logits))
        kept = kept[logits[kept] > -np.inf]  # tokens that a grammar does not allow
        minimised = minimise(logits[kept].astype(np.float64), self._settings)
        chances = _softmax(minimised / self._settings.temperature)
        at = np.searchsorted(np.cumsum(chances), self._random.random(), side="right")
        return int(kept[min(int(at), len(kept) - 1)])


def minimise(logits: NDArray[np.float64], settings: EntropyMinimisation) -> NDArray[np.float64]:
    """The logits, (n,), after at most `settings.steps` steps.

    With q = softmax(z) and p the original softmax: dH/dz = -q (log q + H), dKL(p||q)/dz = q - p.
    """
    z = logits.copy()
    original = _softmax(z)
    first, second = np.zeros_like(z), np.zeros_like(z)
    for step in range(1, settings.steps + 1):
        q = _softmax(z)
        log_q = np.log(np.maximum(q, 1e-300))
        entropy = -float(q @ log_q)
        if entropy < settings.threshold:
            break
        gradient = -q * (log_q + entropy) + settings.kl_weight * (q - original)
        first = _BETA_1 * first + (1 - _BETA_1) * gradient
        second = _BETA_2 * second + (1 - _BETA_2) * gradient**2
        moved = first / (1 - _BETA_1**step) / (np.sqrt(second / (1 - _BETA_2**step)) + _EPSILON)
        z -= settings.learning_rate * moved
    return z


def _softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.exp(z - z.max())
    return np.asarray(raised / raised.sum())
