/** The field for the next question, its files, and how it shall be answered. */

import { append, h, setText } from "../ui/dom.js";
import { icon } from "../ui/icons.js";
import { togglePanel } from "../ui/popover.js";
import { prefer, preference } from "../ui/preferences.js";
import { readFile, withFiles } from "./files.js";
import { OptionsPanel } from "./options_panel.js";
import { DEFAULTS, asOptions, chosen, knownTo } from "./options.js";
import { fileChip } from "./question_view.js";

/** @typedef {import("./files.js").GivenFile} GivenFile */

export class Composer {
  /**
   * @param {{ send: (content: string) => void, stop: () => void, system: { get: () => string, set: (text: string) => void } }} actions
   */
  constructor(actions) {
    this.actions = actions;
    this.options = asOptions(preference("options", null));
    /** @type {any} the model that will answer */
    this.model = null;
    /** @type {any[]} */
    this.strategies = [];
    /** @type {GivenFile[]} */
    this.files = [];
    this.busy = false;
    const id = "message";
    this.field = h("textarea", { id, rows: "1", placeholder: "Ask a question", "aria-describedby": `${id}-problem`,
      oninput: () => this.resize(), onkeydown: (/** @type {KeyboardEvent} */ event) => this.key(event) });
    this.picker = h("input", { type: "file", multiple: true, class: "offscreen", tabindex: "-1", "aria-hidden": "true",
      onchange: () => { this.add([...(this.picker.files ?? [])]); this.picker.value = ""; } });
    this.attach = h("button", { type: "button", class: "icon-button", "aria-label": "Add text files", title: "Add text files",
      onclick: () => this.picker.click() }, icon("attach"));
    this.optionsButton = h("button", { type: "button", class: "icon-button", "aria-label": "How to answer", title: "How to answer",
      "aria-haspopup": "dialog", "aria-expanded": "false", onclick: () => this.showOptions() }, icon("options"));
    this.chips = h("ul", { class: "chips", "aria-label": "How to answer" });
    this.send = h("button", { type: "submit", class: "send", "aria-label": "Send", title: "Send" }, icon("send"));
    this.stop = h("button", { type: "button", class: "send stop", "aria-label": "Stop", title: "Stop", hidden: true,
      onclick: () => actions.stop() }, icon("stop"));
    this.given = h("ul", { class: "files", "aria-label": "Files of the question", hidden: true });
    this.problem = h("p", { id: `${id}-problem`, class: "problem", role: "alert" });
    this.element = h("form", { class: "composer", onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); this.submit(); } },
      this.problem, this.given, h("label", { for: id, class: "offscreen" }, "Message"), this.field, this.picker,
      h("div", { class: "composer-bar" }, this.attach, this.optionsButton, this.chips, this.send, this.stop));
    this.field.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (!files.length) return;
      event.preventDefault();
      this.add(files);
    });
    this.showChips();
  }

  /** @param {any} model @param {any[]} strategies */
  know(model, strategies) {
    this.model = model;
    this.strategies = strategies;
    this.showChips();
    this.field.placeholder = model ? `Ask ${model.name}` : "Ask a question";
  }

  /** How to answer the next question. */
  get current() {
    return knownTo(this.options, this.model);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.submit();
  }

  submit() {
    const question = this.field.value;
    if (this.busy || !question.trim()) return;
    const content = withFiles(this.files, question);
    this.clear();
    this.actions.send(content);
  }

  clear() {
    this.field.value = "";
    this.files = [];
    this.showFiles();
    this.complain("");
    this.resize();
  }

  /** @param {string} text */
  fill(text) {
    this.field.value = text;
    this.resize();
    this.field.focus();
  }

  /** Grows with its text where CSS cannot do it. */
  resize() {
    if (CSS.supports("field-sizing", "content")) return;
    this.field.style.height = "auto";
    this.field.style.height = `${this.field.scrollHeight}px`;
  }

  /** @param {boolean} busy */
  setBusy(busy) {
    if (this.busy === busy) return;
    const focused = document.activeElement === this.send || document.activeElement === this.stop;
    this.busy = busy;
    this.send.hidden = busy;
    this.stop.hidden = !busy;
    if (focused) (busy ? this.stop : this.field).focus();
  }

  /** @param {File[]} files */
  async add(files) {
    this.complain("");
    for (const file of files) {
      try {
        this.files.push(await readFile(file));
      } catch (error) {
        this.complain(/** @type {Error} */ (error).message);
      }
    }
    this.showFiles();
    this.field.focus();
  }

  showFiles() {
    this.given.hidden = !this.files.length;
    this.given.replaceChildren(...this.files.map((file) => h("li", {}, fileChip(file),
      h("button", { type: "button", class: "icon-button small", "aria-label": `Remove ${file.name}`, onclick: () => {
        this.files = this.files.filter((other) => other !== file);
        this.showFiles();
        this.field.focus();
      } }, icon("close")))));
  }

  /** @param {string} text */
  complain(text) {
    setText(this.problem, text);
  }

  showOptions() {
    const panel = new OptionsPanel(this.options, this.model, this.strategies, (options) => {
      this.options = options;
      prefer("options", options);
      this.showChips();
    }, this.actions.system);
    togglePanel(this.optionsButton, panel.element);
    panel.element.querySelector("select")?.focus();
  }

  showChips() {
    const items = chosen(this.current).map(({ text, fields }) => {
      const remove = h("button", { type: "button", "aria-label": `Remove: ${text}`, onclick: () => {
        /** @type {any} */
        const options = { ...this.options };
        for (const field of fields) options[field] = DEFAULTS[field];
        this.options = options;
        prefer("options", options);
        this.showChips();
        this.optionsButton.focus();
      } }, h("span", {}, text), icon("close"));
      return h("li", {}, remove);
    });
    this.chips.replaceChildren();
    append(this.chips, ...items);
    this.chips.hidden = !items.length;
  }

  /** Switches between one answer and a vote. */
  toggleVote() {
    const strategy = this.options.strategy ? "" : "vote";
    this.options = { ...this.options, strategy, samples: strategy ? this.options.samples : null };
    prefer("options", this.options);
    this.showChips();
  }
}
