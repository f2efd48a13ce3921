/**
 * Mathematics in Markdown: `$...$`, `$$...$$`, `\(...\)`, `\[...\]`, and `\boxed{...}` alone, as reasoning models end.
 * The parser leaves empty elements with `data-tex`; `fillMath` draws them once they are in the page.
 */

import "../vendored/katex/katex.min.js";

const katex = /** @type {any} */ (globalThis).katex;

// Bounds for hostile formulas: em of the largest size, and expansions of macros.
const MOST_SIZE = 30;
const MOST_EXPANSIONS = 500;

/** @param {any} md a markdown-it parser */
export function math(md) {
  md.inline.ruler.before("escape", "math", inlineRule);
  md.block.ruler.before("fence", "math_block", blockRule, { alt: ["paragraph", "blockquote", "list"] });
  const element = (/** @type {string} */ tag, /** @type {string} */ kind, /** @type {string} */ tex) =>
    `<${tag} class="math${kind}" data-tex="${md.utils.escapeHtml(tex)}"></${tag}>`;
  md.renderer.rules.math = (/** @type {any[]} */ tokens, /** @type {number} */ at) =>
    element("span", tokens[at].markup === "display" ? " math-display" : "", tokens[at].content);
  md.renderer.rules.math_block = (/** @type {any[]} */ tokens, /** @type {number} */ at) =>
    `${element("div", " math-display", tokens[at].content)}\n`;
}

/**
 * The formula that begins at `at`: its TeX, where it ends, and whether it stands on its own line. Null if none does;
 * `end` is -1 if the formula has no end yet.
 * @param {string} text
 * @param {number} at
 * @returns {{ tex: string, end: number, display: boolean } | null}
 */
export function formulaAt(text, at) {
  const until = (/** @type {string} */ close, /** @type {number} */ from, /** @type {boolean} */ display) => {
    const end = text.indexOf(close, from);
    if (end < 0) return { tex: "", end: -1, display };
    const tex = text.slice(from, end).trim();
    return tex ? { tex, end: end + close.length, display } : null;
  };
  if (text.startsWith("\\(", at)) return until("\\)", at + 2, false);
  if (text.startsWith("\\[", at)) return until("\\]", at + 2, true);
  if (text.startsWith("$$", at)) return until("$$", at + 2, true);
  if (text.startsWith("\\boxed{", at)) {
    const end = closingBrace(text, at + 6);
    return end < 0 ? { tex: "", end: -1, display: false } : { tex: text.slice(at, end + 1), end: end + 1, display: false };
  }
  if (text[at] === "$") return dollars(text, at);
  return null;
}

/**
 * As Pandoc: no space inside of the marks, no digit after them, so that prices stay prices.
 * @param {string} text
 * @param {number} at
 */
function dollars(text, at) {
  if (!text[at + 1] || /[\s$]/.test(text[at + 1]) || /[\w$]/.test(text[at - 1] ?? "")) return null;
  for (let end = at + 1; end < text.length; end += 1) {
    if (text[end] === "\n" && text[end + 1] === "\n") return null;
    if (text[end] === "\\") end += 1;
    else if (text[end] === "$") {
      const good = !/\s/.test(text[end - 1]) && !/\d/.test(text[end + 1] ?? "");
      return good ? { tex: text.slice(at + 1, end), end: end + 1, display: false } : null;
    }
  }
  return { tex: "", end: -1, display: false };
}

/**
 * @param {string} text
 * @param {number} open the position of "{"
 */
function closingBrace(text, open) {
  let depth = 0;
  for (let at = open; at < text.length; at += 1) {
    if (text[at] === "\\") at += 1;
    else if (text[at] === "{") depth += 1;
    else if (text[at] === "}" && (depth -= 1) === 0) return at;
  }
  return -1;
}

/** @param {any} state @param {boolean} silent */
function inlineRule(state, silent) {
  const found = formulaAt(state.src, state.pos);
  if (!found || found.end < 0 || found.end > state.posMax) return false;
  if (!silent) {
    const token = state.push("math", "", 0);
    token.content = found.tex;
    token.markup = found.display ? "display" : "inline";
  }
  state.pos = found.end;
  return true;
}

/** A formula that begins and ends with its own lines. @param {any} state @param {number} first @param {number} last @param {boolean} silent */
function blockRule(state, first, last, silent) {
  const begin = state.bMarks[first] + state.tShift[first];
  if (state.sCount[first] - state.blkIndent >= 4) return false;
  const open = state.src.slice(begin, begin + 2);
  if (open !== "$$" && open !== "\\[") return false;
  const close = open === "$$" ? "$$" : "\\]";
  for (let line = first; line < last; line += 1) {
    if (line > first && state.sCount[line] < state.blkIndent && !state.isEmpty(line)) return false;
    const from = line === first ? begin + 2 : state.bMarks[line];
    const at = state.src.slice(from, state.eMarks[line]).indexOf(close);
    if (at < 0) continue;
    if (state.src.slice(from + at + 2, state.eMarks[line]).trim()) return false;
    if (silent) return true;
    const whole = state.getLines(first, line + 1, state.sCount[first], false).trim();
    const token = state.push("math_block", "", 0);
    token.block = true;
    token.content = whole.slice(2, -2).trim();
    token.map = [first, line + 1];
    state.line = line + 1;
    return true;
  }
  return false;
}

/**
 * Draws the formulas of `root` that are not drawn yet. A formula that KaTeX refuses stays as its source.
 * @param {Element} root a formula, or what contains some
 */
export function fillMath(root) {
  for (const element of root.matches(".math:empty") ? [root] : root.querySelectorAll(".math:empty")) {
    const tex = element.getAttribute("data-tex") ?? "";
    try {
      const tree = katex.__renderToDomTree(tex, {
        displayMode: element.classList.contains("math-display"),
        throwOnError: true,
        strict: "ignore",
        trust: false,
        maxSize: MOST_SIZE,
        maxExpand: MOST_EXPANSIONS,
      });
      withoutStyleAttributes(tree);
      element.append(tree.toNode());
    } catch {
      const code = document.createElement("code");
      code.textContent = tex;
      element.append(code);
    }
    if (element.classList.contains("math-display")) element.setAttribute("tabindex", "0");
  }
}

/** KaTeX sets sizes through the CSSOM, but decorates a few MathML nodes with `style`, which the policy forbids. @param {any} node */
function withoutStyleAttributes(node) {
  if (node.attributes) delete node.attributes.style;
  for (const child of node.children ?? []) withoutStyleAttributes(child);
}
