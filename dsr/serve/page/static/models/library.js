/** The models of this machine, what else it can run, and what can be done with them. */

import { serverEvents } from "../server/sse.js";

/**
 * @typedef {object} Model
 * @property {string} reference the name for requests
 * @property {string} name
 * @property {string} quant
 * @property {number} size bytes of its files
 * @property {boolean} thinks
 * @property {boolean} canSwitch whether thinking can be switched off
 * @property {string[]} efforts
 * @property {"idle" | "waiting" | "loading" | "ready" | "answering" | "unloading"} state
 * @property {number} memory bytes it takes while it is open
 * @property {number | null} share of its loading that is done
 * @property {string | null} problem
 */

export class Library extends EventTarget {
  /** @param {import("../server/server.js").Server} server */
  constructor(server) {
    super();
    this.server = server;
    /** @type {Model[]} */
    this.models = [];
    /** @type {{ total: number, available: number } | null} */
    this.memory = null;
    this.default = "";
    /** @type {any[] | null} what fits and is not here; null until it was asked for */
    this.catalogue = null;
    /** @type {Map<string, any>} what `dsr plan` says of the models that are here, by name */
    this.plans = new Map();
    /** @type {Map<string, { done: number, total: number, abort: AbortController }>} */
    this.pulls = new Map();
  }

  tell() {
    this.dispatchEvent(new Event("changed"));
  }

  async refresh() {
    const told = await this.server.json("GET", "/api/dsr/models");
    this.models = told.models.map(asModel);
    this.memory = told.memory ?? null;
    this.default = told.default ?? "";
    this.tell();
  }

  /** Asks what this machine can run: the server looks at the hardware, which takes a moment. */
  async refreshPlans() {
    const told = await this.server.json("GET", "/api/dsr/plan");
    this.plans = new Map(told.here.map((/** @type {any} */ each) => [each.name, each]));
    this.catalogue = told.catalogue;
    this.tell();
  }

  /** @param {string} reference @returns {Model | null} */
  find(reference) {
    return this.models.find((model) => model.reference === reference) ?? null;
  }

  /** Whether a model is coming or going. */
  get moving() {
    return this.models.some((model) => ["waiting", "loading", "unloading"].includes(model.state));
  }

  /** The model to begin with: one that is open, or the server's default, or the first. @returns {Model | null} */
  get preferred() {
    const open = this.models.find((model) => model.state === "ready" || model.state === "answering");
    return open ?? this.find(this.default) ?? this.models.find((model) => !model.problem) ?? this.models[0] ?? null;
  }

  /** @param {Model} model @param {"load" | "unload"} action */
  async change(model, action) {
    model.state = action === "load" ? "loading" : "unloading";
    this.tell();
    try {
      await this.server.json("POST", `/api/dsr/models/${action}`, { model: model.reference });
    } finally {
      await this.refresh().catch(() => undefined);
    }
  }

  /** What a download would bring: `size`, `to_fetch`, `free` in bytes, `quant`. @param {string} name @returns {Promise<any>} */
  pullPlan(name) {
    return this.server.json("GET", `/api/dsr/pull?model=${encodeURIComponent(name)}`);
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
      await Promise.all([this.refresh(), this.refreshPlans()]).catch(() => undefined);
      this.tell();
    }
  }
}

/** @param {any} row of `/api/dsr/models` @returns {Model} */
function asModel(row) {
  /** @type {Record<string, Model["state"]>} */
  const states = { closed: "idle", waiting: "waiting", loading: "loading", open: "ready", leaving: "unloading" };
  const { progress } = row;
  return {
    reference: row.reference, name: row.name, quant: row.quant, size: row.size, thinks: row.thinks,
    canSwitch: Boolean(row.thinking?.switch), efforts: row.thinking?.efforts ?? [],
    state: row.answering ? (row.state === "open" ? "answering" : states[row.state]) : (states[row.state] ?? "idle"),
    memory: row.memory ?? 0, share: progress?.total ? progress.done / progress.total : null, problem: row.problem ?? null,
  };
}
