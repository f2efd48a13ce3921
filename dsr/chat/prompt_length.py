"""Refuses a prompt that is too long before the model is loaded, if its tokenizer alone can tell."""

from __future__ import annotations

from collections.abc import Sequence

from dsr.loading import machine as this_machine
from dsr.loading.from_disk import fit_on_host
from dsr.loading.options import LoadOptions
from dsr.loading.reach import settled, too_long
from dsr.models.model import Model
from dsr.models.reach import reach_of
from runtime.base.run import Run
from runtime.base.types import Message
from runtime.engine.prompt_options import PromptOptions
from runtime.gguf.engine_lists import check_answers
from runtime.machine.host import probe


def check_length(
    model: Model, options: LoadOptions, messages: Sequence[Message], asked: PromptOptions, run: Run
) -> None:
    """Raise DoesNotFit for `messages` that leave no room for an answer.

    Counting takes about a second, so dsr counts only messages that may be too long. For `options` that do not fit the
    model, raises the same errors as `load`.
    """
    card = model.card
    options = settled(options, card, model.entry)
    longest = min(options.context or reach_of(card, options.yarn), reach_of(card, options.yarn))
    # A token has at least one byte.
    if sum(len(message.content.encode("utf-8", "replace")) for message in messages) < longest:
        return
    check_answers(card)
    if not (options.nodes or this_machine.has_gpus()):
        longest = min(longest, fit_on_host(card, probe(), options).context)
    from runtime.llama.token_count import count_tokens

    chat_format = model.chat_format(options.template, run.stop)
    prompt = chat_format.prompt(messages, chat_format.known(asked))
    length = count_tokens(model.path, prompt, run)
    if length is not None and length >= longest:
        raise too_long(card, model.entry, options.yarn, length, longest)
