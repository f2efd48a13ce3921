/** Puts the page together. */

import { Chat } from "./chat/chat.js";
import { Composer } from "./chat/composer.js";
import { Conversation } from "./chat/conversation.js";
import { draftOf } from "./chat/draft.js";
import { AnswerView } from "./chat/answer_view.js";
import { QuestionView } from "./chat/question_view.js";
import { Sidebar } from "./chat/sidebar.js";
import { ConversationStore } from "./chat/store.js";
import { Thread } from "./chat/thread.js";
import { Library } from "./models/library.js";
import { ModelsView } from "./models/models_view.js";
import { Connection } from "./server/connection.js";
import { Server, ServerError } from "./server/server.js";
import { Announcer } from "./ui/announcer.js";
import { askForText } from "./ui/dialog.js";
import { Frame } from "./frame.js";
import { prefer, preference, showTheme } from "./ui/preferences.js";
import { Shortcuts } from "./ui/shortcuts.js";

const MODELS_EVERY = 2000; // ms, while the models are shown or one is loading

const server = new Server((again) => askForText("This server asks for a key", "API key", {
  type: "password", action: "Continue",
  note: again ? "The server did not accept that key. Try again." : "The key is the one of `dsr serve --api-key`. This tab keeps it until you close it.".replaceAll("`", ""),
}));
const connection = new Connection(server);
server.onlost = () => connection.lost();
let model = preference("model", "");
/** @type {any[]} */
let strategies = [];
const announcer = new Announcer(/** @type {Element} */ (document.getElementById("announcements")));
const store = new ConversationStore(server);
const library = new Library(server);
const chat = new Chat(server, store);
chat.kind = (/** @type {string} */ name) => strategies.find((each) => each.name === name) ?? null;

const composer = new Composer({
  send: (content) => { frame.scroll.toEnd(); chat.ask(content, composer.current, model); },
  stop: () => chat.stop(),
  system: { get: () => chat.conversation.system, set: (text) => { chat.conversation.system = text; } },
});
const actions = {
  edit: (/** @type {any} */ turn, /** @type {string} */ content) => { frame.scroll.toEnd(); chat.edit(turn, content, composer.current, model); },
  regenerate: (/** @type {any} */ turn) => chat.regenerate(turn, composer.current, model),
  continue: (/** @type {any} */ turn) => chat.continue(turn, composer.current, model),
  turnTo: (/** @type {any} */ turn, /** @type {number} */ step) => chat.turnTo(turn, step),
};
const thread = new Thread(chat, actions, announcer);
const sidebar = new Sidebar(store, {
  deleted: (id) => { if (chat.conversation.id === id) location.hash = "#/"; },
  renamed: (id, title) => { if (chat.conversation.id === id) { chat.conversation.title = title; showTitle(); } },
  opened: () => frame.closeSidebar(),
});
const models = new ModelsView(library, { use: (reference) => { choose(reference); location.hash = "#/"; } });
const frame = new Frame({ thread, composer, sidebar, models, library, choose, model: () => model, shortcuts: () => shortcuts, fill: (/** @type {string} */ text) => composer.fill(text) });

/** Chooses the model that answers. @param {string} reference */
function choose(reference) {
  model = reference;
  prefer("model", reference);
  showModel();
}

function showModel() {
  if (!library.find(model)) model = library.preferred?.reference ?? "";
  const chosen = library.find(model);
  composer.know(chosen, strategies);
  frame.showModel(chosen);
}

function showTitle() {
  const title = location.hash === "#/models" ? "Models" : chat.conversation.title;
  document.title = title ? `${title} · dsr` : "dsr";
}

/** Shows what the address says. `first`: the page has just been loaded, perhaps with a draft. */
async function route(first = false) {
  const page = location.hash.slice(2);
  const id = /^c\/(\d+)$/.exec(page)?.[1];
  frame.showPage(page === "models" ? "models" : "chat");
  if (page === "models") {
    models.draw();
    await Promise.all([trying(() => library.refresh()), trying(() => library.refreshPlans())]);
  } else if (id) await open(Number(id));
  else if (!first && (chat.conversation.id !== null || (chat.conversation.root.after.length && !chat.live && !chat.unsaved))) start();
  sidebar.mark(chat.conversation.id);
  showTitle();
}

function start() {
  chat.open(new Conversation(model));
  composer.field.focus();
}

