"""What does watching the routers cost beside reading the same text without looking?

    python tests/peers/profiling.py MODEL [--tokens N] [--rounds N] [--threads N]

Conversations of the calibration text are read twice in turns: as `dsr experts profile` does, and as a prompt is, in the
same batches, with logits for the last token of each only. Processor time of this process, of the reading alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import accumulate, takewhile
from pathlib import Path

from common import report

from quant.measure.routers import RouterCollector, open_router_reader
from quant.measure.texts import CALIBRATION, render
from runtime.base.run import Run
from runtime.engine.backend import ROWS, Batch
from runtime.gguf.reader import read_card
from runtime.llama import LlamaBackend, OpenOptions
from runtime.llama.graph import packed

_TOGETHER = 31  # sequences; LlamaBackend opens one more


def texts_of(model: Path, tokenizer: LlamaBackend, most: int) -> list[list[int]]:
    """Conversations in the model's own format, of which each fits a batch, `most` tokens at most."""
    from runtime.engine.model_markers import thinking_markers
    from runtime.engine.template import ChatTemplate

    card = read_card(model)
    spelled = ["" if token is None else card.token_text(token) for token in (card.bos_token, card.eos_token)]
    template = ChatTemplate(card.template, bos=spelled[0], eos=spelled[1]) if card.template else None
    markers = thinking_markers(template, lambda text: card.token_id(text) is not None)
    rendered = (render([each], template, markers, spelled[1]) for each in CALIBRATION.conversations())
    texts = [tokens for text in rendered if len(tokens := tokenizer.tokenize(text)) <= ROWS]
    whole = list(takewhile(lambda total: total <= most, accumulate(map(len, texts))))
    return texts[: len(whole)]


def read_plainly(model: LlamaBackend, texts: Sequence[Sequence[int]]) -> None:
    for together in packed(texts, ROWS, _TOGETHER):
        batch = Batch()
        for slot, tokens in enumerate(together):
            batch.add([*tokens], 0, slot, output=True)
        model.decode(batch)
        for slot in range(len(together)):
            model.trim(slot, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    options = OpenOptions(context=ROWS, slots=_TOGETHER, threads=asked.threads)
    watched, plain = [], []
    with (
        LlamaBackend(asked.model, options) as backend,
        open_router_reader(asked.model, ROWS, Run(threads=asked.threads)) as reader,
    ):
        texts = texts_of(asked.model, backend, asked.tokens)
        for number in range(asked.rounds + 1):
            started = time.process_time()
            read_plainly(backend, texts)
            between = time.process_time()
            for _ in reader.collect(texts, RouterCollector()):
                pass
            ended = time.process_time()
            if number:  # the first round warms up
                plain.append((between - started) * 1000)
                watched.append((ended - between) * 1000)
    count = sum(map(len, texts))
    report(f"{asked.model.name}, {count} tokens in {len(texts)} texts", watched, plain, "CPU ms", "plain prefill")


main()
