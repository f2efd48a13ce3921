/** The page of models: memory, what is here, what could be. */

import { askForText, confirm, openDialog } from "../ui/dialog.js";
import { append, h, setText } from "../ui/dom.js";
import { bytes, parameters, speed } from "../ui/format.js";

/** @typedef {import("./library.js").Library} Library */
/** @typedef {import("./library.js").Model} Model */

const STATES = { ready: "Loaded", answering: "Answering", loading: "Loading", unloading: "Unloading", waiting: "Waiting for memory", idle: "" };

export class ModelsView {
  /** @param {Library} library @param {{ use: (reference: string) => void }} actions */
  constructor(library, actions) {
    this.library = library;
    this.actions = actions;
    this.memory = h("div", { class: "memory" });
    this.here = h("ul", { class: "models", "aria-label": "Models on this machine" });
    this.more = h("ul", { class: "models", "aria-label": "Models to download" });
    this.looking = h("p", { class: "hint", role: "status" });
    const other = h("button", { type: "button", onclick: () => this.pullOther() }, "Download another model");
    this.element = h("div", { class: "models-page", hidden: true },
      h("h1", { tabindex: "-1" }, "Models"), this.memory,
      h("h2", {}, "On this machine"), this.here,
      h("div", { class: "models-head" }, h("h2", {}, "To download"), other), this.looking, this.more);
    library.addEventListener("changed", () => this.draw());
  }

  draw() {
    if (this.element.hidden) return;
    const focused = document.activeElement?.getAttribute("data-key");
    this.drawMemory();
    this.here.replaceChildren(...this.library.models.map((model) => this.installed(model)));
    if (!this.library.models.length) this.here.append(h("li", { class: "none" }, "No model is here yet. Download one below."));
    this.drawCatalogue();
    if (focused) /** @type {HTMLElement | null} */ (this.element.querySelector(`[data-key="${CSS.escape(focused)}"]`))?.focus();
  }

  drawMemory() {
    const { memory, models } = this.library;
    if (!memory) return;
    if (!this.memory.firstChild)
      this.memory.append(h("div", { class: "memory-bar", role: "img" }, h("span", { class: "used" }), h("span", { class: "others" })), h("p", { class: "facts" }));
    const bar = /** @type {HTMLElement} */ (this.memory.firstChild);
    const [used, others] = /** @type {HTMLElement[]} */ ([...bar.children]);
    const taken = memory.total - memory.available;
    const open = Math.min(taken, models.reduce((sum, model) => sum + model.memory, 0));
    used.style.width = `${(100 * open) / memory.total}%`;
    others.style.width = `${(100 * (taken - open)) / memory.total}%`;
    const mine = open ? `Models take ${bytes(open)}, everything else ${bytes(taken - open)}.` : `Programs take ${bytes(taken)}.`;
    const text = `${mine} ${bytes(memory.available)} of ${bytes(memory.total)} are free.`;
    bar.setAttribute("aria-label", text);
    setText(/** @type {HTMLElement} */ (this.memory.lastChild), text);
  }

  drawCatalogue() {
    const { catalogue, pulls } = this.library;
    const open = catalogue?.filter((each) => !this.library.plans.has(each.name)) ?? [];
    const known = new Set(open.map((each) => each.name));
    const others = [...pulls.keys()].filter((name) => !known.has(name)).map((name) => ({ name }));
    setText(this.looking, catalogue === null ? "dsr looks at what this machine can run." : open.length ? "These fit this machine. dsr asks before it downloads." : "No other model of the catalogue fits this machine.");
    const rows = [...others, ...open];
    this.more.hidden = !rows.length;
    this.more.replaceChildren(...rows.map((each) => this.available(each)));
  }

