/** Conversations in the store of this machine, the same as that of `dsr chat`. */

const PATH = "/api/dsr/conversations";

export class ConversationStore {
  /** @param {import("../server/server.js").Server} server */
  constructor(server) {
    this.server = server;
  }

  /** @param {string} [search] @param {AbortSignal} [signal] @returns {Promise<any[]>} */
  async list(search = "", signal) {
    const query = search ? `?search=${encodeURIComponent(search)}` : "";
    return (await this.server.json("GET", PATH + query, undefined, { signal })).conversations;
  }

  /** @param {number} id @returns {Promise<any>} */
  get(id) {
    return this.server.json("GET", `${PATH}/${id}`);
  }

  /**
   * Writes the conversation; a new one gets its number.
   * @param {import("./conversation.js").Conversation} conversation
   */
  async save(conversation) {
    const { id, title, model, system } = conversation;
    const messages = conversation.toTurns();
    if (id === null) conversation.id = (await this.server.json("POST", PATH, { title, model, system, messages })).id;
    else await this.server.json("PUT", `${PATH}/${id}`, { model, system, messages });
  }

  /** @param {number} id @param {string} title */
  rename(id, title) {
    return this.server.json("PATCH", `${PATH}/${id}`, { title });
  }

  /** @param {number} id */
  remove(id) {
    return this.server.json("DELETE", `${PATH}/${id}`);
  }

  /** @param {any} body as `exported` gave it @returns {Promise<number>} */
  async import(body) {
    return (await this.server.json("POST", PATH, body)).id;
  }

  /** @param {number} id @param {"json" | "markdown"} format @returns {Promise<Blob>} */
  async exported(id, format) {
    return (await this.server.send("GET", `${PATH}/${id}/export?format=${format}`)).blob();
  }
}
