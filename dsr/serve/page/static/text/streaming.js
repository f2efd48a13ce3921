/** A text that grows: finished blocks are drawn once, only the last one is drawn again. */

import { frameCode } from "./code.js";
import { elements, parse } from "./markdown.js";
import { fillMath } from "./math.js";
import { morph } from "./morph.js";
import { settled } from "./unfinished.js";

export class StreamingMarkdown {
  /** @param {Element} element where the text stands */
  constructor(element) {
    this.element = element;
    this.source = "";
    this.drawn = 0; // characters of blocks that are finished
    /** @type {ChildNode[]} */
    this.last = []; // the elements of the rest
    this.env = {};
  }

  /**
   * The whole text so far, which continues the one before. `ended`: nothing follows.
   * @param {string} source
   * @param {boolean} [ended]
   */
  show(source, ended = false) {
    if (!source.startsWith(this.source)) this.clear();
    this.source = source;
    const rest = source.slice(this.drawn);
    const { tokens, lastLine } = parse(rest, this.env);
    const split = lineStart(rest, lastLine);
    if (lastLine > 0 && !ended) {
      const first = tokens.findIndex((/** @type {any} */ token) => token.level === 0 && token.map?.[0] === lastLine);
      this.draw(elements(tokens.slice(0, first), this.env), true);
      this.drawn += split;
      this.last = [];
    }
    const block = ended ? rest : rest.slice(split);
    if (ended) this.draw(elements(tokens, this.env), true);
    else {
      const isCode = tokens.length > 0 && tokens[tokens.length - 1].type === "fence" && tokens[tokens.length - 1].level === 0;
      const shown = isCode ? block.replace(/\n[ \t]*`{1,2}$/, "\n") : settled(block);
      this.draw(elements(parse(shown, this.env).tokens, this.env), false);
    }
  }

  /** @param {Element[]} blocks @param {boolean} ended */
  draw(blocks, ended) {
    this.last = morph(this.element, this.last, blocks).map((node) => (node instanceof Element ? frameCode(node, ended) : node));
    for (const node of this.last) if (node instanceof Element) fillMath(node);
  }

  clear() {
    this.element.replaceChildren();
    this.source = "";
    this.drawn = 0;
    this.last = [];
    this.env = {};
  }
}

/** @param {string} text @param {number} line */
function lineStart(text, line) {
  let at = 0;
  for (; line > 0; line -= 1) at = text.indexOf("\n", at) + 1;
  return at;
}
