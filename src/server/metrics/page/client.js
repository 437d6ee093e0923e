"use strict";
// Requests to the server: the settings that they have, and the streams that it answers with.

// The fields of a request that have an input, with the value that they begin with.
const fields = [
  {name: "temperature", label: "Temperature", step: 0.1, value: "0.7"},
  {name: "top_p", label: "Top p", step: 0.05},
  {name: "top_k", label: "Top k", step: 1},
  {name: "min_p", label: "Min p", step: 0.01},
  {name: "max_tokens", label: "Most tokens", step: 1},
  {name: "seed", label: "Seed", step: 1},
  {name: "presence_penalty", label: "Presence penalty", step: 0.1},
  {name: "frequency_penalty", label: "Frequency penalty", step: 0.1},
  {name: "repetition_penalty", label: "Repetition penalty", step: 0.05},
  {name: "stop", label: "Stop at", text: true},
];
const tokensOfText = 256;  // of a continued text, where the server's own default is only 16
const inputOf = name => $("field-" + name);

function makeFields() {
  const values = stored(settingsKey) ?? {};
  for (const {name, label, step, value = "", text} of fields) {
    const type = text ? "text" : "number";
    const input = element("input", {id: "field-" + name, type, value: values[name] ?? value, autocomplete: "off"});
    if (step) input.step = step;
    $("fields").append(element("label", {}, label, input));
  }
  $("fields").addEventListener("input", () => {
    store(settingsKey, Object.fromEntries(fields.map(({name}) => [name, inputOf(name).value])));
    noteSettings();
  });
  noteSettings();
}

// Says which settings differ from the server's own, as they may be folded away.
function noteSettings() {
  const notes = $("system").value.trim() && !$("system-field").hidden ? ["system prompt"] : [];
  for (const {name, label} of fields) if (inputOf(name).value) notes.push(`${label.toLowerCase()} ${inputOf(name).value}`);
  say($("settings-note"), notes.join(", "));
}

function settings() {
  const chosen = {};
  for (const {name, label, text} of fields) {
    const input = inputOf(name);
    if (input.validity.badInput) throw new Error(`${label}: expected a number`);
    if (input.value !== "") chosen[name] = text ? input.value : +input.value;
  }
  return chosen;
}

// The conversation before `answer` as the API has it. A question whose answer failed is not asked again.
function turnsBefore(conversation, answer) {
  const turns = conversation.system.trim() ? [{role: "system", content: conversation.system}] : [];
  for (const message of conversation.messages.slice(0, conversation.messages.indexOf(answer))) {
    if (message.error && !message.content) turns.pop();
    else turns.push({role: message.role, content: message.content});
  }
  return turns;
}

// Returns path and body of the request for an answer, or for more of it if it has begun.
function requestFor(conversation, answer) {
  const body = {...settings(), stream: true, stream_options: {include_usage: true, continuous_usage_stats: true}};
  const turns = turnsBefore(conversation, answer);
  if (conversation.mode === "complete")
    return ["v1/completions", {max_tokens: tokensOfText, ...body, prompt: turns.at(-1).content + answer.content}];
  if (answer.content) {
    turns.push({role: "assistant", content: answer.content});
    Object.assign(body, {continue_final_message: true, add_generation_prompt: false});
  }
  return ["v1/chat/completions", {...body, messages: turns}];
}

// Calls take(event) for each event of a stream, which must end with [DONE].
async function readEvents(stream, take) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let left = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) throw new Error("the connection broke before the answer's end");
    left += value;
    for (let end; (end = left.indexOf("\n\n")) >= 0; left = left.slice(end + 2)) {
      if (left.startsWith(":")) continue;  // a comment
      const data = left.slice(0, end).replace(/^data: /, "");
      if (data === "[DONE]") return;
      take(JSON.parse(data));
    }
  }
}

async function messageOf(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered with status ${response.status}`;  // or what is in front of it
  }
}

async function request(path, body, signal, take) {
  const headers = {"Content-Type": "application/json"};
  if ($("key").value) headers.Authorization = "Bearer " + $("key").value;
  const response = await fetch(path, {method: "POST", headers, body: JSON.stringify(body), signal});
  if (response.status === 401) askForKey();
  if (!response.ok) throw new Error(await messageOf(response));
  await readEvents(response.body, take);
}

function askForKey() {
  $("key-field").hidden = $("key-note").hidden = false;
}
