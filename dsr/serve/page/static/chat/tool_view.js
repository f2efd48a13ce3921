/** Calls of tools and their results in the thread. Both are folded; the texts are content, so they are shown as they are. */

import { h } from "../ui/dom.js";
import { icon } from "../ui/icons.js";

/** @typedef {import("./conversation.js").Turn} Turn */

/** @param {import("./conversation.js").Call} call */
export const callView = (call) => folded(`Call of ${call.name}`, indented(call.arguments));

/** What a tool returned. */
export class ResultView {
  /** @param {Turn} turn */
  constructor(turn) {
    const label = turn.name ? `Result of ${turn.name}` : "Result of a tool";
    this.element = h("article", { class: "turn result", "aria-label": label }, folded(label, turn.content));
  }
}

/** @param {string} label @param {string} text */
function folded(label, text) {
  return h("details", { class: "thought tool" },
    h("summary", {}, icon("chevron"), h("span", { class: "thought-label" }, label)),
    h("div", { class: "thought-body" }, h("pre", { class: "thought-text", tabindex: "0" }, text)));
}

/** @param {string} json arguments as the model wrote them */
function indented(json) {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json;
  }
}
