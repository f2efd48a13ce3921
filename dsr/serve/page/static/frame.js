/** The frame of the page: sidebar, header, and the conversation or the models in it. */

import { h, setText } from "./ui/dom.js";
import { bytes } from "./ui/format.js";
import { icon } from "./ui/icons.js";
import { menuButton } from "./ui/menu.js";
import { prefer, preference, showTheme } from "./ui/preferences.js";
import { StickyScroll } from "./ui/sticky_scroll.js";

const EXAMPLES = [
  "What is 347 + 586?",
  "How many primes are there below 60?",
  "Explain why the harmonic series diverges.",
];
// The model that comes with dsr is small: it solves these, and explains nothing.
const EXAMPLES_OF_NANO = [
  "What is 347 + 586?",
  "What comes next: 5, 10, 20, 40, ?",
  "Mia is taller than Ann. Ann is taller than Eve. Who is the shortest?",
];
const BACK_SHOWN = 4000; // ms

/** @typedef {import("./ui/preferences.js").Theme} Theme */

export class Frame {
  /** @param {any} parts */
  constructor(parts) {
    this.parts = parts;
    this.greeted = ""; // what the greeting says
    this.status = h("p", { class: "connection", role: "status" });
    this.model = h("button", { type: "button", class: "model-button" });
    menuButton(this.model, "Model", () => this.modelItems());
    this.menu = h("button", { type: "button", class: "icon-button menu-toggle", "aria-label": "Conversations", "aria-expanded": "false",
      onclick: () => (this.element.classList.contains("with-sidebar") ? this.closeSidebar() : this.openSidebar()) }, icon("sidebar"));
    this.empty = h("div", { class: "empty" });
    this.end = h("button", { type: "button", class: "to-end", "aria-label": "Go to the end", hidden: true }, icon("down"));
    this.problem = h("p", { class: "page-problem", role: "alert" });
    const column = h("div", { class: "column" }, this.empty, parts.thread.element);
    this.view = h("div", { class: "view", tabindex: "-1" }, column);
    this.chat = h("div", { class: "chat" }, this.view, h("div", { class: "dock" }, this.end, parts.composer.element,
      h("p", { class: "note" }, "Models make mistakes. Check what matters.")));
    this.main = h("main", {}, h("header", { class: "top" }, this.menu, this.model, this.status), this.problem, this.chat, parts.models.element);
    this.scroll = new StickyScroll(this.view, column, this.end);
    this.side = h("div", { class: "sidebar" },
      h("div", { class: "brand" }, h("a", { href: "#/", class: "wordmark", "aria-label": "dsr, new conversation" }, "dsr"),
        h("button", { type: "button", class: "icon-button close-sidebar", "aria-label": "Close conversations", onclick: () => this.closeSidebar() }, icon("close"))),
      h("a", { href: "#/", class: "side-link", onclick: () => this.closeSidebar() }, icon("add"), "New conversation"),
      h("a", { href: "#/models", class: "side-link", onclick: () => this.closeSidebar() }, icon("models"), "Models"),
      parts.sidebar.element, this.footer());
    this.scrim = h("div", { class: "scrim", onclick: () => this.closeSidebar() });
    this.element = h("div", { class: "frame" }, this.side, this.scrim, this.main);
    this.drop();
    const narrow = matchMedia("(width < 860px)");
    const settle = () => (this.side.inert = narrow.matches && !this.element.classList.contains("with-sidebar"));
    this.settle = settle;
    narrow.addEventListener("change", settle);
    settle();
  }

  footer() {
    const theme = h("button", { type: "button", class: "icon-button", "aria-label": "Colours", title: "Colours" }, icon("theme"));
    const current = () => preference("theme", "system");
    menuButton(theme, "Colours", () => /** @type {[Theme, string][]} */ ([["system", "As the system"], ["light", "Light"], ["dark", "Dark"]]).map(
      ([value, text]) => ({ text, checked: current() === value, action: () => { prefer("theme", value); showTheme(value); } })));
    const keys = h("button", { type: "button", class: "icon-button", "aria-label": "Keyboard shortcuts", title: "Keyboard shortcuts (?)",
      onclick: () => this.parts.shortcuts().explain() }, icon("keyboard"));
    const importing = h("button", { type: "button", class: "icon-button", "aria-label": "Import a conversation", title: "Import a conversation",
      onclick: () => this.parts.sidebar.picker.click() }, icon("download"));
    return h("div", { class: "side-footer" }, theme, keys, importing);
  }

