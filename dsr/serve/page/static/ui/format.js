/** Figures for people. Sizes in GiB and MiB, as everywhere in dsr. */

const NUMBER = new Intl.NumberFormat("en-US");

/** @param {number} count */
export const number = (count) => NUMBER.format(count);

/**
 * "1 token", "1,204 tokens".
 * @param {number} count
 * @param {string} noun
 */
export const counted = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

/** @param {number} value */
export function bytes(value) {
  if (value >= 2 ** 30) return `${(value / 2 ** 30).toFixed(value >= 10 * 2 ** 30 ? 0 : 1)} GiB`;
  if (value >= 2 ** 20) return `${Math.round(value / 2 ** 20)} MiB`;
  return `${Math.max(1, Math.round(value / 1024))} KiB`;
}

/**
 * "0.4 s", "12 s", "2 min 5 s".
 * @param {number} seconds
 */
export function duration(seconds) {
  if (seconds < 1) return `${Math.max(0.1, Math.round(seconds * 10) / 10)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  const rest = whole % 60;
  if (minutes < 60) return rest ? `${minutes} min ${rest} s` : `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** @param {number} rate tokens per second */
export const speed = (rate) => `${rate >= 10 ? number(Math.round(rate)) : rate.toFixed(1)} tokens/s`;

/** @param {number} count weights of a model: "7B", "494M" */
export function parameters(count) {
  if (count >= 1e9) return `${(count / 1e9).toFixed(count >= 1e10 ? 0 : 1).replace(/\.0$/, "")}B`;
  if (count >= 1e6) return `${Math.round(count / 1e6)}M`;
  return `${Math.round(count / 1e3)}K`;
}

/**
 * The heading under which a list shows a day.
 * @param {Date} date
 * @param {Date} [now]
 */
export function dayGroup(date, now = new Date()) {
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime();
  const day = 86_400_000;
  const time = date.getTime();
  if (time >= midnight) return "Today";
  if (time >= midnight - day) return "Yesterday";
  if (time >= midnight - 7 * day) return "Last 7 days";
  if (time >= midnight - 30 * day) return "Last 30 days";
  return date.toLocaleDateString("en-US", { month: "long", year: "numeric" });
}
