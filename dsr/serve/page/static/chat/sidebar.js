/** The list of conversations: find, open, rename, delete, export, import. */

import { ServerError } from "../server/server.js";
import { askForText, confirm, openDialog } from "../ui/dialog.js";
import { freshId, h, setText } from "../ui/dom.js";
import { dayGroup } from "../ui/format.js";
import { icon } from "../ui/icons.js";
import { menuButton } from "../ui/menu.js";

const TYPING_PAUSE = 200; // ms

export class Sidebar {
  /**
   * @param {import("./store.js").ConversationStore} store
   * @param {{ deleted: (id: number) => void, renamed: (id: number, title: string) => void, opened: () => void }} actions
   */
  constructor(store, actions) {
    this.store = store;
    this.actions = actions;
    /** @type {number | null} */
    this.current = null;
    this.groups = h("div", { class: "conversations" });
    this.state = h("p", { class: "hint", role: "status" });
    const id = freshId("search");
    this.search = h("input", { id, type: "search", placeholder: "Search conversations", autocomplete: "off", oninput: () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.refresh(), TYPING_PAUSE);
    } });
    this.picker = h("input", { type: "file", accept: ".json,application/json", class: "offscreen", tabindex: "-1", "aria-hidden": "true",
      onchange: () => this.importFile() });
    this.element = h("nav", { class: "history", "aria-label": "Conversations" },
      h("div", { class: "search" }, h("label", { for: id, class: "offscreen" }, "Search conversations"), icon("search"), this.search),
      this.groups, this.state, this.picker);
  }

  async refresh() {
    this.abort?.abort();
    this.abort = new AbortController();
    const wanted = this.search.value.trim();
    try {
      this.show(await this.store.list(wanted, this.abort.signal), wanted);
    } catch (error) {
      if (error instanceof ServerError) setText(this.state, error.message);
    }
  }

  /** @param {any[]} list @param {string} wanted */
  show(list, wanted) {
    setText(this.state, list.length ? "" : wanted ? "No conversation has this text." : "Conversations will be listed here.");
    /** @type {Map<string, HTMLElement>} */
    const groups = new Map();
    const focused = document.activeElement?.closest(".conversation")?.getAttribute("data-id");
    for (const each of list) {
      const name = dayGroup(new Date(each.updated ?? each.started));
      let group = groups.get(name);
      if (!group) {
        group = h("ul", { "aria-label": name });
        groups.set(name, group);
      }
      group.append(this.entry(each));
    }
    this.groups.replaceChildren(...[...groups].flatMap(([name, group]) => [h("h2", {}, name), group]));
    if (focused) /** @type {HTMLElement | null} */ (this.groups.querySelector(`[data-id="${focused}"] a`))?.focus();
    this.mark(this.current);
  }

  /** @param {any} each */
  entry(each) {
    const title = each.title || "Untitled";
    const more = h("button", { type: "button", class: "icon-button small", "aria-label": `Actions: ${title}`, title: "Actions" }, icon("more"));
    menuButton(more, `Actions: ${title}`, () => this.itemsFor(each));
    return h("li", { class: "conversation", "data-id": each.id },
      h("a", { href: `#/c/${each.id}`, title, onclick: () => this.actions.opened() }, title), more);
  }

  /** @param {any} each @returns {import("../ui/menu.js").Item[]} */
  itemsFor(each) {
    return [
      { text: "Rename", icon: "edit", action: () => this.rename(each) },
      { text: "Export as Markdown", icon: "download", action: () => this.export(each, "markdown") },
      { text: "Export as JSON", icon: "download", action: () => this.export(each, "json") },
      { text: "Delete", icon: "trash", danger: true, action: () => this.remove(each) },
    ];
  }

  /** @param {any} each */
  async rename(each) {
    const title = await askForText("Rename the conversation", "Title", { value: each.title });
    if (title === null) return;
    await this.trying(() => this.store.rename(each.id, title));
    this.actions.renamed(each.id, title);
    await this.refresh();
  }

  /** @param {any} each */
  async remove(each) {
    if (!(await confirm("Delete the conversation?", `"${each.title || "Untitled"}" is deleted from this machine, with its cache.`, "Delete", true))) return;
    await this.trying(() => this.store.remove(each.id));
    this.actions.deleted(each.id);
    await this.refresh();
    this.search.focus();
  }

  /** @param {any} each @param {"json" | "markdown"} format */
  async export(each, format) {
    const blob = await this.trying(() => this.store.exported(each.id, format));
    if (!blob) return;
    const name = (each.title || "conversation").replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 60) || "conversation";
    const link = h("a", { href: URL.createObjectURL(blob), download: `${name}.${format === "json" ? "json" : "md"}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  async importFile() {
    const file = this.picker.files?.[0];
    this.picker.value = "";
    if (!file) return;
    const id = await this.trying(async () => {
      let body;
      try {
        body = JSON.parse(await file.text());
      } catch {
        throw new ServerError(0, `${file.name} is not JSON.`, "Choose a file that \"Export as JSON\" made.");
      }
      return this.store.import(body);
    });
    if (typeof id === "number") location.hash = `#/c/${id}`;
    await this.refresh();
  }

  /** @template T @param {() => Promise<T>} action @returns {Promise<T | null>} */
  async trying(action) {
    try {
      return await action();
    } catch (error) {
      const { message, hint } = /** @type {ServerError} */ (error);
      openDialog("That did not work", {}, h("p", {}, message), hint ? h("p", { class: "hint" }, hint) : null);
      return null;
    }
  }

  /** @param {number | null} id */
  mark(id) {
    this.current = id;
    for (const entry of this.groups.querySelectorAll(".conversation")) {
      const link = /** @type {Element} */ (entry.firstElementChild);
      if (entry.getAttribute("data-id") === String(id)) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }
}
