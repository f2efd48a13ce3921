/**
 * A conversation with its branches. The active branch is a plain list of turns, which `dsr chat --resume` continues; the
 * other branches are kept in the `stats` of the turn where they part.
 */

import { splitFiles } from "./files.js";

/**
 * @typedef {{ id: string, name: string, arguments: string }} Call
 * @typedef {{ role: string, content: string, thinking?: string, stats?: Record<string, any> | null, calls?: Call[], call_id?: string, name?: string }} StoredTurn
 * @typedef {StoredTurn & { after?: StoredBranch[], active?: number }} StoredBranch
 */

export class Turn {
  /**
   * @param {string} role
   * @param {string} content
   * @param {string} [thinking]
   * @param {Record<string, any>} [stats]
   */
  constructor(role, content, thinking = "", stats = {}) {
    this.role = role;
    this.content = content;
    this.thinking = thinking;
    this.stats = stats;
    /** @type {Call[]} of an answer: tools that `dsr chat --tools` ran */
    this.calls = [];
    this.callId = ""; // of a result: the call that it belongs to
    this.name = ""; // of a result: the tool
    /** @type {Turn | null} */
    this.parent = null;
    /** @type {Turn[]} */
    this.after = [];
    this.active = 0;
  }

  /** @param {Turn} turn @returns {Turn} the turn, which is active now */
  add(turn) {
    turn.parent = this;
    this.active = this.after.push(turn) - 1;
    return turn;
  }

  /** The turns that answer, or ask, the same. @returns {Turn[]} */
  get siblings() {
    return this.parent?.after ?? [this];
  }
}

export class Conversation {
  /** @param {string} [model] @param {string} [system] */
  constructor(model = "", system = "") {
    /** @type {number | null} its number in the store */
    this.id = null;
    this.title = "";
    this.model = model;
    this.system = system;
    this.root = new Turn("root", "");
  }

  /** The turns of the active branch. @returns {Turn[]} */
  get path() {
    const path = [];
    for (let turn = this.root.after[this.root.active]; turn; turn = turn.after[turn.active]) path.push(turn);
    return path;
  }

  /** @returns {Turn} where the next question goes */
  get end() {
    const path = this.path;
    return path.length ? path[path.length - 1] : this.root;
  }

  /** Switches to another branch. @param {Turn} turn @param {number} step */
  turnTo(turn, step) {
    const parent = /** @type {Turn} */ (turn.parent);
    parent.active = Math.min(Math.max(parent.active + step, 0), parent.after.length - 1);
  }

  /** The messages of a request that ends with `last`. @param {Turn} last @returns {any[]} */
  messagesUntil(last) {
    /** @type {Turn[]} */
    const turns = [];
    for (let turn = last; turn.parent; turn = turn.parent) turns.unshift(turn);
    const messages = answered(turns).map(messageOf);
    if (this.system) messages.unshift({ role: "system", content: this.system });
    return messages;
  }

  /** @returns {StoredTurn[]} */
  toTurns() {
    const path = this.path;
    const end = this.end;
    // An answer that has not begun is nothing to keep, and nothing to continue.
    if (end.role === "assistant" && !end.content && !end.thinking && !end.calls.length && end.siblings.length === 1) path.pop();
    return path.map((turn) => {
      const stored = storedTurn(turn);
      if (turn.siblings.length > 1) {
        const others = turn.siblings.filter((other) => other !== turn).map(storedBranch);
        stored.stats = { ...stored.stats, branches: { at: turn.siblings.indexOf(turn), others } };
      }
      return stored;
    });
  }

  /** @param {any} stored as the server keeps it @returns {Conversation} */
  static from(stored) {
    const conversation = new Conversation(stored.model ?? "", stored.system ?? "");
    conversation.id = stored.id ?? null;
    conversation.title = stored.title ?? "";
    let end = conversation.root;
    for (const each of stored.messages ?? []) {
      if (each.role === "system") continue;
      const { branches, ...stats } = each.stats ?? {};
      const turn = end.add(readTurn(each, stats));
      if (Array.isArray(branches?.others)) {
        const others = branches.others.map(fromBranch);
        for (const other of others) other.parent = end;
        const at = Math.min(Math.max(Number(branches.at) || 0, 0), others.length);
        end.after = [...others.slice(0, at), turn, ...others.slice(at)];
        end.active = at;
      }
      end = turn;
    }
    return conversation;
  }
}

/** The first question as a title. @param {string} content */
export function titleOf(content) {
  const { files, question } = splitFiles(content);
  return (question.trim() || files.map((file) => file.name).join(", ")).split(/\s+/).join(" ").slice(0, 200);
}

/** @param {Turn} turn @returns {any} */
function messageOf({ role, content, calls, callId, name }) {
  if (role === "tool") return { role, content, tool_call_id: callId, name };
  const tool_calls = calls.map((call) => ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } }));
  return tool_calls.length ? { role, content, tool_calls } : { role, content };
}

/**
 * Leaves out earlier questions whose calls no answer followed: chat templates refuse a question there.
 * As `finished` in dsr/chat/turns.py.
 * @param {Turn[]} turns
 * @returns {Turn[]}
 */
function answered(turns) {
  /** @type {Turn[][]} each question with all that followed it */
  const exchanges = [];
  for (const turn of turns) {
    if (turn.role === "user" || !exchanges.length) exchanges.push([]);
    exchanges[exchanges.length - 1].push(turn);
  }
  return exchanges.filter((exchange, at) => {
    const end = exchange[exchange.length - 1];
    return at === exchanges.length - 1 || !exchange.some((turn) => turn.calls.length) || (end.role === "assistant" && end.content.trim());
  }).flat();
}

/** @param {Turn} turn @returns {StoredTurn} */
function storedTurn({ role, content, thinking, stats, calls, callId, name }) {
  const tools = role === "tool" ? { call_id: callId, name } : calls.length ? { calls } : {};
  return { role, content, thinking, stats, ...tools };
}

/** @param {StoredTurn} stored @param {Record<string, any>} stats @returns {Turn} */
function readTurn(stored, stats) {
  const turn = new Turn(stored.role, stored.content, stored.thinking ?? "", stats);
  turn.calls = stored.calls ?? [];
  turn.callId = stored.call_id ?? "";
  turn.name = stored.name ?? "";
  return turn;
}

/** @param {Turn} turn @returns {StoredBranch} */
const storedBranch = (turn) => ({ ...storedTurn(turn), after: turn.after.map(storedBranch), active: turn.active });

/** @param {StoredBranch} stored @returns {Turn} */
function fromBranch(stored) {
  const turn = readTurn(stored, stored.stats ?? {});
  for (const after of stored.after ?? []) turn.add(fromBranch(after));
  turn.active = stored.active ?? 0;
  return turn;
}
