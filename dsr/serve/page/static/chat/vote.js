/** A vote as it happens: samples, their answers, the tally, the verdict. Events in, state out. */

/**
 * `key`: the answer that was counted, null if it had none, undefined if it was not counted yet.
 * @typedef {object} Sample
 * @property {number} number
 * @property {string} thinking
 * @property {string} answer
 * @property {number} tokens
 * @property {"waiting" | "drawing" | "ended" | "stopped" | "skipped"} state
 * @property {string | null | undefined} key
 * @property {string} note
 * @property {number | null} confidence
 */

// A conversation keeps the texts of samples up to this many characters, the chosen sample first.
const KEPT_CHARACTERS = 200_000;

export class Vote {
  /**
   * @param {string} strategy
   * @param {number} expected samples that will be drawn at most, as far as known
   */
  constructor(strategy, expected) {
    this.strategy = strategy;
    /** @type {Map<number, Sample>} */
    this.samples = new Map();
    /** @type {[string, number][]} */
    this.votes = [];
    this.without = 0;
    /** @type {any} the verdict as `dsr chat --json` has it */
    this.verdict = null;
    /** @type {number | null} */
    this.chosen = null;
    for (let number = 0; number < expected; number += 1) this.sample(number);
  }

  /** @param {number} number @returns {Sample} */
  sample(number) {
    let sample = this.samples.get(number);
    if (!sample) {
      sample = { number, thinking: "", answer: "", tokens: 0, state: "waiting", key: undefined, note: "", confidence: null };
      this.samples.set(number, sample);
    }
    return sample;
  }

  /** @param {any} event of the stream */
  take(event) {
    if (event.type === "text") {
      let sample = this.sample(event.sample);
      if (sample.state === "ended" || sample.state === "stopped") {
        this.samples.delete(event.sample); // the number is drawn again
        sample = this.sample(event.sample);
      }
      sample.state = "drawing";
      if (event.part === "thinking") sample.thinking += event.text;
      else sample.answer += event.text;
      sample.tokens += 1;
    } else if (event.type === "noted") {
      this.sample(event.sample).note = event.text;
    } else if (event.type === "tally") {
      this.sample(event.sample).key = event.answer ?? null;
      this.votes = event.votes.map((/** @type {any} */ vote) => (Array.isArray(vote) ? vote : [vote.answer, vote.votes]));
      this.without = event.without ?? 0;
    } else if (event.type === "ended") {
      const sample = this.sample(event.sample);
      const whole = event.finish_reason === "stop" || event.finish_reason === "length" || event.finish_reason === "tool_calls";
      sample.state = whole ? "ended" : "stopped";
      sample.tokens = event.tokens ?? sample.tokens;
      if (!sample.note && event.note) sample.note = event.note;
      if (!sample.note && event.finish_reason === "length") sample.note = "cut at the token limit";
    } else if (event.type === "verdict") {
      this.decide(event.verdict, event.chosen ?? null);
    }
  }

  /** @param {any} verdict @param {number | null} chosen */
  decide(verdict, chosen) {
    this.verdict = verdict;
    this.votes = (verdict.tally ?? []).map((/** @type {any} */ row) => [row.answer, row.votes]);
    this.without = verdict.abstained ?? 0;
    this.chosen = chosen;
    for (const [at, told] of (verdict.samples ?? []).entries()) {
      const sample = this.samples.get(told.sample ?? at);
      if (!sample) continue;
      sample.tokens = told.tokens ?? sample.tokens;
      sample.note = told.note || sample.note;
      sample.confidence = told.confidence ?? null;
      if (sample.key === undefined && sample.state !== "stopped") sample.key = told.answer ?? null;
    }
    this.close("not needed");
  }

  /** Nothing more comes: samples that are still drawn are stopped, those that wait were not needed. @param {string} note */
  close(note) {
    for (const sample of [...this.samples.values()]) {
      if (sample.state === "waiting") sample.state = "skipped";
      else if (sample.state === "drawing") {
        sample.state = "stopped";
        sample.note ||= note;
      }
    }
  }

  get tokens() {
    return [...this.samples.values()].reduce((sum, sample) => sum + sample.tokens, 0);
  }

  get counted() {
    return this.votes.reduce((sum, [, votes]) => sum + votes, 0) + this.without;
  }

  /** @returns {string | null} the answer with the most votes */
  get leader() {
    if (this.verdict) return this.verdict.winner ?? null;
    const most = Math.max(0, ...this.votes.map(([, votes]) => votes));
    const first = this.votes.filter(([, votes]) => votes === most);
    return most > 0 && first.length === 1 ? first[0][0] : null;
  }

  /** As it is kept with the answer. @returns {any} */
  toJSON() {
    let room = KEPT_CHARACTERS;
    const order = [...this.samples.values()].sort((a, b) => Number(b.number === this.chosen) - Number(a.number === this.chosen));
    const samples = order.map((sample) => {
      const size = sample.thinking.length + sample.answer.length;
      if (size > room) return { ...sample, thinking: "", answer: "", left_out: true };
      room -= size;
      return { ...sample, key: sample.key === undefined ? undefined : sample.key };
    });
    samples.sort((a, b) => a.number - b.number);
    return { strategy: this.strategy, samples, votes: this.votes, without: this.without, chosen: this.chosen };
  }

  /**
   * @param {any} kept from `toJSON`
   * @param {any} verdict
   */
  static from(kept, verdict) {
    const vote = new Vote(kept.strategy ?? "vote", 0);
    for (const sample of kept.samples ?? []) vote.samples.set(sample.number, { ...vote.sample(sample.number), ...sample });
    vote.votes = kept.votes ?? [];
    vote.without = kept.without ?? 0;
    vote.chosen = kept.chosen ?? null;
    vote.verdict = verdict ?? null;
    return vote;
  }
}
