/** Changes elements into others in place, so that a selection, a scroll position or an open menu inside survives. */

import { isCode, updateCode } from "./code.js";

/**
 * Makes `fresh` of the children `old` of `parent`; equal nodes stay. Returns the nodes that are there then.
 * @param {Element} parent
 * @param {ChildNode[]} old
 * @param {ChildNode[]} fresh
 * @returns {ChildNode[]}
 */
export function morph(parent, old, fresh) {
  const after = old.length ? old[old.length - 1].nextSibling : null;
  const now = fresh.map((node, at) => {
    const before = old[at];
    if (!before) return parent.insertBefore(node, after);
    if (changed(before, node)) return before;
    before.replaceWith(node);
    return node;
  });
  for (const node of old.slice(fresh.length)) node.remove();
  return now;
}

/** Whether `before` could be made to look like `node`. @param {ChildNode} before @param {ChildNode} node */
function changed(before, node) {
  if (before instanceof Text && node instanceof Text) {
    if (node.data.startsWith(before.data)) {
      if (node.length > before.length) before.appendData(node.data.slice(before.length));
    } else before.data = node.data;
    return true;
  }
  if (!(before instanceof Element && node instanceof Element)) return false;
  if (isCode(before) && node.tagName === "PRE") return updateCode(before, node);
  if (before.tagName !== node.tagName || before.className !== node.className) return false;
  if (node.matches(".math")) return before.getAttribute("data-tex") === node.getAttribute("data-tex");
  for (const { name, value } of node.attributes) if (before.getAttribute(name) !== value) before.setAttribute(name, value);
  for (const name of before.getAttributeNames()) if (!node.hasAttribute(name)) before.removeAttribute(name);
  morph(before, [...before.childNodes], [...node.childNodes]);
  return true;
}