  openSidebar() {
    this.element.classList.add("with-sidebar");
    this.menu.setAttribute("aria-expanded", "true");
    this.settle();
    if (getComputedStyle(this.scrim).display !== "none") /** @type {HTMLElement} */ (this.side.querySelector(".close-sidebar")).focus();
  }

  closeSidebar() {
    const inside = this.side.contains(document.activeElement) && getComputedStyle(this.menu).display !== "none";
    this.element.classList.remove("with-sidebar");
    this.menu.setAttribute("aria-expanded", "false");
    if (inside) this.menu.focus();
    this.settle();
  }

  /** @param {"chat" | "models"} page */
  showPage(page) {
    this.chat.hidden = page !== "chat";
    this.parts.models.element.hidden = page !== "models";
    this.complain("");
    for (const link of this.side.querySelectorAll(".side-link")) {
      if (link.getAttribute("href") === "#/models" && page === "models") link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (page === "models") this.parts.models.element.querySelector("h1")?.focus();
  }

  /** @param {any} model */
  showModel(model) {
    const loaded = model && (model.state === "ready" || model.state === "answering");
    this.model.replaceChildren(
      h("span", { class: `dot ${loaded ? "on" : model?.state === "loading" ? "moving" : ""}`, "aria-hidden": "true" }),
      h("span", { class: "model-name" }, model?.name ?? "No model"), icon("chevron"));
    this.model.setAttribute("aria-label", model ? `Model: ${model.name}, ${loaded ? "loaded" : "not loaded"}` : "Model: none");
    this.showGreeting(model);
  }

  /** @param {any} model */
  showGreeting(model) {
    const key = JSON.stringify([model?.name, model?.state === "idle"]);
    if (this.greeted === key) return;
    this.greeted = key;
    if (!model) {
      this.empty.replaceChildren(h("h1", {}, "No model is here yet"), h("p", {}, "Download one to begin."),
        h("a", { class: "button primary", href: "#/models" }, "Choose a model"));
      return;
    }
    const state = model.state === "idle" ? "The first question loads the model." : "The model runs on this machine. Nothing you write leaves it.";
    const examples = model.reference === "nano" ? EXAMPLES_OF_NANO : EXAMPLES;
    this.empty.replaceChildren(h("h1", {}, `Ask ${model.name}`), h("p", {}, state),
      h("ul", { class: "examples" }, ...examples.map((text) => h("li", {}, h("button", { type: "button", onclick: () => this.parts.fill(text) }, text)))));
  }

  /** @param {boolean} empty */
  showEmpty(empty) {
    this.empty.hidden = !empty;
    this.element.classList.toggle("is-empty", empty);
  }

  /** @param {"away" | "back"} state */
  showConnection(state) {
    clearTimeout(this.timer);
    this.status.dataset.state = state;
    setText(this.status, state === "away" ? "Server away, trying again" : "Connected again");
    if (state === "back") this.timer = setTimeout(() => { setText(this.status, ""); delete this.status.dataset.state; }, BACK_SHOWN);
  }

  /** @param {string} text */
  complain(text) {
    setText(this.problem, text);
  }

  /** @returns {import("./ui/menu.js").Item[]} */
  modelItems() {
    const states = { ready: "loaded", answering: "loaded", loading: "loading" };
    const items = this.parts.library.models.map((/** @type {any} */ model) => ({
      text: model.name,
      detail: [model.quant, bytes(model.size), states[/** @type {keyof typeof states} */ (model.state)]].filter(Boolean).join(" · "),
      checked: model.reference === this.parts.model(),
      action: () => this.parts.choose(model.reference),
    }));
    return [...items, { text: "All models", icon: "models", action: () => (location.hash = "#/models") }];
  }

  /** Files may be dropped anywhere. */
  drop() {
    const over = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files");
    let depth = 0;
    const show = () => this.element.classList.toggle("dropping", depth > 0);
    addEventListener("dragenter", (event) => { if (over(event)) { depth += 1; show(); } });
    addEventListener("dragleave", (event) => { if (over(event)) { depth = Math.max(0, depth - 1); show(); } });
    addEventListener("dragover", (event) => over(event) && event.preventDefault());
    addEventListener("drop", (event) => {
      if (!over(event)) return;
      event.preventDefault();
      depth = 0;
      show();
      this.parts.composer.add([...(event.dataTransfer?.files ?? [])]);
    });
  }
}
