/** An answer while it is drawn: what the stream has told so far. Events in, state out. */

import { Vote } from "./vote.js";

/**
 * @typedef {"waiting" | "reading" | "thinking" | "answering" | "ended"} Phase
 * @typedef {{ thinking: string, answer: string, thoughtSeconds: number | null }} Begun text that the answer continues
 */

export class Answer {
  /**
   * @param {() => number} now seconds
   * @param {Begun} [begun]
   * @param {Vote | null} [vote]
   * @param {boolean} [preview] the reply comes at its end, so the text of the sample is shown until then
   */
  constructor(now, begun = { thinking: "", answer: "", thoughtSeconds: null }, vote = null, preview = false) {
    this.now = now;
    this.started = now();
    this.thinking = begun.thinking;
    this.answer = begun.answer;
    this.thoughtBefore = begun.thoughtSeconds ?? 0;
    /** @type {number | null} seconds, once the thought has ended */
    this.thoughtSeconds = begun.answer ? begun.thoughtSeconds : null;
    /** @type {number | null} */
    this.thoughtStarted = null;
    /** @type {Phase} */
    this.phase = "waiting";
    /** @type {{ job: string, item: string, done: number, total: number } | null} */
    this.progress = null;
    /** @type {string[]} */
    this.notices = [];
    /** @type {string} stop, length, tool_calls, cancelled, interrupted, failed */
    this.finish = "";
    /** @type {any} */
    this.usage = null;
    /** @type {{ message: string, hint: string } | null} */
    this.failure = null;
    this.vote = vote;
    this.preview = preview;
    /** @type {any} */
    this.verdict = null;
    /** @type {number | null} when the first text came */
    this.firstText = null;
    this.ended = 0;
  }

  /** @param {any} event from `completionEvents` */
  take(event) {
    if (event.type === "thinking" || event.type === "answer") {
      if (this.preview) this.clear();
      if (event.type === "thinking") this.think(event.text);
      else this.say(event.text);
    } else if (event.type === "text" && this.preview && !event.sample) {
      if (event.part === "thinking") this.think(event.text);
      else this.say(event.text);
    }
    else if (event.type === "thought_ended" && !this.vote) this.endThought();
    else if (event.type === "finish") this.finish = event.reason;
    else if (event.type === "usage") this.usage = event.usage;
    else if (event.type === "notice") this.notices.push(event.text);
    else if (event.type === "failed") this.failure = { message: event.message, hint: event.hint ?? "" };
    else if (event.type === "progress") {
      this.progress = event.total > 0 && event.done >= event.total ? null : event;
      if (this.phase === "waiting") this.phase = "reading";
    } else if (event.type === "verdict" && !this.vote) {
      this.verdict = event.verdict; // of a single sample
    } else if (this.vote || (event.sample ?? 0) > 0) {
      this.vote ??= this.voteSoFar();
      this.vote.take(event);
      if (event.type === "text") this.begin();
    }
  }

  /** A second sample is drawn: the text so far is that of the first. */
  voteSoFar() {
    const vote = new Vote("", 0);
    if (this.preview) Object.assign(vote.sample(0), { thinking: this.thinking, answer: this.answer, state: "drawing" });
    this.clear();
    return vote;
  }

  /** The reply itself comes, or the samples are shown as a vote. */
  clear() {
    this.preview = false;
    this.thinking = this.answer = "";
  }

  /** @param {string} text */
  think(text) {
    this.begin();
    if (this.thoughtStarted === null) this.thoughtStarted = this.now();
    this.phase = "thinking";
    this.thinking += text;
  }

  /** @param {string} text */
  say(text) {
    this.begin();
    this.endThought();
    this.phase = "answering";
    this.answer += text;
  }

  begin() {
    this.firstText ??= this.now();
    this.progress = null;
  }

  endThought() {
    if (this.thoughtStarted !== null && this.thoughtSeconds === null)
      this.thoughtSeconds = this.thoughtBefore + this.now() - this.thoughtStarted;
    if (this.phase === "thinking") this.phase = "answering";
  }

  /**
   * Nothing more comes.
   * @param {string} [reason] why, if the stream did not say it
   */
  end(reason = "") {
    this.endThought();
    this.finish = reason || this.finish || (this.failure ? "failed" : "interrupted");
    this.phase = "ended";
    this.ended = this.now();
    this.progress = null;
    if (this.vote && !this.vote.verdict) this.vote.close(reason === "cancelled" ? "you stopped it" : "the answer ended before");
  }

  /** Seconds of thought so far. */
  get thinkingFor() {
    if (this.thoughtSeconds !== null) return this.thoughtSeconds;
    return this.thoughtBefore + (this.thoughtStarted === null ? 0 : this.now() - this.thoughtStarted);
  }

  /** What is kept with the answer, in the terms of the record of `dsr chat`. @returns {Record<string, any>} */
  get stats() {
    const details = this.usage?.completion_tokens_details ?? {};
    const total = this.usage?.completion_tokens ?? null;
    const thinking = details.reasoning_tokens ?? null;
    const seconds = this.firstText === null ? 0 : this.ended - this.firstText;
    /** @type {Record<string, any>} */
    const stats = { finish_reason: this.finish };
    if (this.usage) stats.prompt_tokens = this.usage.prompt_tokens;
    if (thinking !== null) stats.thinking_tokens = thinking;
    if (total !== null) stats.answer_tokens = total - (thinking ?? 0);
    if (total !== null && seconds > 0.05) stats.tokens_per_second = Math.round((100 * total) / seconds) / 100;
    if (this.thinking) stats.thought_seconds = Math.round(10 * this.thinkingFor) / 10;
    if (this.failure) stats.failure = this.failure;
    if (this.notices.length) stats.notices = this.notices;
    const verdict = this.vote ? this.vote.verdict : this.verdict;
    if (verdict) stats.verdict = verdict;
    if (this.vote) {
      stats.vote = this.vote.toJSON();
    }
    return stats;
  }
}
