/** A vote live: a lane for each sample, the tally, the verdict's rule. A lane opens its sample. */

import { StreamingMarkdown } from "../text/streaming.js";
import { openDialog } from "../ui/dialog.js";
import { h, setText } from "../ui/dom.js";
import { showTail } from "../ui/tail.js";
import { counted, number } from "../ui/format.js";
import { icon } from "../ui/icons.js";
import { fillMath } from "../text/math.js";

const SHOWN = 120; // characters of a sample in its lane
const COLOURS = 6;

/** @typedef {import("./vote.js").Vote} Vote */
/** @typedef {import("./vote.js").Sample} Sample */

export class VoteView {
  /** @param {boolean} open whether the lanes are shown at once */
  constructor(open) {
    this.head = h("span", { class: "vote-title" });
    this.facts = h("span", { class: "vote-facts" });
    this.lanes = h("ol", { class: "lanes", "aria-label": "Samples" });
    this.tally = h("ul", { class: "tally", "aria-label": "Tally" });
    this.none = h("p", { class: "hint" });
    this.rule = h("p", { class: "vote-rule" });
    this.element = h("details", { class: "vote", open, hidden: true },
      h("summary", {}, icon("chevron"), this.head, this.facts),
      h("div", { class: "vote-body" }, this.lanes, h("div", { class: "vote-side" }, h("h3", {}, "Answers"), this.none, this.tally)), this.rule);
    /** @type {Map<number, Lane>} */
    this.byNumber = new Map();
    /** @type {Map<string, number>} colour of each answer, in the order in which they came */
    this.colours = new Map();
    /** @type {Vote | null} */
    this.vote = null;
    /** @type {SampleDialog | null} */
    this.opened = null;
  }

  /** @param {Vote | null} vote @param {boolean} live */
  update(vote, live) {
    this.vote = vote;
    this.element.hidden = !vote;
    if (!vote) return;
    const samples = [...vote.samples.values()].sort((a, b) => a.number - b.number);
    const ended = samples.filter((sample) => sample.state === "ended").length;
    const verdict = vote.verdict;
    if (verdict && samples.length < 2) this.element.hidden = true;
    setText(this.head, this.title(vote, samples.length));
    const spent = verdict?.tokens?.spent ?? vote.tokens;
    const facts = live ? `${ended} of ${samples.length} ended, ${counted(spent, "token")}` : this.outcome(vote);
    setText(this.facts, facts);
    for (const [answer] of vote.votes) if (!this.colours.has(answer)) this.colours.set(answer, this.colours.size % COLOURS);
    this.drawLanes(vote, samples);
    this.drawTally(vote);
    const saved = verdict?.tokens?.saved;
    const cost = verdict ? `${counted(spent, "token")}${saved ? `, about ${number(saved)} saved` : ""}` : "";
    setText(this.rule, verdict ? [sentence(verdict.rule), cost].filter(Boolean).join(" · ") : "");
    this.opened?.update(vote);
  }

  /** @param {Vote} vote @param {number} drawn */
  title(vote, drawn) {
    const strategy = vote.verdict?.strategy || vote.strategy;
    return strategy === "vote" ? `Vote of ${drawn}` : `${sentence(strategy.replaceAll("-", " ") || "vote")}, ${counted(drawn, "sample")}`;
  }

  /** @param {Vote} vote */
  outcome(vote) {
    if (!vote.verdict) return "no verdict";
    const winner = vote.votes.find(([answer]) => answer === vote.verdict.winner);
    return winner ? `${winner[1]} of ${vote.counted} for ${winner[0]}` : "no answer won";
  }

  /** @param {Vote} vote @param {Sample[]} samples */
  drawLanes(vote, samples) {
    const longest = Math.max(60, ...samples.map((sample) => sample.tokens));
    for (const [number, lane] of this.byNumber) {
      if (vote.samples.has(number)) continue;
      lane.element.remove();
      this.byNumber.delete(number);
    }
    for (const sample of samples) {
      let lane = this.byNumber.get(sample.number);
      if (!lane) {
        lane = new Lane(sample.number, () => this.show(sample.number));
        this.byNumber.set(sample.number, lane);
        this.lanes.append(lane.element);
      }
      const colour = typeof sample.key === "string" ? this.colours.get(sample.key) : undefined;
      lane.update(sample, longest, colour, vote.chosen === sample.number);
    }
  }

  /** @param {Vote} vote */
  drawTally(vote) {
    const rows = /** @type {[string | null, number][]} */ ([...vote.votes].sort((a, b) => b[1] - a[1]));
    if (vote.without) rows.push([null, vote.without]);
    const most = Math.max(4, ...rows.map(([, votes]) => votes));
    while (this.tally.childElementCount > rows.length) this.tally.lastElementChild?.remove();
    rows.forEach(([answer, votes], at) => {
      let row = /** @type {HTMLElement | undefined} */ (this.tally.children[at]);
      if (!row) {
        row = h("li", {}, h("span", { class: "tally-answer" }), h("span", { class: "tally-count" }), h("span", { class: "bar" }, h("span")));
        this.tally.append(row);
      }
      const [name, count, bar] = /** @type {HTMLElement[]} */ ([...row.children]);
      showAnswer(name, answer ?? "no answer");
      setText(count, `${votes}`);
      count.setAttribute("aria-label", counted(votes, "vote"));
      row.dataset.colour = answer === null ? "none" : String(this.colours.get(answer) ?? 0);
      row.classList.toggle("leads", answer !== null && answer === vote.leader);
      /** @type {HTMLElement} */ (bar.firstElementChild).style.transform = `scaleX(${votes / most})`;
    });
    setText(this.none, rows.length ? "" : vote.verdict ? "No sample gave an answer." : "No answer yet.");
  }

