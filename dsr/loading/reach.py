"""Decides the context and the YaRN to load a model with, from its trained length and `--rope`. Pure."""

from __future__ import annotations

from dataclasses import replace

from dsr.loading.options import LoadOptions
from dsr.models.catalog import CatalogEntry
from dsr.models.reach import documented_yarn, factor_for, reach_of, ways_out
from runtime.base.errors import DoesNotFit, Incompatible, TooLong, UsageError
from runtime.gguf.card import ModelCard
from runtime.gguf.rope import MOST_FACTOR, Yarn, why_not_yarn

_ANSWER = 1024  # tokens that a hint leaves for the answer


def settled(options: LoadOptions, card: ModelCard, entry: CatalogEntry | None) -> LoadOptions:
    """`options` for one model: with the YaRN that they ask for, and a context that its positions reach.

    Samples that are drawn together share the context, so it may be that many times the reach. Raises Incompatible for a
    model that YaRN cannot stretch, UsageError if no factor is known, DoesNotFit for a context beyond the reach.
    """
    yarn = _yarn(options, card, entry) if options.rope is not None else None
    samples = options.slots if options.reply_tokens else 1
    most = reach_of(card, yarn) * samples
    context = options.context
    if context is None and options.usual_context is not None:
        context = min(options.usual_context, most)
    if context is not None and context > most:
        raise _beyond(card, entry, context, most, yarn, samples)
    usual = options.usual_context if options.context is None else None
    return replace(options, context=context, usual_context=usual, yarn=yarn)


def _yarn(options: LoadOptions, card: ModelCard, entry: CatalogEntry | None) -> Yarn:
    """The YaRN to load with. Without a factor: the smallest that the context needs, else the documented one."""
    assert options.rope is not None
    if (why := why_not_yarn(card)) is not None:
        raise Incompatible(f"{card.name}: --rope yarn cannot be used: {why}", hint="leave out --rope")
    stated = documented_yarn(card, entry)
    original = stated.original if stated is not None else card.context_length
    if options.rope.factor is not None:
        return Yarn(options.rope.factor, original)
    if options.context is not None:
        factor = factor_for(options.context, original)
        if factor > MOST_FACTOR:
            raise _beyond(card, entry, options.context, card.context_length, None)
        return Yarn(factor, original)
    if stated is not None:
        return stated
    raise UsageError(
        f"--rope yarn needs a factor: the vendor of {card.name} documents none",
        hint=f"add --ctx-size {2 * original}, or name the factor: --rope yarn:2",
    )


def _beyond(
    card: ModelCard, entry: CatalogEntry | None, tokens: int, most: int, yarn: Yarn | None, samples: int = 1
) -> DoesNotFit:
    limit = f"it was trained with texts of {card.context_length} tokens"
    if yarn is not None:
        limit += f", and YaRN with factor {yarn.factor:g} reaches {yarn.reach}"
    if samples > 1:
        limit += f", and {samples} samples share at most {most}"
    return DoesNotFit(
        f"a context of {tokens} tokens is too long for {card.name}: {limit}; beyond that it answers wrongly",
        hint=ways_out(card, entry, tokens, f"use --ctx-size {most}"),
    )


def too_long(card: ModelCard, entry: CatalogEntry | None, yarn: Yarn | None, tokens: int, longest: int) -> TooLong:
    """The error for a prompt of `tokens`, if a prompt with its answer has at most `longest`.

    The hint names a larger context as far as the model reaches, and YaRN beyond that.
    """
    wanted, shorter, reach = tokens + _ANSWER, "shorten the prompt", reach_of(card, yarn)
    if longest < reach and tokens < reach:
        hint = f"{shorter}, or use --ctx-size {min(wanted, reach)}"
    else:
        hint = ways_out(card, entry, wanted, shorter)
    return TooLong(tokens, longest, hint=hint)


def yarn_note(card: ModelCard, entry: CatalogEntry | None, yarn: Yarn) -> str:
    """One line: how far YaRN reaches, and its cost."""
    stated = documented_yarn(card, entry)
    tested = stated is not None and yarn.reach <= stated.reach
    doubt = "" if tested else f"; it is untested by the vendor of {card.name}, so check long answers"
    return (
        f"YaRN with factor {yarn.factor:g}: a text may have {yarn.reach} tokens instead of {card.context_length}, "
        f"and short texts get a little worse{doubt}"
    )
