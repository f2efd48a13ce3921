"""The facts about one model that `dsr show` prints."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

from dsr.models.model import Model, card_facts, card_markers
from dsr.models.other_programs import PROGRAMS
from dsr.models.reach import describe_reach, farthest, reach_of
from dsr.models.sampling import sampling_json, sampling_words
from dsr.models.thinking_facts import effort_text, facts_json, kept_text, switch_text, system_text, tools_text
from quant.experts.pruned_metadata import KeptExperts, read_kept_experts
from quant.round.rounded_file import RoundedFile, read_rounding
from runtime.base.errors import DoesNotFit, Incompatible
from runtime.base.quoted import quoted
from runtime.base.types import ByteCount, counted
from runtime.engine.markers import ThinkingMarkers
from runtime.engine.template_facts import TemplateFacts
from runtime.gguf.card import ModelCard
from runtime.gguf.engine_lists import check_answers
from runtime.gguf.tensor_name import ROLES, TensorRole
from runtime.placement.embedding import EmbeddingPlan, plan_embedding
from runtime.placement.memory import MemoryNeed, largest_context, need, warning

CONTEXTS = (4096, 32768)
_LONGEST_LICENCE = 200  # characters of what a file says


@dataclass(frozen=True, slots=True)
class RoleSummary:
    """All tensors of one role: how many, their weights, their bytes, and the types with the weights stored in each."""

    role: TensorRole
    tensors: int
    parameters: int
    size: ByteCount
    types: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Description:
    model: Model
    card: ModelCard
    roles: tuple[RoleSummary, ...]
    markers: ThinkingMarkers | None
    thinking: TemplateFacts | None
    needs: tuple[tuple[int, MemoryNeed], ...]
    available: ByteCount
    largest_context: int
    pruned: KeptExperts | None
    rounded: RoundedFile | None
    problem: str | None
    instead: str | None
    embedding: EmbeddingPlan | None

    def json(self) -> dict[str, Any]:
        card, model = self.card, self.model
        return {
            "name": model.name,
            "reference": model.reference,
            "files": [str(file) for file in card.files],
            "size": int(card.size),
            "architecture": card.architecture,
            "parameters": card.parameters,
            "active_parameters": card.active_parameters,
            "bits_per_weight": round(card.bits_per_weight, 3),
            "layers": card.layers,
            "experts": card.experts,
            "experts_used": card.experts_used,
            "pruned": _pruned_json(self.pruned) if self.pruned else None,
            "rounded": _rounded_json(self.rounded) if self.rounded else None,
            "problem": self.problem,
            "embeddings": _embedding_json(self.embedding) if self.embedding else None,
            "context": card.context_length,
            "reachable_context": reach_of(card, farthest(card, model.entry)),
            "vocabulary": card.vocab_size,
            "thinking": {"open": self.markers.open, "close": self.markers.close} if self.markers else None,
            "template": card.template is not None,
            "template_facts": facts_json(self.thinking) if self.thinking else None,
            "sampling": {"origin": model.sampling.origin, **sampling_json(model.sampling.params)},
            "tensors": [
                {
                    "role": row.role,
                    "tensors": row.tensors,
                    "parameters": row.parameters,
                    "size": int(row.size),
                    "types": dict(row.types),
                }
                for row in self.roles
            ],
            "memory": [
                {
                    "context": context,
                    "weights": int(each.weights),
                    "kv_cache": int(each.kv_cache),
                    "compute": int(each.compute),
                    "total": int(each.total),
                }
                for context, each in self.needs
            ],
            "memory_available": int(self.available),
            "largest_context": self.largest_context,
            "repo": model.repo,
            "revision": model.revision,
            "quant": model.quant,
            "licence": model.entry.licence if model.entry else card.metadata.get("general.license"),
            "sha256": list(model.digests),
            "header_digest": card.header_digest,
        }


def describe(model: Model, card: ModelCard, available: int) -> Description:
    """The facts about a model that may use `available` bytes of memory."""
    contexts = dict.fromkeys(min(context, card.context_length) for context in CONTEXTS)
    embedding, refused = _embedding(card, available), _refused(card)
    problem = refused.message.removeprefix(f"{card.path}: ") if refused else None
    if embedding is not None and problem is not None:  # it is never opened for a conversation
        needs: tuple[tuple[int, MemoryNeed], ...] = ((embedding.options.longest, embedding.need),)
        largest = embedding.options.longest
    elif refused:  # the engine never opens it, so it takes no memory
        needs, largest = (), 0
    else:
        needs = tuple((context, need(card, context)) for context in contexts)
        largest = largest_context(partial(need, card), available, card.context_length)
    return Description(
        model=model,
        card=card,
        roles=by_role(card),
        markers=card_markers(card),
        thinking=card_facts(card),
        needs=needs,
        available=ByteCount(available),
        largest_context=largest,
        pruned=read_kept_experts(card),
        rounded=read_rounding(card),
        problem=problem,
        instead=refused.hint if refused else None,
        embedding=embedding,
    )


def _embedding(card: ModelCard, available: int) -> EmbeddingPlan | None:
    """How the model would be opened for embeddings; None if it gives none, or memory has no room even for that."""
    try:
        return plan_embedding(card, available)
    except (Incompatible, DoesNotFit):
        return None


def _refused(card: ModelCard) -> Incompatible | None:
    """Why the model cannot chat here, although its file is sound; None where it can."""
    try:
        check_answers(card)
    except Incompatible as error:
        return error
    return None


def by_role(card: ModelCard) -> tuple[RoleSummary, ...]:
    """The tensors summed by role, in the order in which a token passes through them."""
    rows = []
    for role in ROLES:
        tensors = [tensor for tensor in card.tensors if tensor.role == role]
        if not tensors:
            continue
        types: Counter[str] = Counter()
        for tensor in tensors:
            types[tensor.type] += tensor.parameters
        rows.append(
            RoleSummary(
                role=role,
                tensors=len(tensors),
                parameters=types.total(),
                size=ByteCount(sum(tensor.size for tensor in tensors)),
                types=tuple(types.most_common()),
            )
        )
    return tuple(rows)


def describe_types(row: RoleSummary) -> str:
    """'Q4_K 75%, Q6_K 25%', by weights."""
    if len(row.types) == 1:
        return row.types[0][0]
    return ", ".join(f"{name} {count / row.parameters:.0%}" for name, count in row.types)


def facts(result: Description) -> list[tuple[str, str]]:
    """The lines for a person: label and value."""
    card, model = result.card, result.model
    active = f", {short_number(card.active_parameters)} active per token" if card.experts else ""
    rows = [
        ("model", model.name),
        ("file", _file_text(card)),
        ("size", str(card.size)),
        ("origin", _origin(model)),
        ("architecture", _shape(card)),
        ("parameters", short_number(card.parameters) + active),
        ("bits/weight", f"{card.bits_per_weight:.2f}"),
    ]
    chats = result.problem is None or result.embedding is None
    if chats:
        rows.append(("context", describe_reach(card, model.entry)))
    if result.embedding is not None:
        rows.append(("embeddings", _embedding_text(result.embedding)))
    if chats:
        rows.append(("thinking", _thinking_text(result)))
    if result.thinking is not None:
        rows.append(("effort", effort_text(result.thinking)))
        rows.append(("earlier thoughts", kept_text(result.thinking)))
        rows.append(("system prompt", system_text(result.thinking)))
        rows.append(("tools", tools_text(result.thinking)))
    if chats:
        rows.append(("sampling", _sampling_text(model)))
    if result.rounded:
        rows.insert(7, ("rounding", _rounded_text(result.rounded)))
    if result.pruned:
        rows.insert(5, ("pruned", _pruned_text(result.pruned, card)))
    if card.template is None and chats:
        rows.append(("chat template", "none: chat needs --template"))
    licence = model.entry.licence if model.entry else card.metadata.get("general.license")
    if isinstance(licence, str):
        rows.append(("licence", licence[:_LONGEST_LICENCE]))
    for context, each in result.needs:
        parts = f"{each.weights} weights, {each.kv_cache} KV cache, {each.compute} working buffers"
        rows.append((f"memory at {_thousands(context)}", f"{each.total} ({parts})"))
    if result.needs:
        kind = "a context" if chats else "texts"
        fits = f"{kind} of {result.largest_context} tokens" if result.largest_context else "nothing: too little memory"
        rows.append(("fits here", f"{fits} (in the {result.available} that a model may use)"))
    if result.problem:
        rows.append(("cannot chat", result.problem))
    if result.instead and not result.needs:
        rows.append(("instead", result.instead))
    if warned := warning(card):
        rows.append(("warning", warned))
    rows += [("SHA-256", digest) for digest in model.digests]
    rows.append(("header digest", card.header_digest))
    return rows


def _embedding_text(plan: EmbeddingPlan) -> str:
    form = plan.form
    pooling = {"mean": "the mean of all tokens", "cls": "the first token", "last": "the last token"}[form.pooling]
    made = "" if form.stated else "; the file names no pooling, so another program may give other vectors"
    return f"{form.dimensions} dimensions from {pooling}, texts of up to {form.longest} tokens{made}"


def _embedding_json(plan: EmbeddingPlan) -> dict[str, Any]:
    form = plan.form
    return {
        "dimensions": form.dimensions,
        "pooling": form.pooling,
        "stated": form.stated,
        "longest_text": form.longest,
        "memory": int(plan.need.total),
    }


def _sampling_text(model: Model) -> str:
    advice = model.sampling
    origin = {"catalogue": "the catalogue", "model file": "the model file", "default": "llama.cpp's default"}
    return f"{', '.join(sampling_words(advice.params))} ({origin[advice.origin]})"


def _thinking_text(result: Description) -> str:
    marks = f"{result.markers.open} … {result.markers.close}" if result.markers else "not marked"
    return f"{marks}; {switch_text(result.thinking)}" if result.thinking else marks


def short_number(count: int) -> str:
    """A count with three digits: 134_515_008 -> '135M', 17_408 -> '17.4K'."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= 0.9995 * size:
            return f"{count / size:#.3g}".rstrip(".") + unit
    return str(count)


