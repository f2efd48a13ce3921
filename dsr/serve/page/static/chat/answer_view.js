/** An answer in the thread: thought, vote, text, how it ended, and what can be done with it. */

import { copied } from "../text/code.js";
import { StreamingMarkdown } from "../text/streaming.js";
import { append, h, setText } from "../ui/dom.js";
import { counted, speed } from "../ui/format.js";
import { icon } from "../ui/icons.js";
import { branchSwitch } from "./branch_switch.js";
import { callView } from "./tool_view.js";
import { ThoughtView } from "./thought_view.js";
import { Vote } from "./vote.js";
import { VoteView } from "./vote_view.js";

/** @typedef {import("./conversation.js").Turn} Turn */
/** @typedef {import("./answer.js").Answer} Answer */

export class AnswerView {
  /** @param {Turn} turn @param {import("./thread.js").Actions} actions @param {boolean} live */
  constructor(turn, actions, live) {
    this.turn = turn;
    this.actions = actions;
    /** @type {string | undefined} the text that is drawn */
    this.shown = undefined;
    this.state = ""; // of ending and toolbar, so that they are drawn again only when it changed
    this.thought = new ThoughtView();
    this.vote = new VoteView(live);
    this.waiting = h("p", { class: "waiting", hidden: true });
    this.body = h("div", { class: "prose answer-text" });
    this.text = new StreamingMarkdown(this.body);
    this.ending = h("div", { class: "ending" });
    this.toolbar = h("div", { class: "actions" });
    this.element = h("article", { class: "turn answer", "aria-label": "Answer" },
      this.vote.element, this.thought.element, this.waiting, this.body, ...turn.calls.map(callView), this.ending, this.toolbar);
  }

  /** While it is drawn. @param {Answer} answer */
  grow(answer) {
    this.element.classList.add("live");
    this.element.setAttribute("aria-busy", "true");
    this.vote.update(answer.vote, true);
    this.thought.update(answer.thinking, answer.thinkingFor, answer.phase === "thinking");
    if (this.text.source !== answer.answer) this.text.show(answer.answer);
    const quiet = !answer.answer && !answer.thinking && (!answer.vote || answer.vote.tokens === 0);
    this.waiting.hidden = !quiet;
    setText(this.waiting, waitingFor(answer));
    this.toolbar.hidden = true;
    this.ending.hidden = true;
  }

  /** @param {boolean} busy @param {boolean} up whether the server answers @param {boolean} last */
  update(busy, up, last) {
    const { turn } = this;
    this.element.classList.remove("live");
    this.element.classList.toggle("last", last);
    this.element.removeAttribute("aria-busy");
    this.waiting.hidden = true;
    const { stats } = turn;
    this.vote.update(stats.vote ? Vote.from(stats.vote, stats.verdict) : null, false);
    this.thought.update(turn.thinking, stats.thought_seconds ?? null, false);
    if (this.shown !== turn.content) this.text.show(turn.content, true);
    this.shown = turn.content;
    const state = JSON.stringify([busy, up, last, stats.finish_reason, stats.failure, turn.siblings.length, turn.siblings.indexOf(turn)]);
    if (this.state === state) return;
    this.state = state;
    this.showEnding(busy, up, last);
    this.showToolbar(busy);
    this.toolbar.hidden = this.step(last) && turn.siblings.length === 1;
  }

  /** Whether results of tools follow, and the answer to the question after them. @param {boolean} last */
  step(last) {
    return this.turn.calls.length > 0 && !last;
  }

  /** @param {boolean} busy @param {boolean} up @param {boolean} last */
  showEnding(busy, up, last) {
    const { stats } = this.turn;
    const text = this.step(last) ? "" : howItEnded(stats);
    const resumable = last && !stats.vote && !this.turn.calls.length && Boolean(this.turn.content || this.turn.thinking);
    this.ending.hidden = !text;
    this.ending.replaceChildren();
    if (!text) return;
    this.ending.classList.toggle("failed", stats.finish_reason === "failed");
    append(this.ending, h("p", {}, text, stats.failure?.hint ? h("span", { class: "hint" }, ` ${hint(stats.failure.hint)}`) : null));
    if (!last) return;
    const waiting = !up ? " (waiting for the server)" : "";
    const label = resumable ? "Continue" : "Try again";
    this.ending.append(h("button", { type: "button", class: "resume", disabled: busy || !up,
      onclick: () => (resumable ? this.actions.continue(this.turn) : this.actions.regenerate(this.turn)) }, label + waiting));
  }

  /** @param {boolean} busy */
  showToolbar(busy) {
    const focused = this.toolbar.contains(document.activeElement);
    this.toolbar.hidden = false;
    this.toolbar.replaceChildren();
    append(this.toolbar,
      branchSwitch(this.turn, this.actions, busy, "answer"),
      h("button", { type: "button", class: "icon-button", "aria-label": "Copy answer", title: "Copy", "data-copy": true,
        onclick: (/** @type {Event} */ event) => this.copy(/** @type {Element} */ (event.currentTarget)) }, icon("copy"), h("span", { class: "copied" })),
      h("button", { type: "button", class: "icon-button", "aria-label": "Regenerate answer", title: "Regenerate", "data-regenerate": true,
        disabled: busy, onclick: () => this.actions.regenerate(this.turn) }, icon("regenerate")),
      h("span", { class: "facts" }, facts(this.turn.stats)));
    if (focused) /** @type {HTMLElement | null} */ (this.toolbar.querySelector("button"))?.focus();
  }

  /** @param {Element} button */
  copy(button) {
    return copied(button, this.turn.content);
  }
}

/** @param {Answer} answer */
function waitingFor(answer) {
  const { progress } = answer;
  if (!progress) return "Waiting for the model";
  const share = progress.total > 0 ? ` ${Math.round((100 * progress.done) / progress.total)} %` : "";
  const job = progress.job[0].toUpperCase() + progress.job.slice(1);
  return progress.item && !/prompt/.test(progress.job) ? `${job} ${progress.item}${share}` : job + share;
}

/** @param {Record<string, any>} stats */
function howItEnded(stats) {
  switch (stats.finish_reason) {
    case "length": return "The answer is cut: it reached the token limit.";
    case "cancelled": return "You stopped the answer.";
    case "interrupted": return "The connection to the server was lost. The text so far is kept.";
    case "failed": return stats.failure?.message ?? "The answer failed.";
    case "tool_calls": return "The model asks for a tool. This page runs no tools.";
    default: return "";
  }
}

/** @param {Record<string, any>} stats */
function facts(stats) {
  const total = (stats.thinking_tokens ?? 0) + (stats.answer_tokens ?? 0);
  return [stats.model, total ? counted(total, "token") : "", stats.tokens_per_second ? speed(stats.tokens_per_second) : ""]
    .filter(Boolean).join(" · ");
}

/** @param {string} text */
const hint = (text) => text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
