"use strict";
// What happens when: buttons, fields and keys.

function setMode(mode) {
  if (conversation.messages.length) return startConversation(mode);
  conversation.mode = mode;
  showConversation();
}

function showPanel(shown) {
  $("saved").hidden = !shown;
  $("show-saved").setAttribute("aria-expanded", shown);
}

$("ask").addEventListener("submit", event => {
  event.preventDefault();
  const text = $("text").value;
  if (running || !text.trim()) return;
  $("text").value = "";
  ask(text);
});
$("text").addEventListener("keydown", event => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
  const last = conversation.messages.findLast(message => message.role === "user");
  if (event.key === "ArrowUp" && !event.target.value && last && !running) {
    event.preventDefault();
    edit(last);
  }
});
document.addEventListener("keydown", event => {
  if (event.key === "Escape") stop();
  if (!event.altKey || event.ctrlKey || event.metaKey) return;
  const action = {KeyN: () => startConversation(), KeyR: regenerate, KeyM: () => $("text").focus()}[event.code];
  if (!action) return;
  event.preventDefault();
  action();
});
$("stop").addEventListener("click", stop);
$("clear").addEventListener("click", () => startConversation());
$("mode").addEventListener("change", () => setMode($("mode").value));
$("system").addEventListener("input", () => {
  conversation.system = $("system").value;
  noteSettings();
});
$("system").addEventListener("change", () => conversation.messages.length && save(conversation));
$("show-saved").addEventListener("click", () => showPanel($("saved").hidden));
$("delete-all").addEventListener("click", () => forget(storedConversations()));
$("key").addEventListener("change", () => remember("foe.key", $("key").value));
$("load").addEventListener("mousemove", pointAt);
addEventListener("storage", showSaved);  // another tab has stored something
addEventListener("resize", () => live && showLive());
addEventListener("pagehide", () => running && save(conversation));

makeFields();
$("key").value = remembered("foe.key");
showPanel(matchMedia("(min-width: 1200px)").matches);
conversation = storedConversations().find(({id}) => id === remembered("foe.current")) ?? conversation;
showConversation();
drawHistory(Array(120).fill(0));
refresh();
