/** "2 / 3" with arrows: which of several turns at the same place is shown. */

import { h } from "../ui/dom.js";
import { icon } from "../ui/icons.js";

/**
 * @param {import("./conversation.js").Turn} turn
 * @param {import("./thread.js").Actions} actions
 * @param {boolean} busy
 * @param {string} noun
 */
export function branchSwitch(turn, actions, busy, noun) {
  const all = turn.siblings;
  if (all.length < 2) return null;
  const at = all.indexOf(turn);
  const step = (/** @type {number} */ by, /** @type {string} */ name, /** @type {"back" | "forward"} */ symbol) =>
    h("button", { type: "button", class: "icon-button", "aria-label": `${name} ${noun}`, disabled: busy || !all[at + by],
      onclick: () => actions.turnTo(turn, by) }, icon(symbol));
  return h("span", { class: "branches" }, step(-1, "Previous", "back"),
    h("span", { "aria-label": `${noun} ${at + 1} of ${all.length}`, role: "img" }, `${at + 1} / ${all.length}`), step(1, "Next", "forward"));
}