  /** @param {Model} model */
  installed(model) {
    const open = model.state === "ready" || model.state === "answering";
    const moving = model.state === "loading" || model.state === "unloading" || model.state === "waiting";
    const label = moving ? (model.state === "unloading" ? "Unloading" : "Loading") : open ? "Unload" : "Load";
    const off = moving || model.state === "answering" || Boolean(model.problem);
    const change = h("button", { type: "button", class: "quiet", "data-key": `load-${model.reference}`, "aria-label": `${label} ${model.name} ${model.quant}`,
      "aria-disabled": off ? "true" : undefined, onclick: () => { if (!off) told(() => this.library.change(model, open ? "unload" : "load")); } }, label);
    const use = h("button", { type: "button", "data-key": `use-${model.reference}`, "aria-label": `Chat with ${model.name} ${model.quant}`,
      onclick: () => this.actions.use(model.reference) }, "Chat");
    const plan = this.library.plans.get(model.name);
    const facts = [
      plan?.parameters ? parameters(plan.parameters) : "", model.quant, bytes(model.size),
      model.memory ? `${bytes(model.memory)} of memory` : plan ? `needs ${bytes(plan.memory_bytes)} of memory` : "",
      plan ? `about ${speed(plan.tokens_per_second)}` : "",
    ];
    const share = model.state === "loading" && model.share !== null ? ` ${Math.round(100 * model.share)} %` : "";
    const state = STATES[model.state] + share;
    return row(model.name, model.problem ?? plan?.what ?? "", facts, [
      state ? h("span", { class: `tag ${model.state}` }, state) : null, model.thinks ? h("span", { class: "tag" }, "Thinks") : null,
    ], [change, use]);
  }

  /** @param {any} each of the catalogue; one that somebody named has a name alone */
  available(each) {
    const pull = this.library.pulls.get(each.name);
    const facts = each.parameters
      ? [parameters(each.parameters), each.quant, `needs ${bytes(each.memory_bytes)} of memory`, `about ${speed(each.tokens_per_second)}`] : [];
    if (!pull) {
      const get = h("button", { type: "button", "data-key": `pull-${each.name}`, "aria-label": `Download ${each.name}`, onclick: () => this.pull(each.name) }, "Download");
      return row(each.name, each.what, facts, [], [get]);
    }
    const stop = h("button", { type: "button", "data-key": `pull-${each.name}`, "aria-label": `Stop the download of ${each.name}`, onclick: () => pull.abort.abort() }, "Stop");
    const bar = h("progress", { max: "1", value: pull.total ? pull.done / pull.total : 0, "aria-label": `Download of ${each.name}` });
    const text = pull.total ? `${bytes(pull.done)} of ${bytes(pull.total)}` : "Beginning";
    return row(each.name, each.what ?? "", facts, [], [stop], h("div", { class: "pull" }, bar, h("span", { class: "facts" }, text)));
  }

  async pullOther() {
    const name = await askForText("Download another model", "Name", { action: "Continue",
      note: "A name of the catalogue such as qwen3:8b, or a repository of the hub such as org/repo." });
    if (name) await this.pull(name);
  }

  /** @param {string} name */
  async pull(name) {
    const plan = await told(() => this.library.pullPlan(name));
    if (!plan) return;
    const left = plan.to_fetch ?? plan.size;
    const text = `dsr downloads ${bytes(left)} from the hub (${[plan.repo, plan.quant].filter(Boolean).join(", ")}). ${bytes(plan.free)} of the disk are free.`;
    if (await confirm(`Download ${name}?`, text, "Download")) await told(() => this.library.pull(name));
  }
}

/** @template T @param {() => Promise<T>} action @returns {Promise<T | null>} */
async function told(action) {
  try {
    return await action();
  } catch (error) {
    const { message, hint } = /** @type {any} */ (error);
    openDialog("That did not work", {}, h("p", {}, message), hint ? h("p", { class: "hint" }, hint) : null);
    return null;
  }
}

/**
 * @param {string} name
 * @param {string} what
 * @param {string[]} facts
 * @param {import("../ui/dom.js").Child[]} tags
 * @param {HTMLElement[]} buttons
 * @param {HTMLElement} [below]
 */
function row(name, what, facts, tags, buttons, below) {
  const title = h("div", { class: "model-title" }, h("h3", {}, name));
  append(title, ...tags);
  const shown = facts.filter(Boolean).join(" · ");
  const text = h("div", { class: "model-text" }, title, what ? h("p", {}, what) : null, shown ? h("p", { class: "facts" }, shown) : null);
  const element = h("li", { class: "model" });
  append(element, text, h("div", { class: "model-buttons" }, ...buttons), below);
  return element;
}
