"use strict";
// The conversation: its messages, what can be done with them, and the answer that is coming.

let conversation = newConversation("chat", "");
let running = null;  // {answer, controller} while an answer comes
const nodes = new WeakMap();  // the element of each message that is shown

// --- messages ---

function statsText({stats, stopped, finish}) {
  const parts = [];
  if (stats) {
    parts.push(several(stats.tokens, "token"));
    if (stats.rate) parts.push(`${number.format(stats.rate)} tokens/s`);
    parts.push("first after " + (stats.first < 1 ? Math.round(1000 * stats.first) + " ms" : number.format(stats.first) + " s"));
  }
  if (stopped) parts.push("stopped");
  if (finish === "length") parts.push("cut at the most tokens");
  return parts.join(" · ");
}

function makeMessage(message) {
  const label = message.role === "user" ? "You" : "Answer";
  const node = element("article", {className: "message " + message.role, "aria-label": label});
  const reasoning = element("details", {className: "reasoning"}, element("summary", {}, "Reasoning"),
                            element("div", {className: "plain"}));
  node.append(reasoning, element("div", {className: "body"}), element("p", {className: "error"}),
              element("div", {className: "actions"}, element("span", {className: "note stats"})));
  nodes.set(message, node);
  update(message);
  return node;
}

// Shows a message as it is now.
function update(message) {
  const node = nodes.get(message), body = node?.querySelector(".body"), error = node?.querySelector(".error");
  if (!node) return;
  if (message.role === "assistant" && conversation.mode === "chat") {
    showMarkdown(body, message.content);
  } else {
    body.classList.add("plain");
    body.textContent = message.content;
  }
  node.querySelector(".reasoning").hidden = !message.reasoning;
  say(node.querySelector(".reasoning .plain"), message.reasoning ?? "");
  error.hidden = !message.error;
  say(error, message.error ?? "");
  node.setAttribute("aria-busy", running?.answer === message);
  say(node.querySelector(".stats"), statsText(message));
}

function updateActions() {
  const last = conversation.messages.at(-1);
  for (const message of conversation.messages) {
    const actions = [button("Copy", event => copy(message.content, event.target)),
                     button("Edit", () => edit(message), {disabled: !!running})];
    if (message.role === "assistant" && message === last && !running) {
      actions.push(button("Regenerate", regenerate, {"aria-keyshortcuts": "Alt+R"}));
      if (message.content && (message.stopped || message.error || message.finish === "length"))
        actions.push(button("Continue", () => generate(message)));
    }
    const row = nodes.get(message).querySelector(".actions");
    row.replaceChildren(appendAll(element("span", {className: "row"}), actions), row.querySelector(".stats"));
  }
  $("send").disabled = !!running;
  $("stop").disabled = !running;
}

function showConversation() {
  $("messages").replaceChildren(...conversation.messages.map(makeMessage));
  $("mode").value = conversation.mode;
  $("system").value = conversation.system;
  $("system-field").hidden = conversation.mode !== "chat";
  remember("foe.current", conversation.id);
  noteSettings();
  updateActions();
  toEnd();
  showSaved();
}

const isAtEnd = () => $("messages").scrollHeight - $("messages").scrollTop - $("messages").clientHeight < 40;
function toEnd() {
  $("messages").scrollTop = $("messages").scrollHeight;
}

// --- answers ---

// Takes the events of one answer and counts its tokens. The server says with each event how many have come.
class Incoming {
  constructor(answer) {
    Object.assign(this, {answer, begun: performance.now(), first: null, painting: false, kept: performance.now()});
  }

  take(event) {
    if (event.error) throw new Error(event.error.message);
    const {answer} = this;
    for (const {delta, text, finish_reason: finish} of event.choices) {
      answer.content += text ?? delta.content ?? "";
      if (delta?.reasoning_content) answer.reasoning = (answer.reasoning ?? "") + delta.reasoning_content;
      if (finish) answer.finish = finish;
    }
    this.count(event.usage?.completion_tokens ?? 0);
    this.paint();
  }

  count(tokens) {
    const now = performance.now();
    if (!tokens || tokens === this.first?.tokens) return;
    this.first ??= {tokens, at: now};
    if (tokens === this.answer.stats?.tokens) return;  // the last event says the number once more
    const seconds = (now - this.first.at) / 1000;
    const rate = seconds && (tokens - this.first.tokens) / seconds;
    this.answer.stats = {tokens, rate, first: (this.first.at - this.begun) / 1000};
  }

  // Once in a frame, as tokens may come faster.
  paint() {
    if (this.painting) return;
    this.painting = true;
    requestAnimationFrame(() => {
      this.painting = false;
      const follow = isAtEnd();
      update(this.answer);
      if (follow) toEnd();
    });
  }
}

