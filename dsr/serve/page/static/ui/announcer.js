/** Tells screen readers of a stream: whole sentences, not tokens. */

const PAUSE = 1500; // ms between two announcements, so that a fast model does not flood the reader

export class Announcer {
  /** @param {Element} region with `aria-live="polite"` */
  constructor(region) {
    this.region = region;
    this.pending = "";
    this.read = 0; // characters of the current text that were announced
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
  }

  /** Announces a short message. @param {string} text */
  say(text) {
    this.pending += (this.pending ? " " : "") + text;
    this.timer ??= setTimeout(() => this.speak(), 50);
  }

  /** A new text begins. */
  begin() {
    this.read = 0;
    this.pending = "";
  }

  /** The text so far; announces its new whole sentences. @param {string} text @param {boolean} [ended] */
  follow(text, ended = false) {
    const rest = text.slice(this.read);
    const ends = [...rest.matchAll(/[.!?:](?=\s)|\n/g)];
    const last = ends[ends.length - 1];
    const length = ended ? rest.length : last ? last.index + 1 : 0;
    if (!length) return;
    this.read += length;
    this.pending += ` ${plain(rest.slice(0, length))}`;
    this.timer ??= setTimeout(() => this.speak(), PAUSE);
  }

  speak() {
    this.timer = undefined;
    const text = this.pending.trim();
    this.pending = "";
    if (!text) return;
    const line = document.createElement("p");
    line.textContent = text;
    this.region.append(line);
    while (this.region.childElementCount > 3) this.region.firstElementChild?.remove();
  }
}

/** Without the marks of Markdown. @param {string} text */
const plain = (text) => text.replace(/[*_`#>|]+|\\[()[\]]|\$\$?/g, " ").replace(/\s+/g, " ");
