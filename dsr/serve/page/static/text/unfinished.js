/** Markdown that is still being written: shows it as it will look, so that nothing jumps when its end arrives. */

import { formulaAt } from "./math.js";

const LONGEST_FORMULA = 3000; // characters to wait for the end of a formula; then its source is shown

// The last line is only the beginning of a list, heading, fence, rule, quote or table, or of an underlined heading.
const ONLY_MARKS = /(^|\n)[ \t]*(?:[-=*+_~>|:#\s]+|\d{1,2}[.)]?|`{1,3}\w*)$/;

/**
 * The last block of a text without the marks that have no end yet, or with the ends that are still missing.
 * @param {string} block
 * @returns {string}
 */
export function settled(block) {
  block = withoutTableHead(block);
  const marks = ONLY_MARKS.exec(block);
  if (marks) block = block.slice(0, marks.index);
  const { text, open } = closedMath(block);
  return open ? text : closedEmphasis(text);
}

/** A table begins with two lines; before the second it looks like text. @param {string} block */
function withoutTableHead(block) {
  const lines = block.split("\n");
  const head = lines.length < 3 && /^\s*\|/.test(lines[0]);
  return head && (lines.length === 1 || /^[\s|:-]*$/.test(lines[1])) ? "" : block;
}

/** Leaves out a formula without an end; closes code. @param {string} block @returns {{ text: string, open: boolean }} */
function closedMath(block) {
  for (let at = 0; at < block.length; at += 1) {
    if (block[at] === "`") {
      const run = /^`+/.exec(block.slice(at))?.[0] ?? "`";
      const end = block.indexOf(run, at + run.length);
      if (end < 0) {
        const inside = block.slice(at + run.length).trim();
        return { text: inside ? block.trimEnd() + run : block.slice(0, at), open: true };
      }
      at = end + run.length - 1;
      continue;
    }
    const formula = formulaAt(block, at);
    if (formula && formula.end < 0 && block.length - at < LONGEST_FORMULA) return { text: block.slice(0, at), open: false };
    if (formula && formula.end > 0) at = formula.end - 1;
    else if (block[at] === "\\") {
      if (at === block.length - 1 || "\\boxed{".startsWith(block.slice(at))) return { text: block.slice(0, at), open: false };
      at += 1;
    } else if (block[at] === "$" && at === block.length - 1) return { text: block.slice(0, at), open: false };
  }
  return { text: block, open: false };
}

/** Closes bold and italic text, and shows an unfinished link as its words. @param {string} block */
function closedEmphasis(block) {
  const link = /!?\[([^\]\n]*)\]\([^)\s]*$/.exec(block);
  if (link) block = block.slice(0, link.index) + link[1];
  const line = block.slice(block.lastIndexOf("\n\n") + 1).replace(/`[^`]*`/g, "");
  const bold = (line.match(/\*\*/g) ?? []).length % 2 === 1;
  if (bold) {
    const trimmed = block.replace(/\*\*\s*$/, "");
    if (trimmed !== block) return trimmed;
    return `${block.replace(/\*$/, "").trimEnd()}**`;
  }
  const italic = /(?:^|[\s(])([*_])(?![\s*_])([^*_\n]*)$/.exec(block);
  return italic && italic[2].trim() ? block.trimEnd() + italic[1] : block;
}
