/** How to answer a question: thought, strategy and sampling, as the person at the page chose them. */

/**
 * Empty values mean the model's default.
 * @typedef {object} AskOptions
 * @property {"" | "off"} thinking
 * @property {string} effort
 * @property {number | null} budget tokens of thought
 * @property {string} strategy "" draws one answer
 * @property {number | null} samples
 * @property {Record<string, string>} settings of the strategy, other than the number of samples
 * @property {number | null} temperature
 * @property {number | null} topP
 * @property {number | null} topK
 * @property {number | null} minP
 * @property {number | null} seed
 * @property {number | null} maxTokens
 */

/** @type {Readonly<AskOptions>} */
export const DEFAULTS = Object.freeze({
  thinking: "", effort: "", budget: null, strategy: "", samples: null, settings: {},
  temperature: null, topP: null, topK: null, minP: null, seed: null, maxTokens: null,
});

/** The sampling settings: field, field of the API, name, step, bounds. */
export const SAMPLING = /** @type {const} */ ([
  ["temperature", "temperature", "Temperature", 0.1, 0, 2],
  ["topP", "top_p", "Top-p", 0.01, 0, 1],
  ["topK", "top_k", "Top-k", 1, 0, 1000],
  ["minP", "min_p", "Min-p", 0.01, 0, 1],
  ["seed", "seed", "Seed", 1, 0, 4294967295],
  ["maxTokens", "max_completion_tokens", "Maximum tokens", 1, 1, 1048576],
]);

/**
 * The options without those that the model does not know; the server would refuse them.
 * @param {AskOptions} options
 * @param {{ thinks: boolean, canSwitch: boolean, efforts: string[] } | null} model
 * @returns {AskOptions}
 */
export function knownTo(options, model) {
  if (!model) return options;
  const { thinks, canSwitch, efforts } = model;
  return {
    ...options,
    thinking: thinks && canSwitch ? options.thinking : "",
    effort: efforts.includes(options.effort) ? options.effort : "",
    budget: thinks ? options.budget : null,
  };
}

/**
 * The fields of a request for these options.
 * @param {AskOptions} options
 * @returns {Record<string, any>}
 */
export function requestFields(options) {
  /** @type {Record<string, any>} */
  const fields = {};
  /** @type {Record<string, any>} */
  const dsr = {};
  for (const [field, name] of SAMPLING) if (options[field] !== null) fields[name] = options[field];
  if (options.thinking === "off") fields.reasoning_effort = "none";
  else {
    if (options.effort) fields.reasoning_effort = options.effort;
    if (options.budget !== null) dsr.think_budget = options.budget;
  }
  if (options.strategy) {
    const set = { ...options.settings };
    if (options.samples !== null) set.n = String(options.samples);
    dsr.strategy = options.strategy;
    if (Object.keys(set).length) dsr.set = set;
  }
  if (Object.keys(dsr).length) fields.dsr = dsr;
  return fields;
}

/**
 * What differs from the default, as short texts with the fields that each of them resets.
 * @param {AskOptions} options
 * @returns {{ text: string, fields: (keyof AskOptions)[] }[]}
 */
export function chosen(options) {
  /** @type {{ text: string, fields: (keyof AskOptions)[] }[]} */
  const chips = [];
  if (options.strategy) {
    const spoken = options.strategy[0].toUpperCase() + options.strategy.slice(1).replaceAll("-", " ");
    const name = options.strategy === "vote" ? `Vote of ${options.samples ?? 8}` : spoken;
    const samples = options.strategy !== "vote" && options.samples !== null ? `, ${options.samples} samples` : "";
    chips.push({ text: name + samples, fields: ["strategy", "samples", "settings"] });
  }
  if (options.thinking === "off") chips.push({ text: "No thinking", fields: ["thinking"] });
  else {
    if (options.effort) chips.push({ text: `Effort ${options.effort}`, fields: ["effort"] });
    if (options.budget !== null) chips.push({ text: `Budget ${options.budget} tokens`, fields: ["budget"] });
  }
  for (const [field, , name] of SAMPLING)
    if (options[field] !== null) chips.push({ text: `${name} ${options[field]}`, fields: [field] });
  return chips;
}

/**
 * The options of a stored object; what it lacks, or has in another type, is the default.
 * @param {any} stored
 * @returns {AskOptions}
 */
export function asOptions(stored) {
  /** @type {any} */
  const options = { ...DEFAULTS, settings: {} };
  if (stored === null || typeof stored !== "object") return options;
  for (const [name, value] of Object.entries(DEFAULTS)) {
    const given = stored[name];
    const good = value === null ? typeof given === "number" || given === null : typeof given === typeof value && given !== null;
    if (given !== undefined && good) options[name] = given;
  }
  return options;
}
