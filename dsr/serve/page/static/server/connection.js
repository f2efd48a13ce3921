/** Whether the server answers. Polls only while it does not. */

const FIRST_WAIT = 500; // ms
const LONGEST_WAIT = 5000; // ms
const STEADY = 10_000; // ms; a server that fails again sooner is asked less and less often

export class Connection extends EventTarget {
  /** @param {import("./server.js").Server} server */
  constructor(server) {
    super();
    this.server = server;
    this.up = true;
    this.wait = FIRST_WAIT;
    this.since = -Infinity; // when the server came back
    addEventListener("online", () => this.retryNow());
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.retryNow());
  }

  /** A request failed: asks for the server's health until it answers. Events: "lost", then "back". */
  lost() {
    if (!this.up) return;
    this.up = false;
    this.dispatchEvent(new Event("lost"));
    if (performance.now() - this.since > STEADY) this.wait = FIRST_WAIT;
    this.schedule();
  }

  schedule() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.check(), this.wait);
  }

  retryNow() {
    if (!this.up) this.check();
  }

  async check() {
    clearTimeout(this.timer);
    if (await this.server.alive()) {
      this.up = true;
      this.since = performance.now();
      this.dispatchEvent(new Event("back"));
    } else {
      this.wait = Math.min(LONGEST_WAIT, this.wait * 1.5);
      this.schedule();
    }
  }
}
