"""Summaries of a reply: lines for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dsr.chat.conversation import Conversation, Reply, ReplyFromDisk
from dsr.chat.forgetting import Forgotten
from dsr.chat.logprobs import chat_logprobs
from dsr.models.sampling import sampling_json
from dsr.store.predictions import PredictedRun
from dsr.ui.console import one_line
from dsr.ui.live_state import how_it_ended
from dsr.ui.text import truncate, truncate_middle
from runtime.base.types import ByteCount, counted
from runtime.engine.routing import RouteStatistics
from runtime.engine.speculation import DraftStatistics
from runtime.strategies.strategy import stored_name
from runtime.strategies.verdict import Candidate, Sample, Verdict

if TYPE_CHECKING:
    from dsr.chat.tools.rounds import Round

_SHOWN = 4  # answers of a tally; there can be as many as samples
_ANSWER_WIDTH = 40
_PARAGRAPHS, _LINE = 6, 76  # of the evidence for an answer: the best ones, and columns of a line


def stats_line(reply: Reply) -> str:
    done = reply.completion
    thinking = f"{done.thinking_tokens} thinking + " if done.thinking_tokens else ""
    if reply.verdict is None:
        drawn = f"{thinking}{done.answer_tokens} answer tokens"
    else:
        drawn = f"{reply.verdict.spent} tokens in {counted(reply.verdict.drawn, 'sample')}"
    cached = f" ({reply.cached} cached)" if reply.cached else ""
    effort = f"effort {reply.asked.effort}, " if reply.asked.effort else ""
    return (
        f"{effort}{reply.prompt_tokens} prompt{cached} + {drawn}, "
        f"prompt read in {reply.prefill_seconds:.2f} s, {_disk(reply)}{_speed(reply)}"
        f"{_waited(reply)}{_drafts(reply.drafts)}{_routes(reply.routes)}"
    )


def _disk(reply: Reply) -> str:
    """'43 % of the experts were in memory, 144.0 MiB read for each token, ' of a model that runs from the disk."""
    if reply.disk is None or not reply.drawn:
        return ""
    use = reply.disk.answer
    read = ByteCount(use.bytes_read // reply.drawn)
    return f"{100 * use.hit_share:.0f} % of the {reply.disk.what} were in memory, {read} read for each token, "


def _waited(reply: Reply) -> str:
    if reply.disk is None or not reply.decode_seconds:
        return ""
    return f", {100 * reply.disk.answer.waited / reply.decode_seconds:.0f} % of the time waiting for the disk"


def _speed(reply: Reply) -> str:
    """The measured speed, and the predicted one where there is a prediction."""
    measured = f"{reply.tokens_per_second:.1f} tokens/s"
    if reply.run is None:
        return measured
    return prediction_line(reply.run, measured)


def prediction_line(run: PredictedRun, measured: str | None = None) -> str:
    """'90.1 MiB of memory (88.2 MiB predicted), predicted 812.4, measured 790.1 tokens/s'."""
    expected, found = run.predicted, run.measured
    return (
        f"{ByteCount(found.memory)} of memory ({ByteCount(expected.memory)} predicted), "
        f"predicted {expected.tokens_per_second:.1f}, measured {measured or f'{found.tokens_per_second:.1f} tokens/s'}"
    )


def _drafts(drafts: DraftStatistics | None) -> str:
    if drafts is None:
        return ""
    off = f"; off {drafts.off}" if drafts.off else ""
    counted = f"{drafts.accepted} of {drafts.drafted} accepted, {drafts.tokens_per_step:.1f} tokens per step"
    return f", draft: {counted}{off}"


def _routes(routes: RouteStatistics | None) -> str:
    if routes is None or not routes.large + routes.small:
        return ""
    return f", {routes.large / (routes.large + routes.small):.1%} of the tokens by the large model"


def verdict_lines(verdict: Verdict) -> list[str]:
    """How the answer was chosen: the tally, the answers in turn, or the evidence; then the rule and the tokens."""
    saved = f", about {verdict.saved} saved" if verdict.saved else ""
    answers = (_turns(verdict) if verdict.unit == "turn" else []) or _tally(verdict)
    told = _evidence(verdict) or ["; ".join(answers)]
    return [*told, f"{verdict.strategy}: {one_line(verdict.rule)}; {verdict.spent} tokens{saved}"]


def _evidence(verdict: Verdict) -> list[str]:
    """'notes.txt, lines 12-20: The pass key is 12345. Remember': the best paragraphs, a line for each."""
    places = (f"{each.paragraph.place}: {one_line(each.paragraph.text)}" for each in verdict.evidence[:_PARAGRAPHS])
    lines = [truncate(each, _LINE) for each in places]
    more = len(verdict.evidence) - _PARAGRAPHS
    return [*lines, f"and {counted(more, 'more paragraph')}"] if more > 0 else lines


def _turns(verdict: Verdict) -> list[str]:
    """'round 1: 933', 'round 2: no answer': the latest."""
    drawn = [each for each in verdict.samples if each.completion.begun]
    earlier = max(len(drawn) - _SHOWN, 0)
    said = [f"{each.note}: {_said(each) or how_it_ended(each.completion) or 'no answer'}" for each in drawn[earlier:]]
    return [counted(earlier, "earlier round"), *said] if earlier else said


def _tally(verdict: Verdict) -> list[str]:
    parts = [_candidate(each, verdict, leads=not number) for number, each in enumerate(verdict.tally[:_SHOWN])]
    if verdict.tally and verdict.winner is None:
        answers = (truncate_middle(one_line(each.answer), _ANSWER_WIDTH) for each in verdict.tally[:_SHOWN])
        parts = [f"no answer passed: {', '.join(answers)}"]
    if len(verdict.tally) > _SHOWN:
        parts.append(counted(len(verdict.tally) - _SHOWN, "other answer"))
    if verdict.tally and verdict.abstained:
        parts.append(f"no answer: {verdict.abstained}")
    if not verdict.tally:
        chosen = verdict.unit in ("path", "beam") and sum(each.weight > 0 for each in verdict.samples) == 1
        which = "best" if chosen else "surest" if any(each.finished for each in verdict.samples) else "longest"
        parts.append(f"no {verdict.unit if chosen else 'sample'} gave an answer; showing the {which}")
    return parts


def why_lines(verdict: Verdict) -> list[str]:
    """The verdict, then one line per sample."""
    drawn = [each for each in verdict.samples if each.completion.begun]
    lines = [*verdict_lines(verdict), *map(_sample_line, drawn)]
    waiting = len(verdict.samples) - len(drawn)
    return [*lines, f"{counted(waiting, 'more sample')} had not begun"] if waiting else lines


def _candidate(candidate: Candidate, verdict: Verdict, *, leads: bool) -> str:
    """'933: 3 of 4 votes', '833: 1'. Without an answer a sample has no vote, but counts as path or beam."""
    voting = verdict.unit == "vote"
    votes = str(candidate.votes)
    if leads:
        of = sum(each.votes for each in verdict.tally) + (0 if voting else verdict.abstained)
        votes += f" of {counted(of, verdict.unit)}"
    whole = sum(each.weight for each in verdict.tally)
    weighted = voting and len(verdict.tally) > 1 and any(each.weight != each.votes for each in verdict.tally)
    share = f" ({100 * candidate.weight / whole:.0f} %)" if weighted and whole else ""
    return f"{truncate_middle(one_line(candidate.answer), _ANSWER_WIDTH)}: {votes}{share}"


def _sample_line(sample: Sample) -> str:
    done = sample.completion
    said = _said(sample) or "no answer"
    note = sample.note or how_it_ended(done)
    if sample.answer is None and note and not sample.finished:
        said, note = note, ""
    facts = [counted(len(done.tokens), "token"), f"{done.seconds:.1f} s"]
    facts += [f"{100 * sample.confidence:.0f} % sure"] if sample.confidence else []
    facts += [note] if note else []
    return f"sample {done.sample + 1}: {said} ({', '.join(facts)})"


def _said(sample: Sample) -> str:
    """The answer, empty without one."""
    return truncate_middle(one_line(sample.answer), _ANSWER_WIDTH) if sample.answer is not None else ""


def verdict_json(verdict: Verdict, seed: int) -> dict[str, Any]:
    """The verdict as JSON. `seed` is the seed of the first sample; every sample gets its own."""
    return {
        "strategy": stored_name(verdict.strategy),
        "winner": verdict.winner,
        "confidence": round(verdict.confidence, 4),
        "tally": tally_json(verdict),
        "abstained": verdict.abstained,
        "tied": verdict.tied,
        "rule": verdict.rule,
        "samples": [
            {
                "answer": each.answer,
                "tokens": len(each.completion.tokens),
                "finish_reason": each.completion.finish_reason,
                "seconds": round(each.completion.seconds, 4),
                "confidence": round(each.confidence, 4),
                "weight": round(each.weight, 4),
                "note": each.note,
                "seed": (seed + each.completion.sample) % 2**32,
            }
            for each in verdict.samples
        ],
        "tokens": {"spent": verdict.spent, "saved": verdict.saved, "sequential": verdict.sequential},
        "valued_by": verdict.valued_by,
        "evidence": [
            {
                "document": each.paragraph.document,
                "first_line": each.paragraph.first,
                "last_line": each.paragraph.last,
                "logprob": None if each.logprob is None else round(each.logprob, 4),
            }
            for each in verdict.evidence
        ],
    }


def tally_json(verdict: Verdict) -> list[dict[str, Any]]:
    return [{"answer": each.answer, "votes": each.votes, "weight": round(each.weight, 4)} for each in verdict.tally]


def as_json(conversation: Conversation, rounds: Sequence[Round]) -> dict[str, Any]:
    """The body of `dsr.chat/1`; `model` is its reference. Of several rounds it has the last answer and all calls.

    The same seed, slots and threads draw the same text again.
    """
    reply, loaded = rounds[-1].reply, conversation.loaded
    done = reply.completion
    return {
        "model": conversation.reference,
        "answer": done.answer,
        "thinking": done.thinking,
        "finish_reason": done.finish_reason,
        "looped": done.looped,
        "tokens": {
            "prompt": reply.prompt_tokens,
            "cached": reply.cached,
            "thinking": done.thinking_tokens,
            "answer": done.answer_tokens,
        },
        "seconds": {
            "load": round(loaded.load_seconds, 4),
            "prefill": round(reply.prefill_seconds, 4),
            "decode": round(reply.decode_seconds, 4),
        },
        "tokens_per_second": round(reply.tokens_per_second, 2),
        "verdict": verdict_json(reply.verdict, conversation.params.seed) if reply.verdict else None,
        "thought_closed_by": done.thought_closed_by,
        "sampling": sampling_json(conversation.params),
        "lora": [{"file": str(each.path), "scale": each.scale, "sha256": each.digest} for each in loaded.adapters],
        "seed": conversation.params.seed,
        "slots": done.slots,
        "threads": loaded.threads,
        "draft": drafts_json(reply.drafts),
        "route": routes_json(reply.routes),
        "failure": reply.failure.message if reply.failure else None,
        "prediction": prediction_json(reply.run),
        "disk_use": disk_json(reply.disk),
        "forgotten": forgotten_json(reply.forgotten),
        "effort": reply.asked.effort,
        "kept_thoughts": reply.asked.keep_thoughts,
        "logprobs": chat_logprobs(reply.tokens) if conversation.params.top_logprobs is not None else None,
        "calls": [{"round": number, **call.json()} for number, each in enumerate(rounds, 1) for call in each.calls],
    }


def forgotten_json(forgotten: Forgotten) -> dict[str, Any] | None:
    """The exchanges that the prompt left out; null if it had the whole conversation."""
    return {**asdict(forgotten), "summary": forgotten.summary or None} if forgotten.exchanges else None


def prediction_json(run: PredictedRun | None) -> dict[str, Any] | None:
    """Null where nothing was predicted: after too few tokens, with drafts, on a machine that was not measured."""
    if run is None:
        return None
    return {"predicted": asdict(run.predicted), "measured": asdict(run.measured), "uncorrected": run.uncorrected}


def disk_json(disk: ReplyFromDisk | None) -> dict[str, Any] | None:
    """What was read from the disk for this answer; null for a model in memory."""
    return {"prompt": disk.prompt.as_json(), "answer": disk.answer.as_json()} if disk is not None else None


def routes_json(routes: RouteStatistics | None) -> dict[str, Any] | None:
    """Null without `--route`; otherwise how many tokens each of the two models drew."""
    return None if routes is None else {"small": routes.small, "large": routes.large}


def drafts_json(drafts: DraftStatistics | None) -> dict[str, Any] | None:
    """`off` says why drafting ended; null while it goes on."""
    if drafts is None:
        return None
    return {"kind": drafts.kind, "drafted": drafts.drafted, "accepted": drafts.accepted, "off": drafts.off}
