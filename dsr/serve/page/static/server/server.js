/** Requests to the server that sent this page. */

const KEY = "dsr.key";

/** The server refused: `message` says why, `hint` the next step. */
export class ServerError extends Error {
  /**
   * @param {number} status
   * @param {string} message
   * @param {string} [hint]
   */
  constructor(status, message, hint = "") {
    super(message);
    this.status = status;
    this.hint = hint;
  }
}

/** The server cannot be reached, or went away in the middle of an answer. */
export class ConnectionLost extends Error {
  constructor() {
    super("The connection to the server is lost.");
  }
}

export class Server {
  /**
   * `askForKey` asks a person for the API key; it resolves to null if that person gives none.
   * @param {(again: boolean) => Promise<string | null>} askForKey
   */
  constructor(askForKey) {
    this.askForKey = askForKey;
    /** @type {Promise<string | null> | null} */
    this.asking = null;
    /** Called when a request cannot reach the server. */
    this.onlost = () => {};
  }

  /**
   * Sends a request and returns its answer if the status is good. Throws ServerError, ConnectionLost or AbortError.
   * @param {string} method
   * @param {string} path
   * @param {unknown} [body] JSON
   * @param {{ signal?: AbortSignal, keepalive?: boolean }} [options]
   * @returns {Promise<Response>}
   */
  async send(method, path, body, options = {}) {
    for (;;) {
      const key = sessionStorage.getItem(KEY);
      /** @type {Record<string, string>} */
      const headers = key ? { Authorization: `Bearer ${key}` } : {};
      if (body !== undefined) headers["Content-Type"] = "application/json";
      let response;
      try {
        response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), ...options });
      } catch (error) {
        if (options.signal?.aborted) throw error;
        this.onlost();
        throw new ConnectionLost();
      }
      if (response.ok) return response;
      if (response.status !== 401) throw await refusal(response);
      if ((await this.newKey(key)) === null) throw await refusal(response);
    }
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {unknown} [body]
   * @param {{ signal?: AbortSignal, keepalive?: boolean }} [options]
   * @returns {Promise<any>} the JSON of the answer; null if it is empty
   */
  async json(method, path, body, options) {
    const text = await (await this.send(method, path, body, options)).text();
    return text ? JSON.parse(text) : null;
  }

  /** @returns {Promise<boolean>} whether the server answers */
  async alive() {
    try {
      return (await fetch("/health", { cache: "no-store", signal: AbortSignal.timeout(3000) })).ok;
    } catch {
      return false;
    }
  }

  /**
   * Asks for a key once, however many requests were refused with `refused`.
   * @param {string | null} refused
   * @returns {Promise<string | null>}
   */
  newKey(refused) {
    const kept = sessionStorage.getItem(KEY);
    if (kept !== refused) return Promise.resolve(kept);
    this.asking ??= this.askForKey(refused !== null).then((key) => {
      this.asking = null;
      if (key) sessionStorage.setItem(KEY, key);
      return key;
    });
    return this.asking;
  }
}

/**
 * @param {Response} response
 * @returns {Promise<ServerError>}
 */
async function refusal(response) {
  let said;
  try {
    said = await response.json();
  } catch {
    said = null;
  }
  const error = said?.error ?? said;
  const message = typeof error === "string" ? error : error?.message;
  return new ServerError(response.status, message || `The server answered ${response.status}.`, error?.hint ?? "");
}