async function generate(answer) {
  if (running) return;
  const owner = conversation, incoming = new Incoming(answer);
  for (const name of ["error", "stopped", "finish", "stats"]) delete answer[name];
  running = {answer, controller: new AbortController()};
  answer.stopped = true;  // if the page is left while the answer comes
  updateActions();
  const saving = setInterval(() => owner.deleted || store(keyOf(owner.id), owner), 1000);
  say($("announce"), "Answering");
  try {
    const [path, body] = requestFor(owner, answer);
    save(owner);
    await request(path, body, running.controller.signal, event => incoming.take(event));
    delete answer.stopped;
  } catch (error) {
    if (error.name !== "AbortError") {
      delete answer.stopped;
      answer.error = error.message;
    }
  }
  clearInterval(saving);
  running = null;
  save(owner);
  const follow = isAtEnd();
  if (owner === conversation) update(answer);
  updateActions();
  if (follow) toEnd();
  say($("announce"), answer.error ?? (answer.stopped ? "Stopped" : "The answer is complete"));
}

function ask(text) {
  const answer = {role: "assistant", content: ""};
  conversation.messages.push({role: "user", content: text}, answer);
  showConversation();
  generate(answer);
}

function regenerate() {
  const answer = conversation.messages.at(-1);
  if (running || answer?.role !== "assistant") return;
  answer.content = "";
  delete answer.reasoning;
  update(answer);
  generate(answer);
  $("text").focus();
}

function stop() {
  if (!running) return;
  running.controller.abort();
  $("text").focus();
}

// Lets a message be changed in its place. A changed question drops what came after it and is asked again; a changed
// answer stays where it is.
function edit(message) {
  if (running) return;
  const node = nodes.get(message), body = node.querySelector(".body");
  const asked = message.role === "user", label = asked ? "Edit your message" : "Edit the answer";
  const rows = Math.min(12, message.content.split("\n").length + 1);
  const text = element("textarea", {value: message.content, rows, "aria-label": label});
  const leave = () => {
    const place = conversation.messages.indexOf(message);
    showConversation();
    $("messages").children[place]?.querySelectorAll(".actions button")[1]?.focus();
  };
  const done = () => {
    if (running) return;
    message.content = text.value;
    if (!asked) {
      for (const name of ["error", "stopped", "finish", "stats"]) delete message[name];
      save(conversation);
      return leave();
    }
    if (!message.content.trim()) return;
    conversation.messages.length = conversation.messages.indexOf(message);
    ask(message.content);
    $("text").focus();
  };
  text.addEventListener("keydown", event => {
    if (event.key === "Escape") { event.stopPropagation(); leave(); }
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && asked) { event.preventDefault(); done(); }
  });
  const later = conversation.messages.length - conversation.messages.indexOf(message) - 1;
  const finish = button(asked ? "Send" : "Save", done, {className: "small first"});
  const note = element("span", {className: "note"}, asked && later > 1 ? "drops the messages below" : "");
  body.replaceChildren(text, element("div", {className: "row"}, finish, button("Cancel", leave), note));
  text.focus();
}

// --- saved conversations ---

function save(what) {
  if (what.deleted) return;
  say($("kept"), keep(what) ? "Kept in this browser only: the last 50."
                            : "This conversation cannot be kept: the browser's storage is full or turned off.");
  showSaved();
}

function showSaved() {
  const items = storedConversations().map(saved => {
    const title = titleOf(saved), open = button(title, () => openConversation(saved.id), {className: "title"});
    if (saved.id === conversation.id) open.setAttribute("aria-current", "true");
    const forgetIt = button("✕", () => forget([saved]), {"aria-label": "Delete " + title, title: "Delete"});
    return element("li", {}, open, forgetIt);
  });
  const focused = [...$("conversations").querySelectorAll("button")].indexOf(document.activeElement);
  $("conversations").replaceChildren(...items);
  if (focused >= 0) $("conversations").querySelectorAll("button")[focused]?.focus();
  $("delete-all").disabled = !items.length;
}

function leaveConversation() {
  if (!running) return;
  running.controller.abort();
  nodes.delete(running.answer);
  save(conversation);
}

function openConversation(id) {
  const found = stored(keyOf(id));
  if (id === conversation.id || !isConversation(found)) return showSaved();
  leaveConversation();
  conversation = found;
  showConversation();
}

function startConversation(mode = conversation.mode) {
  leaveConversation();
  conversation = newConversation(mode, conversation.system);
  showConversation();
  $("text").focus();
}

function forget(conversations) {
  const what = conversations.length === 1 ? `"${titleOf(conversations[0])}"` : `${conversations.length} conversations`;
  if (!confirm(`Delete ${what}?`)) return;
  for (const {id} of conversations) remove(keyOf(id));
  if (!conversations.some(({id}) => id === conversation.id)) return showSaved();
  conversation.deleted = true;
  startConversation();
}
