/**
 * A conversation with its branches. The active branch is a plain list of turns, which `dsr chat --resume` continues; the
 * other branches are kept in the `stats` of the turn where they part.
 */

import { splitFiles } from "./files.js";

/**
 * @typedef {{ role: string, content: string, thinking?: string, stats?: Record<string, any> | null }} StoredTurn
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
    /** @type {any[]} */
    const messages = [];
    for (let turn = last; turn.parent; turn = turn.parent) messages.unshift({ role: turn.role, content: turn.content });
    if (this.system) messages.unshift({ role: "system", content: this.system });
    return messages;
  }

  /** @returns {StoredTurn[]} */
  toTurns() {
    const path = this.path;
    const end = this.end;
    // An answer that has not begun is nothing to keep, and nothing to continue.
    if (end.role === "assistant" && !end.content && !end.thinking && end.siblings.length === 1) path.pop();
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
      const turn = end.add(new Turn(each.role, each.content, each.thinking ?? "", stats));
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

/** @param {Turn} turn @returns {StoredTurn} */
const storedTurn = ({ role, content, thinking, stats }) => ({ role, content, thinking, stats });

/** @param {Turn} turn @returns {StoredBranch} */
const storedBranch = (turn) => ({ ...storedTurn(turn), after: turn.after.map(storedBranch), active: turn.active });

/** @param {StoredBranch} stored @returns {Turn} */
function fromBranch(stored) {
  const turn = new Turn(stored.role, stored.content, stored.thinking ?? "", stored.stats ?? {});
  for (const after of stored.after ?? []) turn.add(fromBranch(after));
  turn.active = stored.active ?? 0;
  return turn;
}
