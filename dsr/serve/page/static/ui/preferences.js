/** Choices of this browser: colours, single keys, options of questions. */

const PREFIX = "dsr.";

/** @param {string} name @param {any} otherwise */
export function preference(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name) ?? "null") ?? otherwise;
  } catch {
    return otherwise;
  }
}

/** @param {string} name @param {any} value */
export function prefer(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // A browser without storage forgets the choice; nothing else depends on it.
  }
}

/** @typedef {"system" | "light" | "dark"} Theme */

/** @param {Theme} theme */
export function showTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}
