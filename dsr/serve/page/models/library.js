/** The models of this machine and of the catalogue, and what can be done with them. */

import { serverEvents } from "../server/sse.js";

export class Library extends EventTarget {
  /** @param {import("../server/server.js").Server} server */
  constructor(server) {
    super();
    this.server = server;
    /** @type {any[]} */
    this.models = [];
    /** @type {any} */
    this.memory = null;
    /** @type {any[]} */
    this.catalogue = [];
    /** @type {Map<string, { done: number, total: number, abort: AbortController }>} */
    this.pulls = new Map();
  }

  tell() {
    this.dispatchEvent(new Event("changed"));
  }

  async refresh() {
    const told = await this.server.json("GET", "/api/dsr/models");
    this.models = told.models;
    this.memory = told.memory ?? null;
    this.tell();
  }

  async refreshCatalogue() {
    this.catalogue = (await this.server.json("GET", "/api/dsr/catalog")).models;
    this.tell();
  }

  /** @param {string} name @returns {any} */
  find(name) {
    return this.models.find((model) => model.name === name) ?? null;
  }

  /** The model to begin with: loaded, or the default, or the first. @returns {any} */
  get preferred() {
    const ready = this.models.find((model) => model.state === "ready" || model.state === "answering");
    return ready ?? this.models.find((model) => model.default) ?? this.models.find((model) => model.fits !== false) ?? this.models[0] ?? null;
  }

  /** @param {any} model @param {"load" | "unload"} action */
  async change(model, action) {
    model.state = action === "load" ? "loading" : "unloading";
    this.tell();
    try {
      await this.server.json("POST", `/api/dsr/models/${action}`, { model: model.name });
    } finally {
      await this.refresh().catch(() => undefined);
    }
  }

  /** Downloads a model. Throws what the server says if it fails. @param {string} name */
  async pull(name) {
    const abort = new AbortController();
    const state = { done: 0, total: 0, abort };
    this.pulls.set(name, state);
    this.tell();
    try {
      const response = await this.server.send("POST", "/api/dsr/pull", { model: name }, { signal: abort.signal });
      for await (const { data } of serverEvents(/** @type {ReadableStream<Uint8Array>} */ (response.body))) {
        const event = JSON.parse(data);
        if (event.type === "progress" && event.unit === "bytes") {
          state.done = event.done;
          state.total = event.total;
          this.tell();
        } else if (event.type === "failed") {
          throw Object.assign(new Error(event.message), { hint: event.hint ?? "" });
        }
      }
    } catch (error) {
      if (!abort.signal.aborted) throw error;
    } finally {
      this.pulls.delete(name);
      await Promise.all([this.refresh(), this.refreshCatalogue()]).catch(() => undefined);
      this.tell();
    }
  }
}
