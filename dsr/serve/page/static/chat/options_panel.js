/** The panel that sets how the next questions are answered. */

import { freshId, h } from "../ui/dom.js";
import { DEFAULTS, SAMPLING } from "./options.js";

/** @typedef {import("./options.js").AskOptions} AskOptions */

// What only a program can use, or needs files of the machine.
const NOT_HERE = ["direct", "repeated-sampling"];
const SAMPLE_COUNTS = [4, 8, 16, 32];

export class OptionsPanel {
  /**
   * @param {AskOptions} options
   * @param {any} model
   * @param {any[]} strategies
   * @param {(options: AskOptions) => void} changed
   * @param {{ get: () => string, set: (text: string) => void }} system the system prompt of the conversation
   */
  constructor(options, model, strategies, changed, system) {
    this.options = { ...options };
    this.model = model;
    this.strategies = strategies.filter((strategy) => !NOT_HERE.includes(strategy.name));
    this.changed = changed;
    this.system = system;
    this.element = h("div", { class: "panel options", role: "dialog", "aria-label": "How to answer" });
    this.draw();
  }

  /** @param {Partial<AskOptions>} change @param {boolean} [redraw] */
  set(change, redraw = false) {
    this.options = { ...this.options, ...change };
    this.changed(this.options);
    if (redraw) this.draw();
  }

  draw() {
    const focused = /** @type {HTMLElement | null} */ (this.element.querySelector(":focus"));
    const name = focused?.getAttribute("name");
    const value = focused instanceof HTMLInputElement && focused.type === "radio" ? `[value="${focused.value}"]` : "";
    this.element.replaceChildren(this.strategy(), ...this.thinking(), this.sampling(), this.instructions(),
      h("footer", {}, h("button", { type: "button", class: "quiet", onclick: () => this.set({ ...DEFAULTS }, true) }, "Reset to defaults")));
    if (name) /** @type {HTMLElement | null} */ (this.element.querySelector(`[name="${name}"]${value}`))?.focus();
  }

  strategy() {
    const { strategy, samples } = this.options;
    const known = this.strategies.find((each) => each.name === strategy);
    const choice = h("select", { name: "strategy", onchange: () => this.set({ strategy: choice.value, samples: null, settings: {} }, true) },
      h("option", { value: "" }, "One answer"),
      ...this.strategies.map((each) => h("option", { value: each.name, selected: each.name === strategy }, title(each.name))));
    const settings = /** @type {[string, string][]} */ (Object.entries(known?.settings ?? {}));
    const hasSamples = settings.some(([name]) => name === "n");
    const others = settings.filter(([name]) => name !== "n" && name !== "check" && name !== "seconds");
    const count = this.options.samples ?? Number(settings.find(([name]) => name === "n")?.[1] ?? 8);
    return h("fieldset", {}, h("legend", {}, "Strategy"),
      h("label", { class: "row" }, h("span", { class: "offscreen" }, "Strategy"), choice),
      known ? h("p", { class: "hint" }, `${known.summary[0].toUpperCase()}${known.summary.slice(1)}.`)
        : h("p", { class: "hint" }, "The model answers once."),
      hasSamples ? this.choices("samples", "Samples", SAMPLE_COUNTS.map((each) => [String(each), String(each)]), String(samples ?? count),
        (value) => this.set({ samples: Number(value) })) : null,
      others.length ? h("details", { class: "more" }, h("summary", {}, "Settings of the strategy"), ...others.map((each) => this.setting(...each))) : null);
  }

  /** @param {string} name @param {string} otherwise */
  setting(name, otherwise) {
    const id = freshId("setting");
    const field = h("input", { id, name: `set-${name}`, type: "text", value: this.options.settings[name] ?? "", placeholder: otherwise, onchange: () => {
      const settings = { ...this.options.settings };
      if (field.value.trim()) settings[name] = field.value.trim();
      else delete settings[name];
      this.set({ settings });
    } });
    return h("label", { class: "row", for: id }, h("span", {}, name.replaceAll("_", " ")), field);
  }

  /** @returns {HTMLElement[]} */
  thinking() {
    const model = this.model;
    if (!model?.thinks) return [];
    const { thinking, effort, budget } = this.options;
    const parts = [];
    if (model.canSwitch)
      parts.push(this.choices("thinking", "Thinking", [["", "On"], ["off", "Off"]], thinking, (value) => this.set({ thinking: value === "off" ? "off" : "" }, true)));
    if (thinking !== "off" && model.efforts?.length)
      parts.push(this.choices("effort", "Effort", [["", "Default"], ...model.efforts.map((/** @type {string} */ each) => [each, title(each)])], effort, (value) => this.set({ effort: value })));
    if (thinking !== "off") parts.push(this.figure("budget", "Thinking budget", budget, 1, 1, 1048576, "no limit", "tokens"));
    return [h("fieldset", {}, h("legend", {}, "Thinking"), ...parts)];
  }

  instructions() {
    const text = this.system.get();
    const id = freshId("system");
    const field = h("textarea", { id, name: "system", rows: "3", placeholder: "For example: Answer in one sentence.", oninput: () => this.system.set(field.value) });
    field.value = text;
    return h("details", { class: "more", open: text !== "" }, h("summary", {}, "System prompt"),
      h("label", { for: id, class: "hint" }, "For this conversation, before its first question"), field);
  }

  sampling() {
    const defaults = this.model?.sampling ?? {};
    const rows = SAMPLING.map(([field, name, label, step, low, high]) => {
      const otherwise = defaults[name] ?? (field === "seed" ? "random" : field === "maxTokens" ? "no limit" : "default");
      return this.figure(field, label, this.options[field], step, low, high, String(otherwise));
    });
    const open = SAMPLING.some(([field]) => this.options[field] !== null);
    return h("details", { class: "more", open }, h("summary", {}, "Sampling"), ...rows);
  }

  /**
   * @param {keyof AskOptions} field
   * @param {string} label
   * @param {any} value
   * @param {number} step
   * @param {number} low
   * @param {number} high
   * @param {string} otherwise
   * @param {string} [unit]
   */
  figure(field, label, value, step, low, high, otherwise, unit = "") {
    const id = freshId("figure");
    const input = h("input", { id, name: field, type: "number", min: low, max: high, step, value: value ?? "", placeholder: otherwise, inputmode: "decimal",
      oninput: () => input.validity.valid && this.set({ [field]: input.value === "" ? null : Number(input.value) }) });
    return h("label", { class: "row", for: id }, h("span", {}, unit ? `${label} (${unit})` : label), input);
  }

  /**
   * @param {string} name
   * @param {string} label
   * @param {string[][]} values value and text
   * @param {string} current
   * @param {(value: string) => void} choose
   */
  choices(name, label, values, current, choose) {
    const legend = name === "thinking" ? null : h("span", { class: "choices-label" }, label); // its group says the same
    return h("div", { class: "choices", role: "radiogroup", "aria-label": label }, ...(legend ? [legend] : []),
      h("div", { class: "segments" }, ...values.map(([value, text]) =>
        h("label", {}, h("input", { type: "radio", name, value, checked: value === current, onchange: () => choose(value) }), h("span", {}, text)))));
  }
}

/** @param {string} name */
const title = (name) => name[0].toUpperCase() + name.slice(1).replaceAll("-", " ");
