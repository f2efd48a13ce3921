/** Questions to the person at the page, over everything else. */

import { freshId, h } from "./dom.js";
import { icon } from "./icons.js";

/**
 * A dialog with a title, which closes with Escape, its button or a click beside it.
 * @param {string} title
 * @param {{ wide?: boolean, onclose?: () => void }} [options]
 * @param {...import("./dom.js").Child} children
 * @returns {HTMLDialogElement}
 */
export function openDialog(title, options = {}, ...children) {
  const id = freshId("title");
  const close = h("button", { type: "button", class: "icon-button", "aria-label": "Close", onclick: () => dialog.close() }, icon("close"));
  const dialog = h(
    "dialog", { class: options.wide ? "dialog wide" : "dialog", "aria-labelledby": id },
    h("header", {}, h("h2", { id }, title), close), ...children,
  );
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => { dialog.remove(); options.onclose?.(); });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/**
 * Asks before something that cannot be undone or costs something.
 * @param {string} title
 * @param {string} text
 * @param {string} action the word on the button
 * @param {boolean} [danger]
 * @returns {Promise<boolean>}
 */
export function confirm(title, text, action, danger = false) {
  return new Promise((resolve) => {
    let said = false;
    const yes = h("button", { type: "button", class: danger ? "primary danger" : "primary", onclick: () => { said = true; dialog.close(); } }, action);
    const no = h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
    const dialog = openDialog(title, { onclose: () => resolve(said) }, h("p", {}, text), h("footer", {}, no, yes));
    yes.focus();
  });
}

/**
 * Asks for a line of text. Null if the person gives none.
 * @param {string} title
 * @param {string} label
 * @param {{ value?: string, action?: string, type?: string, note?: string }} [options]
 * @returns {Promise<string | null>}
 */
export function askForText(title, label, options = {}) {
  return new Promise((resolve) => {
    /** @type {string | null} */
    let said = null;
    const id = freshId("field");
    const field = h("input", { id, type: options.type ?? "text", value: options.value ?? "", autocomplete: "off", required: true });
    const form = h(
      "form", { method: "dialog", onsubmit: () => { said = field.value.trim() || null; } },
      options.note ? h("p", {}, options.note) : null,
      h("label", { for: id }, label), field,
      h("footer", {}, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
        h("button", { type: "submit", class: "primary" }, options.action ?? "Save")),
    );
    const dialog = openDialog(title, { onclose: () => resolve(said) }, form);
    field.focus();
    field.select();
  });
}
