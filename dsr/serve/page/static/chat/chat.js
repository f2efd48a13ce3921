/** Asks and answers in one conversation: what the buttons of the page do. Views listen; it draws nothing. */

import { completionEvents } from "../server/completion.js";
import { ConnectionLost, ServerError } from "../server/server.js";
import { Answer } from "./answer.js";
import { Conversation, Turn, titleOf } from "./conversation.js";
import { dropDraft, keepDraft } from "./draft.js";
import { requestFields } from "./options.js";
import { Vote } from "./vote.js";

/** @typedef {import("./options.js").AskOptions} AskOptions */

const DRAFT_EVERY = 1000; // ms

/**
 * Events: "changed" (turns came, went or ended), "grew" (the live answer has new text), "saved", "unsaved".
 */
export class Chat extends EventTarget {
  /**
   * @param {import("../server/server.js").Server} server
   * @param {import("./store.js").ConversationStore} store
   */
  constructor(server, store) {
    super();
    this.server = server;
    this.store = store;
    this.conversation = new Conversation();
    /** @type {{ turn: Turn, answer: Answer, abort: AbortController } | null} */
    this.live = null;
    this.unsaved = false;
    /** @type {Promise<void> | null} */
    this.saving = null;
    this.again = false;
    this.saveProblem = ""; // why it is unsaved
    /** A strategy as `/api/dsr/strategies` tells it. @type {(strategy: string) => any} */
    this.kind = () => null;
    addEventListener("pagehide", () => this.leave());
  }

  /** @param {Conversation} conversation */
  open(conversation) {
    this.stop();
    this.live = null;
    this.unsaved = false;
    this.conversation = conversation;
    this.tell("changed");
  }

  /** @param {string} name */
  tell(name) {
    this.dispatchEvent(new Event(name));
  }

  /** Asks the next question. @param {string} content @param {AskOptions} options @param {string} model */
  ask(content, options, model) {
    if (!this.conversation.root.after.length && !this.conversation.title) this.conversation.title = titleOf(content);
    return this.draw(this.conversation.end.add(new Turn("user", content)), options, model);
  }

  /** Asks a question in other words, in a new branch. @param {Turn} question @param {string} content @param {AskOptions} options @param {string} model */
  edit(question, content, options, model) {
    const parent = /** @type {Turn} */ (question.parent);
    return this.draw(parent.add(new Turn("user", content)), options, model);
  }

  /** Draws another answer, in a new branch. @param {Turn} answer @param {AskOptions} options @param {string} model */
  regenerate(answer, options, model) {
    return this.draw(/** @type {Turn} */ (answer.parent), options, model);
  }

  /** @param {Turn} turn @param {number} step */
  turnTo(turn, step) {
    if (this.live) return;
    this.conversation.turnTo(turn, step);
    this.tell("changed");
    this.save();
  }

  /** @param {Turn} question @param {AskOptions} options @param {string} model */
  async draw(question, options, model) {
    if (this.live) return;
    const vote = this.expectedVote(options);
    const turn = question.add(new Turn("assistant", ""));
    const messages = this.conversation.messagesUntil(question);
    await this.run(turn, { model, messages, ...requestFields(options) }, new Answer(seconds, undefined, vote, Boolean(options.strategy) && !vote));
  }

  /** The lanes that a strategy will fill; null if it draws one sample, or decides later. @param {AskOptions} options */
  expectedVote({ strategy, samples }) {
    const kind = this.kind(strategy);
    if (!strategy || strategy === "auto" || kind?.draws === "one") return null;
    const together = kind?.draws === "together";
    return new Vote(strategy, together ? (samples ?? Number(kind.settings.n ?? 0)) : 0);
  }

  /** Goes on with an answer that was cut. @param {Turn} turn @param {AskOptions} options @param {string} model */
  async continue(turn, options, model) {
    if (this.live) return;
    const { content, thinking, stats } = turn;
    const last = { role: "assistant", content, ...(thinking ? { reasoning_content: thinking } : {}) };
    const messages = [...this.conversation.messagesUntil(/** @type {Turn} */ (turn.parent)), last];
    const fields = requestFields({ ...options, strategy: "" });
    const begun = { thinking, answer: content, thoughtSeconds: stats.thought_seconds ?? null };
    await this.run(turn, { model, messages, ...fields, dsr: { ...fields.dsr, continue: true } }, new Answer(seconds, begun));
  }

  stop() {
    this.live?.abort.abort();
  }

  /** @param {Turn} turn @param {Record<string, any>} request @param {Answer} answer */
  async run(turn, request, answer) {
    const conversation = this.conversation;
    const abort = new AbortController();
    this.live = { turn, answer, abort };
    conversation.model = request.model;
    this.tell("changed");
    this.save(); // the question is kept even if the answer never comes
    const draft = setInterval(() => this.keepSoFar(turn, answer), DRAFT_EVERY);
    let reason = "";
    try {
      for await (const event of completionEvents(this.server, request, abort.signal)) {
        answer.take(event);
        this.tell("grew");
      }
    } catch (error) {
      if (abort.signal.aborted) reason = "cancelled";
      else if (error instanceof ConnectionLost) reason = "interrupted";
      else if (error instanceof ServerError) answer.failure = { message: error.message, hint: error.hint };
      else answer.failure = { message: `The stream cannot be read: ${error}`, hint: "" };
      if (answer.failure) reason = "failed";
    }
    clearInterval(draft);
    answer.end(reason);
    write(turn, answer, request.model);
    if (this.live?.turn === turn) this.live = null;
    if (this.conversation !== conversation) return void this.store.save(conversation).catch(() => undefined);
    this.tell("changed");
    await this.save();
  }

  /** Keeps the conversation in the store; if that fails, in this browser until it works. */
  async save() {
    const conversation = this.conversation;
    if (!conversation.root.after.length) return;
    if (this.saving) {
      this.again = true;
      return this.saving;
    }
    this.saving = this.store.save(conversation);
    try {
      await this.saving;
      this.unsaved = false;
      if (!this.live) dropDraft();
      if (this.conversation === conversation) this.tell("saved");
    } catch (error) {
      if (!(error instanceof ConnectionLost) && !(error instanceof ServerError)) throw error;
      this.unsaved = true;
      this.saveProblem = error.message;
      keepDraft(conversation);
      this.tell("unsaved");
    } finally {
      this.saving = null;
    }
    if (this.again && !this.unsaved) {
      this.again = false;
      await this.save();
    }
  }

  /** @param {Turn} turn @param {Answer} answer */
  keepSoFar(turn, answer) {
    turn.content = answer.answer;
    turn.thinking = answer.thinking;
    turn.stats = { ...turn.stats, finish_reason: "interrupted", thought_seconds: Math.round(10 * answer.thinkingFor) / 10 };
    keepDraft(this.conversation);
  }

  /** The page closes or reloads. */
  leave() {
    if (this.live) this.keepSoFar(this.live.turn, this.live.answer);
  }
}

const seconds = () => performance.now() / 1000;

/** @param {Turn} turn @param {Answer} answer @param {string} model */
function write(turn, answer, model) {
  turn.content = answer.answer;
  turn.thinking = answer.thinking;
  turn.stats = { ...answer.stats, model };
}
