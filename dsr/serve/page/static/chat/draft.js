/** The conversation as it was before the page closed or the server went away; kept by the browser until it is saved. */

import { Conversation } from "./conversation.js";

const KEY = "dsr.unsaved";

/** @param {Conversation} conversation */
export function keepDraft(conversation) {
  const { id, title, model, system } = conversation;
  try {
    sessionStorage.setItem(KEY, JSON.stringify({ id, title, model, system, messages: conversation.toTurns() }));
  } catch {
    sessionStorage.removeItem(KEY); // no room: the server has what was saved before
  }
}

export function dropDraft() {
  sessionStorage.removeItem(KEY);
}

/** The draft of the conversation with this number. @param {number | null} id @returns {Conversation | null} */
export function draftOf(id) {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
    return kept && kept.id === id ? Conversation.from(kept) : null;
  } catch {
    return null;
  }
}
