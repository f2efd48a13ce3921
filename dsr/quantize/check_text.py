"""Whether the text of `dsr quantize --measure` can be measured at all, found out before the long work."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from quant.gguf.writer import layout
from quant.recipe.mixtures import unquantized
from quant.sources.source import GgufSource, Source
from runtime.base.errors import UsageError
from runtime.base.run import Run
from runtime.base.types import counted
from runtime.engine.template import Prompt
from runtime.gguf.engine_lists import check_answers

if TYPE_CHECKING:
    from quant.measure.chunks import Text

CHUNK = 512  # tokens: the chunks that `compare_with_source` reads
_ENOUGH = 200_000  # characters of which a text that is long enough has one chunk


def check_text(source: Source, text: Text, run: Run) -> None:
    """Raise UsageError for a text that does not fill one chunk, Incompatible for a model that scores no text."""
    from runtime.llama.token_count import count_tokens

    with _vocabulary(source) as file:
        if file is None:
            return
        count = count_tokens(file, Prompt(text=text.content[:_ENOUGH]), run)
    if count is not None and count < CHUNK:
        raise UsageError(
            f"--measure {text.name}: the text has {counted(count, 'token')}, and one chunk has {CHUNK}",
            hint="give more text; dsr wrote nothing yet",
        )


@contextmanager
def _vocabulary(source: Source) -> Iterator[Path | None]:
    """A file with the model's vocabulary: the source, or one with its header and no weights; None if there is none."""
    if isinstance(source, GgufSource):
        from runtime.gguf.reader import read_card

        check_answers(read_card(source.files[0]))
        yield source.files[0]
        return
    plan = unquantized(source)
    if (card := plan.card()) is not None:
        check_answers(card)
    whole = layout(plan.metadata, plan.tensors)
    with tempfile.TemporaryDirectory(prefix="dsr-") as folder:
        path = Path(folder) / "header.gguf"
        try:
            with path.open("wb") as file:
                file.write(whole.header)
                file.truncate(whole.size)
        except OSError:  # a disk whose files cannot have holes, or be so large
            yield None
            return
        yield path
