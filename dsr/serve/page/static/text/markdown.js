/** Markdown of a model to safe elements. Models write content, never markup: no HTML, no image from elsewhere. */

import MarkdownIt from "../vendored/markdown-it/markdown-it.esm.min.js";
import DOMPurify from "../vendored/dompurify/purify.es.js";
import { math } from "./math.js";

const md = new /** @type {any} */ (MarkdownIt)({ html: false, linkify: true, breaks: true, typographer: false });
md.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false }); // "setup.py" is a file, not a site
md.use(math);

const escape = md.utils.escapeHtml;

/** @param {string} code @param {string} language */
const codeBlock = (code, language) => `<pre data-language="${escape(language)}"><code>${escape(code)}</code></pre>\n`;
const rules = /** @type {any} */ (md.renderer.rules);
rules.fence = (/** @type {any[]} */ tokens, /** @type {number} */ at) =>
  codeBlock(tokens[at].content, tokens[at].info.trim().split(/\s+/)[0] ?? "");
rules.code_block = (/** @type {any[]} */ tokens, /** @type {number} */ at) => codeBlock(tokens[at].content, "");
rules.table_open = () => '<div class="table" role="region" aria-label="Table" tabindex="0"><table>';
rules.table_close = () => "</table></div>\n";
for (const cell of ["th_open", "td_open"])
  rules[cell] = (/** @type {any[]} */ tokens, /** @type {number} */ at) => {
    const align = /(left|center|right)/.exec(tokens[at].attrGet("style") ?? "");
    return `<${tokens[at].tag}${align ? ` class="${align[1]}"` : ""}>`;
  };
// An image would tell its host who reads; the reader may follow the link.
rules.image = (/** @type {any[]} */ tokens, /** @type {number} */ at) => {
  const source = tokens[at].attrGet("src") ?? "";
  const label = tokens[at].content || "image";
  return /^data:image\/(png|jpeg|gif|webp);/.test(source)
    ? `<img src="${escape(source)}" alt="${escape(label)}">`
    : `<a href="${escape(source)}">${escape(`image: ${label}`)}</a>`;
};

const ALLOWED = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "del", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "img", "li", "ol",
    "p", "pre", "s", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["alt", "aria-label", "class", "data-language", "data-tex", "href", "role", "src", "start", "tabindex", "title"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

/** @typedef {{ tokens: any[], lastLine: number }} Parsed `lastLine`: where the last block begins */

/**
 * @param {string} source
 * @param {object} env link references, shared between the parts of one text
 * @returns {Parsed}
 */
export function parse(source, env) {
  const tokens = md.parse(source, env);
  const starts = tokens.filter((/** @type {any} */ token) => token.level === 0 && token.map && token.nesting >= 0);
  return { tokens, lastLine: starts.length ? starts[starts.length - 1].map[0] : 0 };
}

/**
 * The elements of the blocks, one for each, safe to put into the page.
 * @param {any[]} tokens
 * @param {object} env
 * @returns {Element[]}
 */
export function elements(tokens, env) {
  const fragment = /** @type {DocumentFragment} */ (
    /** @type {unknown} */ (DOMPurify.sanitize(md.renderer.render(tokens, md.options, env), ALLOWED))
  );
  for (const link of fragment.querySelectorAll("a")) {
    // Links to this server or with a script would act for the reader.
    if (!/^(https?:\/\/|mailto:)/i.test(link.getAttribute("href") ?? "")) link.removeAttribute("href");
    link.rel = "noopener noreferrer nofollow";
    link.target = "_blank";
  }
  return [...fragment.children];
}
