/** The turns of a conversation, one below the other. */

import { copyCode } from "../text/code.js";
import { h } from "../ui/dom.js";
import { AnswerView } from "./answer_view.js";
import { QuestionView } from "./question_view.js";
import { ResultView } from "./tool_view.js";

/** @typedef {import("./conversation.js").Turn} Turn */

/**
 * What the buttons at a turn do.
 * @typedef {object} Actions
 * @property {(turn: Turn, content: string) => void} edit
 * @property {(turn: Turn) => void} regenerate
 * @property {(turn: Turn) => void} continue
 * @property {(turn: Turn, step: number) => void} turnTo
 */

export class Thread {
  /**
   * @param {import("./chat.js").Chat} chat
   * @param {Actions} actions
   * @param {import("../ui/announcer.js").Announcer} announcer
   */
  constructor(chat, actions, announcer) {
    this.chat = chat;
    this.actions = actions;
    this.announcer = announcer;
    this.up = true;
    this.element = h("div", { class: "thread" });
    /** @type {Map<Turn, QuestionView | AnswerView | ResultView>} */
    this.views = new Map();
    /** @type {Turn | null} the turn that was live at the last drawing */
    this.wasLive = null;
    chat.addEventListener("changed", () => this.update());
    chat.addEventListener("grew", () => this.soon());
    this.element.addEventListener("click", (event) => {
      const button = /** @type {Element} */ (event.target).closest("[data-copy-code]");
      if (button) copyCode(button);
    });
    setInterval(() => this.chat.live && this.soon(), 1000); // the time of the thought
  }

  /** Draws the live answer with the next frame. */
  soon() {
    if (this.waiting) return;
    this.waiting = true;
    const draw = () => { this.waiting = false; this.grow(); };
    if (document.hidden) setTimeout(draw, 500);
    else requestAnimationFrame(draw);
  }

  grow() {
    const { live } = this.chat;
    const view = live && this.views.get(live.turn);
    if (!(view instanceof AnswerView) || !live) return;
    view.grow(live.answer);
    this.announcer.follow(live.answer.answer);
  }

  /** @param {boolean} [up] whether the server answers */
  update(up = this.up) {
    this.up = up;
    const { conversation, live } = this.chat;
    const path = conversation.path;
    const keep = new Set(path);
    for (const [turn, view] of this.views) {
      if (keep.has(turn)) continue;
      view.element.remove();
      this.views.delete(turn);
    }
    path.forEach((turn, at) => {
      let view = this.views.get(turn);
      if (!view) {
        view = this.viewOf(turn, live?.turn === turn);
        this.views.set(turn, view);
      }
      if (this.element.children[at] !== view.element) this.element.insertBefore(view.element, this.element.children[at] ?? null);
      if (view instanceof ResultView) return;
      if (view instanceof QuestionView) view.update(Boolean(live));
      else if (live?.turn === turn) view.grow(live.answer);
      else view.update(Boolean(live), up, at === path.length - 1);
    });
    this.announce(live?.turn ?? null);
  }

  /** @param {Turn} turn @param {boolean} live */
  viewOf(turn, live) {
    if (turn.role === "user") return new QuestionView(turn, this.actions);
    return turn.role === "tool" ? new ResultView(turn) : new AnswerView(turn, this.actions, live);
  }

  /** @param {Turn | null} live */
  announce(live) {
    if (live && live !== this.wasLive) {
      this.announcer.begin();
      this.announcer.say("The model is working.");
    } else if (!live && this.wasLive && this.views.has(this.wasLive)) {
      const { content, stats } = this.wasLive;
      this.announcer.follow(content, true);
      const words = { stop: "Answer complete.", length: "The answer is cut.", cancelled: "Answer stopped." };
      this.announcer.say(words[/** @type {keyof typeof words} */ (stats.finish_reason)] ?? "The answer ended early.");
    }
    this.wasLive = live;
  }

  /** The view of the last turn with this role. @param {string} role */
  lastView(role) {
    const turns = this.chat.conversation.path.filter((turn) => turn.role === role);
    return turns.length ? this.views.get(turns[turns.length - 1]) : undefined;
  }
}
