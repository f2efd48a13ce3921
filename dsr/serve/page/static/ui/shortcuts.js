/** Keys of the page. A key without Ctrl works only while no field has the focus, and can be switched off. */

import { h } from "./dom.js";
import { openDialog } from "./dialog.js";
import { prefer, preference } from "./preferences.js";

/**
 * @typedef {object} Shortcut
 * @property {string} key as in KeyboardEvent.key
 * @property {boolean} [ctrl] with Ctrl, or Command on a Mac
 * @property {boolean} [shift]
 * @property {string} name what it does
 * @property {() => void} action
 */

const MAC = /Mac|iPhone|iPad/.test(navigator.platform);

export class Shortcuts {
  /** @param {Shortcut[]} list */
  constructor(list) {
    this.list = list;
    addEventListener("keydown", (event) => this.pressed(event));
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    if (event.defaultPrevented || event.altKey || event.isComposing || document.querySelector("dialog[open], :popover-open")) return;
    const ctrl = event.ctrlKey || event.metaKey;
    const target = /** @type {HTMLElement} */ (event.target);
    const typing = target.matches?.("input, textarea, select, [contenteditable]") || target.closest?.('[role="menu"]');
    for (const each of this.list) {
      if (each.key.toLowerCase() !== event.key.toLowerCase() || Boolean(each.ctrl) !== ctrl) continue;
      if (each.ctrl && Boolean(each.shift) !== event.shiftKey) continue;
      if (!each.ctrl && (typing || !preference("single-keys", true)) && each.key !== "Escape") continue;
      event.preventDefault();
      each.action();
      return;
    }
  }

  /** Shows the list. */
  explain() {
    const rows = this.list.map((each) => h("div", {}, h("dt", {}, ...keys(each)), h("dd", {}, each.name)));
    const fixed = [["Enter", "Send the message"], ["Shift + Enter", "Begin a new line"]].map(([key, name]) =>
      h("div", {}, h("dt", {}, ...key.split(" + ").map((part) => h("kbd", {}, part))), h("dd", {}, name)));
    const box = h("input", { type: "checkbox", checked: preference("single-keys", true), onchange: () => prefer("single-keys", box.checked) });
    openDialog("Keyboard shortcuts", {}, h("dl", { class: "shortcuts" }, ...fixed, ...rows),
      h("label", { class: "check" }, box, "Use single keys outside of text fields"));
  }
}

/** @param {Shortcut} shortcut */
function keys({ key, ctrl, shift }) {
  const names = [...(ctrl ? [MAC ? "⌘" : "Ctrl"] : []), ...(shift ? ["Shift"] : []), key.length === 1 ? key.toUpperCase() : key];
  return names.map((name) => h("kbd", {}, name));
}
