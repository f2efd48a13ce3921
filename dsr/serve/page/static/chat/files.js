/** Files before the text of a question, in the layout of `prompts/file-layout.md`. */

const NAME = "[file name]: ";
const BEGIN = "\n[file content begin]\n";
const END = "\n[file content end]\n";

const MOST_BYTES = 4 * 2 ** 20;

/** @typedef {{ name: string, content: string }} GivenFile */

/**
 * A question with its files before it.
 * @param {GivenFile[]} files
 * @param {string} question
 */
export const withFiles = (files, question) => files.map(({ name, content }) => NAME + name + BEGIN + content + END).join("") + question;

/**
 * The files and the question of a text from `withFiles`.
 * @param {string} text
 * @returns {{ files: GivenFile[], question: string }}
 */
export function splitFiles(text) {
  /** @type {GivenFile[]} */
  const files = [];
  while (text.startsWith(NAME)) {
    const middle = text.indexOf(BEGIN);
    const name = text.slice(NAME.length, middle);
    const content = text.slice(middle + BEGIN.length);
    let end = middle < 0 || name.includes("\n") ? -1 : content.lastIndexOf(END);
    if (end < 0) break;
    // The next file begins directly after the end of this one; the last end is that of the last file.
    const following = content.indexOf(END + NAME);
    if (following >= 0 && following < end) end = following;
    files.push({ name, content: content.slice(0, end) });
    text = content.slice(end + END.length);
  }
  return { files, question: text };
}

/**
 * The text of a file that a person gave. Throws an Error that says why it is no text.
 * @param {File} file
 * @returns {Promise<GivenFile>}
 */
export async function readFile(file) {
  if (file.size > MOST_BYTES) throw new Error(`${file.name} has ${Math.ceil(file.size / 2 ** 20)} MiB. A file may have at most 4 MiB.`);
  const data = new Uint8Array(await file.arrayBuffer());
  let encoding = "utf-8";
  if (data[0] === 0xff && data[1] === 0xfe) encoding = "utf-16le";
  else if (data[0] === 0xfe && data[1] === 0xff) encoding = "utf-16be";
  let content;
  try {
    content = new TextDecoder(encoding, { fatal: true }).decode(data);
  } catch {
    throw new Error(`${file.name} is not a text. Give a text file in UTF-8.`);
  }
  if (content.includes("\0")) throw new Error(`${file.name} is not a text. Give a text file in UTF-8.`);
  return { name: file.name.replace(/[\r\n]+/g, " ") || "pasted.txt", content: content.replace(/\r\n?/g, "\n").replace(/\n$/, "") };
}