def _file_text(card: ModelCard) -> str:
    more = f" and {len(card.files) - 1} more parts" if len(card.files) > 1 else ""
    return f"{card.path}{more}"


def _origin(model: Model) -> str:
    if model.embedded:
        return "comes with dsr"
    if model.program is not None:
        return f"a file of {PROGRAMS[model.program]}, read where it is"
    if model.repo is None:
        return "a file on this machine"
    return f"{model.repo} at {model.revision}" if model.revision else model.repo


def _shape(card: ModelCard) -> str:
    experts = f", {card.experts} experts, {card.experts_used} used per token" if card.experts else ""
    attention = "latent attention (MLA)" if card.is_mla else f"{card.heads} heads, {card.kv_heads} for keys and values"
    return f"{card.architecture}, {card.layers} layers, {attention}{experts}"


def _pruned_text(pruned: KeptExperts, card: ModelCard) -> str:
    why = f" for {', '.join(pruned.tasks)}" if pruned.tasks else ""
    parts = [f"{pruned.keep} of {pruned.experts} experts of each layer are kept{why}, chosen by {pruned.score}"]
    if card.experts_used != pruned.active_before:
        parts.append(f"each token used {pruned.active_before}")
    if pruned.tasks:
        parts.append(f"the removed experts had {pruned.lost_weight:.1%} of the routing weight")
    return "; ".join([*parts, pruned.grouping] if pruned.grouping else parts)


