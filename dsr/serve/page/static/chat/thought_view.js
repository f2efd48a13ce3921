/** The thought of an answer: one line while it grows and afterwards, the whole text when it is opened. */

import { h, setText } from "../ui/dom.js";
import { duration } from "../ui/format.js";
import { icon } from "../ui/icons.js";
import { showTail } from "../ui/tail.js";
import { StreamingMarkdown } from "../text/streaming.js";

export class ThoughtView {
  constructor() {
    this.label = h("span", { class: "thought-label" });
    this.tail = h("span", { class: "thought-tail", "aria-hidden": "true" });
    this.body = h("div", { class: "prose" });
    this.element = h("details", { class: "thought", hidden: true },
      h("summary", {}, icon("chevron"), this.label, this.tail), h("div", { class: "thought-body" }, this.body));
    this.text = new StreamingMarkdown(this.body);
    this.source = "";
    this.ended = false;
    this.element.addEventListener("toggle", () => this.draw());
  }

  /**
   * @param {string} source
   * @param {number | null} seconds
   * @param {boolean} thinking whether it still grows
   */
  update(source, seconds, thinking) {
    this.element.hidden = !source && !thinking;
    this.element.classList.toggle("live", thinking);
    const time = seconds ? duration(seconds) : "";
    if (thinking) setText(this.label, time && (seconds ?? 0) >= 1 ? `Thinking for ${time}` : "Thinking");
    else setText(this.label, time ? `Thought for ${time}` : "Thought");
    showTail(this.tail, thinking ? source : "");
    this.source = source;
    this.ended = !thinking;
    this.draw();
  }

  draw() {
    if (!this.element.open || (this.text.source === this.source && this.done === this.ended)) return;
    this.done = this.ended;
    this.text.show(this.source, this.ended);
    const box = /** @type {HTMLElement} */ (this.body.parentElement);
    if (!this.ended && box.scrollHeight - box.scrollTop - box.clientHeight < 80) box.scrollTop = box.scrollHeight;
  }
}
