"""The few facts of a model's layers that its header would tell, for plans without one."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.base.errors import UsageError


@dataclass(frozen=True, slots=True)
class Shape:
    """Widths and caches of a model. 0 says that a fact is unknown, or that the model has no such thing.

    `width` numbers are a token's hidden state, `heads` those of queries, `kv_heads` and `head` the number and the
    length of cached heads; `latent` numbers take their place in latent attention. `full` layers see the whole text,
    and all do if it is 0. The others see a `window` of tokens, with `narrow_heads` of `narrow_head` numbers where these
    differ; or they keep `state` numbers of a sequence, on average. Only the first `own` layers have caches of their
    own. `lookup` numbers of each layer belong to a token in a table of which a token reads one row. `tied`: the table
    of tokens is also the head. `weights` are those in a GGUF file, where the vendor also counts encoders.
    """

    width: int
    vocabulary: int = 0
    tied: bool = False
    heads: int = 0
    kv_heads: int = 0
    head: int = 0
    latent: int = 0
    full: int = 0
    window: int = 0
    narrow_heads: int = 0
    narrow_head: int = 0
    state: int = 0
    own: int = 0
    lookup: int = 0
    weights: int = 0

    def __post_init__(self) -> None:
        if self.width < 1 or not (self.latent or (self.kv_heads and self.head)):
            raise UsageError("a shape needs a width, and cached heads or a latent")
        if bool(self.full) != bool(self.window or self.state):
            raise UsageError("layers that do not see the whole text have a window or a state")

    def sees_all(self, layer: int, layers: int) -> bool:
        """Whether a layer sees the whole text: these layers are the last of groups that are as even as possible."""
        full = self.full or layers
        return (layer + 1) * full // layers > layer * full // layers