/** @param {number} id */
async function open(id) {
  if (chat.conversation.id === id) return;
  const draft = draftOf(id);
  const stored = draft ? null : await trying(() => store.get(id));
  if (!draft && !stored) return void (location.hash = "#/");
  if (location.hash !== `#/c/${id}`) return;
  chat.open(draft ?? Conversation.from(stored));
  if (library.find(chat.conversation.model)) choose(chat.conversation.model);
  frame.scroll.toEnd();
  if (draft) chat.save();
}

/** @template T @param {() => Promise<T>} action @returns {Promise<T | null>} */
async function trying(action) {
  try {
    return await action();
  } catch (error) {
    if (error instanceof ServerError) frame.complain(error.message);
    return null;
  }
}

chat.addEventListener("changed", () => {
  composer.setBusy(Boolean(chat.live));
  frame.showEmpty(!chat.conversation.root.after.length);
  showTitle();
});
chat.addEventListener("unsaved", () => {
  if (connection.up) frame.complain(`This conversation is not kept on the server: ${chat.saveProblem} The tab keeps it until you close it.`);
});
chat.addEventListener("saved", () => {
  const { id } = chat.conversation;
  if (id !== null && location.hash !== `#/c/${id}` && location.hash !== "#/models") history.replaceState(null, "", `#/c/${id}`);
  sidebar.current = id;
  sidebar.refresh();
  if (!chat.live) library.refresh().catch(() => undefined); // the answer may have loaded its model
});
connection.addEventListener("lost", () => {
  thread.update(false);
  frame.showConnection("away");
  announcer.say("The server is away. The page tries to reach it again.");
});
connection.addEventListener("back", async () => {
  thread.update(true);
  frame.showConnection("back");
  announcer.say("The server is back.");
  if (chat.unsaved) await chat.save();
  await refresh();
});
addEventListener("hashchange", () => route());

const shortcuts = new Shortcuts([
  { key: "k", ctrl: true, name: "Search conversations", action: () => { frame.openSidebar(); sidebar.search.focus(); } },
  { key: "o", ctrl: true, shift: true, name: "New conversation", action: newChat },
  { key: "Escape", name: "Stop the answer", action: () => (chat.live ? chat.stop() : frame.closeSidebar()) },
  { key: "/", name: "Write a message", action: () => composer.field.focus() },
  { key: "n", name: "New conversation", action: newChat },
  { key: "m", name: "Models", action: () => { location.hash = "#/models"; } },
  { key: "v", name: "Vote, or one answer", action: () => composer.toggleVote() },
  { key: "o", name: "How to answer", action: () => composer.optionsButton.click() },
  { key: "e", name: "Edit the last question", action: () => { const view = thread.lastView("user"); if (view instanceof QuestionView && !chat.live) view.edit(); } },
  { key: "r", name: "Regenerate the last answer", action: () => { const view = thread.lastView("assistant"); if (view) actions.regenerate(view.turn); } },
  { key: "c", name: "Copy the last answer", action: () => { const view = thread.lastView("assistant"); if (view instanceof AnswerView) view.element.querySelector("[data-copy]")?.dispatchEvent(new MouseEvent("click")); } },
  { key: "t", name: "Open or close the last thought", action: () => { const view = thread.lastView("assistant"); if (view instanceof AnswerView) view.thought.element.open = !view.thought.element.open; } },
  { key: "?", name: "This list", action: () => shortcuts.explain() },
]);

function newChat() {
  frame.closeSidebar();
  if (location.hash === "#/" || location.hash === "") start();
  else location.hash = "#/";
  composer.field.focus();
}

async function refresh() {
  await Promise.all([
    trying(() => library.refresh()),
    trying(async () => { strategies = (await server.json("GET", "/api/dsr/strategies")).strategies; }),
    sidebar.refresh(),
  ]);
  showModel();
}

library.addEventListener("changed", showModel);
setInterval(() => {
  const wanted = location.hash === "#/models" || library.moving;
  if (wanted && connection.up && document.visibilityState === "visible") library.refresh().catch(() => undefined);
}, MODELS_EVERY);
showTheme(preference("theme", "system"));
document.getElementById("app")?.replaceChildren(frame.element);
const draft = draftOf(null);
chat.open(draft ?? new Conversation(model));
await refresh();
await route(true);
if (draft) chat.save();
if (location.hash !== "#/models" && matchMedia("(hover: hover)").matches) composer.field.focus();
document.documentElement.dataset.ready = "";
