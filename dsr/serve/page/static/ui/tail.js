/** The last words of a text in one line. */

import { setText } from "./dom.js";

const LONGEST = 160; // characters that one line can show

/**
 * Shows the end of `text`: from the left while it fits, else at the right end.
 * @param {HTMLElement} element
 * @param {string} text
 */
export function showTail(element, text) {
  const tail = text.slice(-LONGEST).replace(/\s+/g, " ").trim();
  setText(element, tail);
  element.classList.add("tail");
  element.classList.toggle("long", tail !== "" && (text.length > LONGEST || overflows(element)));
}

/** Whether the text is wider than its line, also where the line is aligned to its end. @param {HTMLElement} element */
function overflows(element) {
  if (!element.classList.contains("long")) return element.scrollWidth > element.clientWidth;
  const range = document.createRange();
  range.selectNodeContents(element);
  return range.getBoundingClientRect().width > element.clientWidth;
}
