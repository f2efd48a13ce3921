/** A panel at a button. Escape or a click elsewhere closes it. */

import { freshId } from "./dom.js";

const GAP = 6; // px between button and panel
const EDGE = 8; // px to the edge of the window

/**
 * Opens `panel` at `button`, or closes it if it is open.
 * @param {HTMLElement} button
 * @param {HTMLElement} panel
 * @param {() => void} [closed]
 */
export function togglePanel(button, panel, closed) {
  if (panel.matches(":popover-open")) return panel.hidePopover();
  panel.id ||= freshId("panel");
  panel.setAttribute("popover", "auto");
  button.setAttribute("aria-controls", panel.id);
  (button.closest("dialog") ?? document.body).append(panel);
  panel.showPopover();
  button.setAttribute("aria-expanded", "true");
  const settle = () => place(button, panel);
  settle();
  const sizes = new ResizeObserver(settle);
  sizes.observe(panel);
  addEventListener("resize", settle);
  panel.addEventListener("toggle", function ended(event) {
    if (/** @type {ToggleEvent} */ (event).newState !== "closed") return;
    panel.removeEventListener("toggle", ended);
    sizes.disconnect();
    removeEventListener("resize", settle);
    button.setAttribute("aria-expanded", "false");
    if (panel.contains(document.activeElement) || document.activeElement === document.body) button.focus();
    panel.remove();
    closed?.();
  });
}

/** @param {HTMLElement} button @param {HTMLElement} panel */
function place(button, panel) {
  const at = button.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = panel;
  const left = Math.max(EDGE, Math.min(at.left, innerWidth - width - EDGE));
  const above = at.top - GAP - height;
  const below = at.bottom + GAP;
  const fits = below + height <= innerHeight - EDGE;
  const top = fits || above < EDGE ? Math.min(below, Math.max(EDGE, innerHeight - height - EDGE)) : above;
  panel.style.left = `${left}px`;
  panel.style.top = `${top}px`;
}
