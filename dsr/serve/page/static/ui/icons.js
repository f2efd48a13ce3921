/** Icons: strokes on a grid of 20 units, drawn for dsr. */

const PATHS = {
  add: "M10 4v12M4 10h12",
  attach: "M15.6 9.4l-5.7 5.7a3.4 3.4 0 0 1-4.8-4.8l6-6a2.3 2.3 0 0 1 3.2 3.2l-5.9 5.9a1.1 1.1 0 0 1-1.6-1.6l5.3-5.3",
  back: "M12 4 6 10l6 6",
  check: "m4.5 10.5 3.6 3.6 7.4-8",
  chevron: "m7.5 5 5 5-5 5",
  close: "m5 5 10 10M15 5 5 15",
  copy: "M7.5 7.5h8v8h-8zM12.5 4.5h-8v8",
  down: "M10 4v12m-5-5 5 5 5-5",
  download: "M10 3.5v9m-4-4 4 4 4-4M4 16.5h12",
  edit: "m4 16 .8-3.4 8.6-8.6 2.6 2.6-8.6 8.6z",
  file: "M5.5 3.5h6l3 3v10h-9zM11.5 3.5v3h3",
  forward: "m8 4 6 6-6 6",
  keyboard: "M3 5.5h14v9H3zM6 8.5h.01M9 8.5h.01M12 8.5h.01M14.5 8.5h.01M7 11.5h6",
  menu: "M4 6h12M4 10h12M4 14h12",
  models: "M10 3.5 16 7v6.5l-6 3.2-6-3.2V7zM4.2 7l5.8 3.2L15.8 7M10 10.2v6.3",
  more: "M5 10h.01M10 10h.01M15 10h.01",
  options: "M3.5 6.5h7M14.5 6.5h2M3.5 13.5h2M9.5 13.5h7M12.5 4.5a2 2 0 1 0 0 4 2 2 0 0 0 0-4zM7.5 11.5a2 2 0 1 0 0 4 2 2 0 0 0 0-4z",
  play: "M7 5v10l8-5z",
  regenerate: "M15.5 8a6 6 0 1 0 .3 3.6M15.8 4.5V8h-3.5",
  search: "M9 4a5 5 0 1 0 0 10A5 5 0 0 0 9 4zm3.7 8.7 3.3 3.3",
  send: "M10 16V4.5m-5 5 5-5 5 5",
  settings: "M10 7.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5zM10 3v2M10 15v2M3 10h2M15 10h2M5 5l1.5 1.5M13.5 13.5 15 15M15 5l-1.5 1.5M6.5 13.5 5 15",
  sidebar: "M3.5 4.5h13v11h-13zM8 4.5v11",
  stop: "M6 6h8v8H6z",
  theme: "M10 3.5a6.5 6.5 0 1 0 0 13zM10 3.5a6.5 6.5 0 0 1 0 13",
  trash: "M4 6h12M8 6V4h4v2M5.5 6l.7 10h7.6l.7-10M8.5 9v4.5M11.5 9v4.5",
  vote: "M4 16V9.5M8 16V4M12 16v-4.5M16 16V7.5",
};

/** @typedef {keyof typeof PATHS} IconName */

/**
 * An icon that screen readers skip.
 * @param {IconName} name
 * @returns {SVGSVGElement}
 */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 20 20", class: `icon icon-${name}`, "aria-hidden": "true" }))
    svg.setAttribute(key, value);
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}