  /** @param {number} number */
  show(number) {
    if (!this.vote) return;
    this.opened = new SampleDialog(number, this.vote, () => (this.opened = null));
  }
}

class Lane {
  /** @param {number} number @param {() => void} open */
  constructor(number, open) {
    this.text = h("span", { class: "lane-text", "aria-hidden": "true" });
    this.result = h("span", { class: "lane-result", "aria-hidden": "true" });
    this.bar = h("span");
    this.spoken = h("span", { class: "offscreen" });
    this.button = h("button", { type: "button", onclick: open },
      this.spoken, h("span", { class: "lane-number", "aria-hidden": "true" }, String(number + 1)),
      this.text, this.result, h("span", { class: "bar", "aria-hidden": "true" }, this.bar));
    this.number = number;
    this.element = h("li", { class: "lane" }, this.button);
  }

  /** @param {Sample} sample @param {number} longest @param {number | undefined} colour @param {boolean} chosen */
  update(sample, longest, colour, chosen) {
    const state = sample.state === "skipped" ? "not needed" : sample.state;
    this.element.dataset.state = sample.state;
    this.element.dataset.colour = colour === undefined ? "none" : String(colour);
    this.element.classList.toggle("chosen", chosen);
    const stopped = sample.state === "stopped" ? `Stopped${sample.note ? `: ${sample.note.replace(/^stopped: /, "")}` : ""}` : "";
    const fixed = sample.state === "waiting" || sample.state === "skipped" ? sentence(state) : stopped || sentence(sample.note);
    if (sample.state === "drawing" && !fixed) showTail(this.text, sample.answer || sample.thinking);
    else {
      setText(this.text, fixed || firstWords(sample.answer || sample.thinking));
      this.text.classList.remove("tail", "long");
    }
    const counts = sample.tokens ? number(sample.tokens) : "";
    const result = typeof sample.key === "string" ? sample.key : sample.key === null && sample.state === "ended" ? "no answer" : counts;
    showAnswer(this.result, result);
    this.result.classList.toggle("landed", typeof sample.key === "string");
    this.bar.style.transform = `scaleX(${sample.tokens / longest})`;
    // While it is drawn this stays, so that screen readers are not told of every token.
    const said = typeof sample.key === "string" ? `answer ${sample.key}` : stopped || state;
    const count = sample.state === "drawing" ? "" : `, ${counted(sample.tokens, "token")}`;
    setText(this.spoken, `Sample ${this.number + 1}: ${said}${count}${chosen ? ", chosen" : ""}`);
  }
}

class SampleDialog {
  /** @param {number} number @param {Vote} vote @param {() => void} closed */
  constructor(number, vote, closed) {
    this.number = number;
    this.facts = h("p", { class: "facts" });
    this.thought = h("div", { class: "prose thought-text" });
    this.answer = h("div", { class: "prose" });
    this.thoughtText = new StreamingMarkdown(this.thought);
    this.answerText = new StreamingMarkdown(this.answer);
    this.thoughtPart = h("section", {}, h("h3", {}, "Thought"), this.thought);
    this.answerPart = h("section", {}, h("h3", {}, "Answer"), this.answer);
    openDialog(`Sample ${number + 1}`, { wide: true, onclose: closed },
      h("div", { class: "dialog-body", tabindex: "0" }, this.facts, this.thoughtPart, this.answerPart));
    this.update(vote);
  }

  /** @param {Vote} vote */
  update(vote) {
    const sample = vote.samples.get(this.number);
    if (!sample) return;
    const ended = sample.state !== "drawing";
    const confidence = sample.confidence !== null ? `confidence ${Math.round(100 * sample.confidence)} %` : "";
    const counts = [counted(sample.tokens, "token"), confidence, sample.note, vote.chosen === this.number ? "chosen as the answer" : ""];
    setText(this.facts, counts.filter(Boolean).join(" · "));
    this.thoughtPart.hidden = !sample.thinking;
    this.answerPart.hidden = !sample.answer;
    if (this.thoughtText.source !== sample.thinking || ended) this.thoughtText.show(sample.thinking, ended);
    if (this.answerText.source !== sample.answer || ended) this.answerText.show(sample.answer, ended);
    if (/** @type {any} */ (sample).left_out) setText(this.facts, `${this.facts.textContent} · the text was too long to keep`);
  }
}

/** An answer that is TeX is drawn as such. @param {HTMLElement} element @param {string} answer */
function showAnswer(element, answer) {
  if (element.dataset.answer === answer) return;
  element.dataset.answer = answer;
  if (!/\\[a-zA-Z]+|[_^]\{?/.test(answer)) return void (element.textContent = answer);
  element.replaceChildren(h("span", { class: "math", "data-tex": answer }));
  fillMath(element);
}

/** @param {string} text */
const firstWords = (text) => text.slice(0, SHOWN).replace(/\\boxed\{([^{}]*)\}/g, "$1").replace(/\s+/g, " ").trim();

/** @param {string | undefined} text */
const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1) : "");