def _pruned_json(pruned: KeptExperts) -> dict[str, Any]:
    return {
        "experts": pruned.experts,
        "active": pruned.active_before,
        "tasks": list(pruned.tasks),
        "profiles": list(pruned.profiles),
        "score": pruned.score,
        "grouping": pruned.grouping,
        "lost": round(pruned.lost_weight, 6),
        "kept": {str(layer): list(kept) for layer, kept in pruned.kept.items()},
    }


def _rounded_text(rounded: RoundedFile) -> str:
    names = ", ".join(quoted(name) for name in rounded.datasets)
    text = f"{rounded.tokens} tokens of {names}" if names else f"{rounded.tokens} tokens"
    how = f"{quoted(rounded.effort)}, with those of earlier layers" if rounded.staged else quoted(rounded.effort)
    return f"errors corrected in {counted(rounded.tensors, 'tensor')} ({how}), from {text}"


def _rounded_json(rounded: RoundedFile) -> dict[str, Any]:
    return {
        "effort": rounded.effort,
        "tensors": rounded.tensors,
        "tokens": rounded.tokens,
        "datasets": list(rounded.datasets),
        "staged": rounded.staged,
    }


def _thousands(context: int) -> str:
    return f"{context // 1024}k" if context % 1024 == 0 else str(context)
