"use strict";
// What all parts of the page use. The build joins them into one page, in the order of page.html.

const $ = id => document.getElementById(id);
const number = new Intl.NumberFormat("en", {maximumFractionDigits: 1});

function bytes(n) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (n < 1000) return number.format(n) + " " + unit;
    n /= 1000;
  }
  return number.format(n) + " TB";
}

const several = (n, what) => `${number.format(n)} ${what}${n === 1 ? "" : "s"}`;

// Makes an element. Children that are strings become text. One at a time, as calls have a largest number of arguments.
function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  return appendAll(node, children);
}

function appendAll(node, children) {
  for (const child of children) node.append(child);
  return node;
}

function button(label, onclick, properties = {}) {
  return element("button", {type: "button", className: "small", onclick, ...properties}, label);
}

// Sets a text, if it is another one: screen readers read it out again when it is set.
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

async function copy(text, from) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // a page that came without TLS from another machine has no clipboard
    const area = element("textarea", {value: text});
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    from.focus();
  }
  const label = from.dataset.label ??= from.textContent;
  from.textContent = "Copied";
  say($("announce"), "Copied");
  setTimeout(() => from.textContent = label, 1500);
}
