/** Blocks of code: language, copy, colours. */

import hljs from "../vendored/highlight.js/highlight.min.js";
import { h } from "../ui/dom.js";
import { icon } from "../ui/icons.js";

const PAUSE = 250; // ms between two colourings of code that is being written
const LONGEST = 60_000; // characters that are coloured

/** @type {WeakMap<Element, number>} */
const coloured = new WeakMap();

/** @param {Element} element */
export const isCode = (element) => element.classList.contains("code");

/**
 * Gives `element`, or the blocks of code in it, their frame. Returns the element that stands in its place.
 * @param {Element} element
 * @param {boolean} ended whether the text is complete
 * @returns {Element}
 */
export function frameCode(element, ended) {
  if (element.tagName === "PRE") element = framed(element);
  else for (const pre of element.querySelectorAll("pre[data-language]")) if (!isCode(/** @type {Element} */ (pre.parentElement))) framed(pre);
  for (const frame of isCode(element) ? [element] : element.querySelectorAll(".code")) colour(frame, ended);
  return element;
}

/** @param {Element} pre */
function framed(pre) {
  const language = pre.getAttribute("data-language") ?? "";
  const copy = h("button", { type: "button", class: "quiet small", "data-copy-code": true }, icon("copy"), h("span", {}, "Copy"));
  const frame = h("div", { class: "code", "data-language": language }, h("div", { class: "code-bar" }, h("span", {}, language || "text"), copy));
  pre.replaceWith(frame);
  pre.setAttribute("tabindex", "0");
  frame.append(pre);
  return frame;
}

/**
 * Takes over the text of `fresh`, a new reading of the same block. False if it has another language.
 * @param {Element} frame
 * @param {Element} fresh
 */
export function updateCode(frame, fresh) {
  if (frame.getAttribute("data-language") !== fresh.getAttribute("data-language")) return false;
  const code = /** @type {Element} */ (frame.querySelector("code"));
  const before = code.textContent ?? "";
  const now = fresh.textContent ?? "";
  if (now === before) return true;
  if (now.startsWith(before)) code.append(now.slice(before.length));
  else code.textContent = now;
  return true;
}

/** @param {Element} frame @param {boolean} ended */
function colour(frame, ended) {
  const language = frame.getAttribute("data-language") ?? "";
  const code = /** @type {Element} */ (frame.querySelector("code"));
  const text = code.textContent ?? "";
  const now = performance.now();
  const last = coloured.get(frame) ?? 0;
  if (!hljs.getLanguage(language) || text.length > LONGEST || last === Infinity || (!ended && now - last < PAUSE)) return;
  coloured.set(frame, ended ? Infinity : now);
  const html = hljs.highlight(text, { language, ignoreIllegals: true }).value;
  // The value is escaped text in spans with classes; parsed apart, and only those are taken over.
  const parsed = new DOMParser().parseFromString(`<pre>${html}</pre>`, "text/html").querySelector("pre");
  if (parsed && parsed.textContent === text) code.replaceChildren(...parsed.childNodes);
}

/**
 * Copies the code of the block that `button` belongs to.
 * @param {Element} button
 */
export async function copyCode(button) {
  await copied(button, button.closest(".code")?.querySelector("code")?.textContent ?? "");
}

/**
 * Puts `text` into the clipboard and says so in the button for a moment.
 * @param {Element} button
 * @param {string} text
 */
export async function copied(button, text) {
  const label = /** @type {HTMLElement} */ (button.querySelector("span") ?? button);
  const before = label.textContent;
  const done = await toClipboard(text);
  label.textContent = done ? "Copied" : "Not copied";
  setTimeout(() => (label.textContent = before), 1500);
}

/** @param {string} text */
async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text); // only on https and on this machine's own address
    return true;
  } catch {
    const area = h("textarea", { class: "offscreen", readonly: true });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
