/** A question in the thread: its files, its words, and the field to ask it in other words. */

import { copied } from "../text/code.js";
import { openDialog } from "../ui/dialog.js";
import { append, freshId, h } from "../ui/dom.js";
import { icon } from "../ui/icons.js";
import { branchSwitch } from "./branch_switch.js";
import { splitFiles, withFiles } from "./files.js";

/** @typedef {import("./conversation.js").Turn} Turn */

export class QuestionView {
  /** @param {Turn} turn @param {import("./thread.js").Actions} actions */
  constructor(turn, actions) {
    this.turn = turn;
    this.actions = actions;
    this.editing = false;
    this.state = ""; // so that it is drawn again only when that changed
    this.element = h("article", { class: "turn question", "aria-label": "You" });
    this.show();
  }

  /** @param {boolean} busy whether an answer is being drawn */
  update(busy) {
    if (this.editing) return;
    this.show(busy);
  }

  show(busy = false) {
    const { files, question } = splitFiles(this.turn.content);
    const state = JSON.stringify([this.turn.siblings.length, this.turn.siblings.indexOf(this.turn), busy]);
    if (this.state === state) return;
    const focused = this.element.contains(document.activeElement);
    this.state = state;
    this.element.replaceChildren();
    append(this.element,
      files.length ? h("ul", { class: "files", "aria-label": "Files" }, ...files.map((file) => h("li", {}, fileChip(file)))) : null,
      question.trim() ? h("div", { class: "bubble" }, question) : null,
      h("div", { class: "actions" },
        branchSwitch(this.turn, this.actions, busy, "version of the question"),
        h("button", { type: "button", class: "icon-button", "aria-label": "Copy question", title: "Copy", "data-copy": true,
          onclick: (/** @type {Event} */ event) => copied(hidden(event), question) }, icon("copy"), h("span", { class: "offscreen" }, "")),
        h("button", { type: "button", class: "icon-button", "aria-label": "Edit question", title: "Edit", "data-edit": true, disabled: busy,
          onclick: () => this.edit() }, icon("edit"))));
    if (focused) /** @type {HTMLElement | null} */ (this.element.querySelector("button"))?.focus();
  }

  edit() {
    const { files, question } = splitFiles(this.turn.content);
    const id = freshId("edit");
    const field = h("textarea", { id, rows: "2" });
    field.value = question;
    const done = () => { this.editing = false; this.state = ""; this.show(); };
    const form = h("form", { class: "edit-form", onsubmit: (/** @type {Event} */ event) => {
      event.preventDefault();
      if (!field.value.trim()) return;
      done();
      this.actions.edit(this.turn, withFiles(files, field.value));
    } },
      h("label", { for: id, class: "offscreen" }, "Edit the question"), field,
      h("div", { class: "edit-actions" },
        h("span", { class: "hint" }, "The answer so far stays in its own branch."),
        h("button", { type: "button", onclick: () => { done(); this.focusEdit(); } }, "Cancel"),
        h("button", { type: "submit", class: "primary" }, "Ask")));
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { event.preventDefault(); event.stopPropagation(); done(); this.focusEdit(); }
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); form.requestSubmit(); }
    });
    this.editing = true;
    this.element.replaceChildren(form);
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }

  focusEdit() {
    /** @type {HTMLElement | null} */ (this.element.querySelector("[data-edit]"))?.focus();
  }
}

/** @param {Event} event */
const hidden = (event) => /** @type {Element} */ (event.currentTarget);

/** A button that shows the text of a file. @param {import("./files.js").GivenFile} file */
export function fileChip(file) {
  const lines = file.content.split("\n").length;
  return h("button", { type: "button", class: "file-chip", onclick: () =>
    openDialog(file.name, { wide: true }, h("pre", { class: "dialog-body file-text", tabindex: "0" }, file.content)) },
    icon("file"), h("span", { class: "file-name" }, file.name), h("span", { class: "detail" }, `${lines} line${lines === 1 ? "" : "s"}`));
}
