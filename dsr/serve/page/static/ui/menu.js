/** A menu of actions or choices at a button: arrows move, Enter chooses, Escape closes. */

import { append, h } from "./dom.js";
import { icon } from "./icons.js";
import { togglePanel } from "./popover.js";

/**
 * @typedef {object} Item
 * @property {string} text
 * @property {string} [detail] a second line
 * @property {import("./icons.js").IconName} [icon]
 * @property {boolean} [checked] one of a choice
 * @property {boolean} [danger]
 * @property {() => void} action
 */

/**
 * A button that opens a menu. `items` is asked each time.
 * @param {HTMLButtonElement} button
 * @param {string} label
 * @param {() => Item[]} items
 */
export function menuButton(button, label, items) {
  button.setAttribute("aria-haspopup", "menu");
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", () => openMenu(button, label, items()));
}

/** @param {HTMLButtonElement} button @param {string} label @param {Item[]} items */
function openMenu(button, label, items) {
  const menu = h("div", { class: "panel menu", role: "menu", "aria-label": label });
  for (const item of items) menu.append(entry(menu, item));
  menu.addEventListener("keydown", (event) => move(menu, event));
  togglePanel(button, menu);
  const current = menu.querySelector('[aria-checked="true"]') ?? menu.firstElementChild;
  if (menu.isConnected) /** @type {HTMLElement} */ (current)?.focus();
}

/** @param {HTMLElement} menu @param {Item} item */
function entry(menu, item) {
  const choice = item.checked !== undefined;
  const element = h("button", {
    type: "button", role: choice ? "menuitemradio" : "menuitem", class: item.danger ? "danger" : "", tabindex: "-1",
    "aria-checked": choice ? String(item.checked) : undefined,
    onclick: () => { menu.hidePopover(); item.action(); },
  });
  append(element, item.icon ? icon(item.icon) : null,
    h("span", { class: "menu-text" }, h("span", {}, item.text), item.detail ? h("span", { class: "detail" }, item.detail) : null),
    item.checked ? icon("check") : null);
  return element;
}

/** @param {HTMLElement} menu @param {KeyboardEvent} event */
function move(menu, event) {
  const items = /** @type {HTMLElement[]} */ ([...menu.children]);
  const at = items.indexOf(/** @type {HTMLElement} */ (document.activeElement));
  const targets = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 };
  const target = targets[/** @type {keyof typeof targets} */ (event.key)];
  if (event.key === "Tab") menu.hidePopover();
  if (target !== undefined) {
    event.preventDefault();
    items[(target + items.length) % items.length]?.focus();
  } else if (event.key.length === 1 && !event.ctrlKey && !event.metaKey) {
    const from = [...items.slice(at + 1), ...items.slice(0, at + 1)];
    from.find((item) => item.textContent?.toLowerCase().startsWith(event.key.toLowerCase()))?.focus();
  }
}
