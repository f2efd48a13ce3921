/** The page of models: memory, what is here, what could be. */

import { confirm, openDialog } from "../ui/dialog.js";
import { append, h, setText } from "../ui/dom.js";
import { bytes, parameters, speed } from "../ui/format.js";

/** @typedef {import("./library.js").Library} Library */

export class ModelsView {
  /** @param {Library} library @param {{ use: (name: string) => void }} actions */
  constructor(library, actions) {
    this.library = library;
    this.actions = actions;
    this.memory = h("div", { class: "memory" });
    this.here = h("ul", { class: "models", "aria-label": "Models on this machine" });
    this.more = h("ul", { class: "models", "aria-label": "Models to download" });
    this.element = h("div", { class: "models-page", hidden: true },
      h("h1", { tabindex: "-1" }, "Models"), this.memory,
      h("h2", {}, "On this machine"), this.here,
      h("h2", {}, "To download"), h("p", { class: "hint" }, "dsr lists the models that fit this machine first. Nothing is downloaded before you agree."), this.more);
    library.addEventListener("changed", () => this.draw());
  }

  draw() {
    if (this.element.hidden) return;
    const focused = document.activeElement?.getAttribute("data-key");
    this.drawMemory();
    this.here.replaceChildren(...this.library.models.map((model) => this.installed(model)));
    if (!this.library.models.length) this.here.append(h("li", { class: "none" }, "No model is here yet. Download one below."));
    const open = this.library.catalogue.filter((model) => !model.installed);
    open.sort((a, b) => Number(b.fits) - Number(a.fits) || 0);
    this.more.replaceChildren(...open.map((model) => this.available(model)));
    if (focused) /** @type {HTMLElement | null} */ (this.element.querySelector(`[data-key="${CSS.escape(focused)}"]`))?.focus();
  }

  drawMemory() {
    const { memory } = this.library;
    if (!memory) return;
    if (!this.memory.firstChild)
      this.memory.append(h("div", { class: "memory-bar", role: "img" }, h("span", { class: "used" }), h("span", { class: "others" })), h("p", { class: "facts" }));
    const bar = /** @type {HTMLElement} */ (this.memory.firstChild);
    const [used, others] = /** @type {HTMLElement[]} */ ([...bar.children]);
    const rest = Math.max(0, memory.total - memory.available - memory.models);
    used.style.width = `${(100 * memory.models) / memory.total}%`;
    others.style.width = `${(100 * rest) / memory.total}%`;
    const text = `Models use ${bytes(memory.models)}, other programs ${bytes(rest)}. ${bytes(memory.available)} of ${bytes(memory.total)} are free.`;
    bar.setAttribute("aria-label", text);
    setText(/** @type {HTMLElement} */ (this.memory.lastChild), text);
  }

  /** @param {any} model */
  installed(model) {
    const loaded = model.state === "ready" || model.state === "answering";
    const moving = model.state === "loading" || model.state === "unloading";
    const label = moving ? (model.state === "loading" ? "Loading" : "Unloading") : loaded ? "Unload" : "Load";
    const change = h("button", { type: "button", "data-key": `load-${model.name}`, "aria-label": `${label} ${model.name}`,
      "aria-disabled": moving || model.state === "answering" ? "true" : undefined,
      onclick: () => { if (!moving && model.state !== "answering") this.change(model, loaded ? "unload" : "load"); } }, label);
    const use = h("button", { type: "button", class: "primary", "data-key": `use-${model.name}`, "aria-label": `Chat with ${model.name}`,
      onclick: () => this.actions.use(model.name) }, "Chat");
    const states = { ready: "Loaded", answering: "Answering", loading: "Loading", unloading: "Unloading" };
    const state = states[/** @type {keyof typeof states} */ (model.state)] ?? "";
    return row(model, state, [change, use]);
  }

  /** @param {any} model */
  available(model) {
    const pull = this.library.pulls.get(model.name);
    if (!pull) {
      const get = h("button", { type: "button", "data-key": `pull-${model.name}`, "aria-label": `Download ${model.name}`, onclick: () => this.pull(model) }, "Download");
      return row(model, "", [get]);
    }
    const share = pull.total ? pull.done / pull.total : 0;
    const stop = h("button", { type: "button", "data-key": `pull-${model.name}`, "aria-label": `Stop the download of ${model.name}`, onclick: () => pull.abort.abort() }, "Stop");
    const bar = h("progress", { max: "1", value: share, "aria-label": `Download of ${model.name}` });
    const text = pull.total ? `${bytes(pull.done)} of ${bytes(pull.total)}` : "Beginning";
    return row(model, "", [stop], h("div", { class: "pull" }, bar, h("span", { class: "facts" }, text)));
  }

  /** @param {any} model @param {"load" | "unload"} action */
  async change(model, action) {
    await told(() => this.library.change(model, action));
  }

  /** @param {any} model */
  async pull(model) {
    const room = model.fits === false ? " It does not fit into the memory of this machine." : "";
    const text = `dsr downloads ${bytes(model.size)} from the hub to this machine.${room}`;
    if (await confirm(`Download ${model.name}?`, text, "Download")) await told(() => this.library.pull(model.name));
  }
}

/** @param {() => Promise<void>} action */
async function told(action) {
  try {
    await action();
  } catch (error) {
    const { message, hint } = /** @type {any} */ (error);
    openDialog("That did not work", {}, h("p", {}, message), hint ? h("p", { class: "hint" }, hint) : null);
  }
}

/** @param {any} model @param {string} state @param {HTMLElement[]} buttons @param {HTMLElement} [below] */
function row(model, state, buttons, below) {
  const facts = [
    model.parameters ? parameters(model.parameters) : "", model.quant, model.size ? bytes(model.size) : "",
    model.fits === false ? "does not fit" : model.tokens_per_second ? `about ${speed(model.tokens_per_second)}` : "",
  ];
  const tags = [state ? h("span", { class: `tag ${model.state ?? ""}` }, state) : null, model.thinks ? h("span", { class: "tag" }, "Thinks") : null];
  const element = h("li", { class: model.fits === false ? "model unfit" : "model" });
  const title = h("div", { class: "model-title" }, h("h3", {}, model.name));
  append(title, ...tags);
  const text = h("div", { class: "model-text" }, title, model.what ? h("p", {}, model.what) : null, h("p", { class: "facts" }, facts.filter(Boolean).join(" · ")));
  append(element, text, h("div", { class: "model-buttons" }, ...buttons), below);
  return element;
}
