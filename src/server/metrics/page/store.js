"use strict";
// Conversations and settings that survive a reload, in the browser's local storage. A conversation has a key of its own
// there, so that tabs do not overwrite those of others. A browser may have no storage: then nothing is kept.

const keyOf = id => "foe.conversation." + id;
const settingsKey = "foe.settings";
const maxConversations = 50, maxCharacters = 2e6;  // of all; browsers store about five million

function stored(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}

// Returns whether the value is stored now.
function store(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

function remove(key) {
  try {
    localStorage.removeItem(key);
  } catch {}
}

// What this tab alone remembers, until it is closed.
function remember(key, text) {
  try {
    sessionStorage.setItem(key, text);
  } catch {}
}

function remembered(key) {
  try {
    return sessionStorage.getItem(key) ?? "";
  } catch {
    return "";
  }
}

function isConversation(value) {
  const isMessage = message => ["user", "assistant"].includes(message?.role) && typeof message.content === "string";
  return ["id", "mode", "system"].every(name => typeof value?.[name] === "string") && Array.isArray(value.messages) &&
    value.messages.every(isMessage);
}

// Returns all that are stored, the last changed first, with the number of characters of each.
function storedConversations() {
  const all = [];
  try {
    for (let i = 0; i < localStorage.length; ++i) {
      const key = localStorage.key(i), value = key.startsWith(keyOf("")) ? stored(key) : null;
      if (isConversation(value)) all.push({...value, characters: localStorage.getItem(key).length});
    }
  } catch {}
  return all.sort((a, b) => b.changed - a.changed);
}

// Stores a conversation, and removes the oldest others if they are too many or too long. Returns whether it is stored.
function keep(conversation) {
  conversation.changed = Date.now();
  const length = JSON.stringify(conversation).length;
  const others = storedConversations().filter(other => other.id !== conversation.id);
  let characters = others.reduce((sum, other) => sum + other.characters, length);
  while (others.length && (others.length >= maxConversations || characters > maxCharacters)) {
    const oldest = others.pop();
    characters -= oldest.characters;
    remove(keyOf(oldest.id));
  }
  return characters <= maxCharacters && store(keyOf(conversation.id), conversation);
}

function newConversation(mode, system) {
  const id = Date.now().toString(36) + Math.random().toString(36).slice(2);
  return {id, mode, system, messages: [], changed: Date.now()};
}

function titleOf(conversation) {
  return conversation.messages[0]?.content.trim().replace(/\s+/g, " ").slice(0, 60) || "New conversation";
}
