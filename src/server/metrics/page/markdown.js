"use strict";
// Markdown as models write it. Whatever a model writes becomes text nodes and a few kinds of elements, never markup, and
// links lead only to the web and to mail. Time is about linear in the text's length, and nesting is bounded, as models
// write anything.

const maxDepth = 8;  // of quotes and lists in each other; below that, lines are plain text
const maxOpen = 32;  // marks that wait for their partners

const patterns = {
  fence: /^ {0,3}(`{3,}|~{3,})[ \t]*([^`]*)$/,
  heading: /^ {0,3}(#{1,6})(?:[ \t]([^]*))?$/,
  rule: /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/,
  quote: /^ {0,3}> ?/,
  item: /^( *)([-*+]|\d{1,9}[.)])(?: +|$)/,
  tableRule: /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/,
  indented: /^(?: {4}|\t)/,
};

const isBlank = line => !line.trim();
const indentOf = line => line.length - line.trimStart().length;
const isOrdered = item => item[2].length > 1;

function closesFence(line, fence) {
  const marks = line.trim();
  return marks.length >= fence.length && marks === fence[0].repeat(marks.length);
}

// --- in a line ---

const spans = {
  plain: /(?:[^\\`*_~[\]<h!]|h(?!ttps?:\/\/)|!(?!\[))+/y,
  escaped: /\\([\\`*_~#|<>])/y,
  ticks: /`+/y,
  marks: /\*+|_+|~+/y,
  linkBegin: /!?\[/y,
  // A ] and, if it ends a link, the address behind it, which may have a pair of parentheses, and a title.
  linkEnd: new RegExp(String.raw`\](?:\(\s{0,9}<?([^\s()<>]{1,2000}(?:\([^\s()<>]{0,200}\)[^\s()<>]{0,200})?)>?` +
                      String.raw`(?:\s{1,9}"[^"\n]{0,500}")?\s{0,9}\))?`, "y"),
  addressInBrackets: /<(https?:\/\/[^\s<>]{1,2000})>/y,
  address: /https?:\/\/[^\s<>"`|[\]]{1,2000}/y,
};

// The address of a link, if it leads to the web or to mail.
function address(text) {
  try {
    const url = new URL(text);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

function link(href) {
  return element("a", {href, title: href, target: "_blank", rel: "noopener noreferrer"});
}

// Reads one text: `pieces` is what has been made of it so far, `open` the marks among them that may get a partner.
class Line {
  constructor(text) {
    Object.assign(this, {text, at: 0, pieces: [], open: [], unclosed: new Set()});
  }

  // Goes past what matches here.
  match(pattern) {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (found) this.at += found[0].length;
    return found;
  }

  read() {
    while (this.at < this.text.length) {
      let found;
      if ((found = this.match(spans.plain))) this.pieces.push(found[0]);
      else if ((found = this.match(spans.escaped))) this.pieces.push(found[1]);
      else if ((found = this.match(spans.ticks))) this.code(found[0]);
      else if ((found = this.match(spans.marks))) this.mark(found[0]);
      else if ((found = this.match(spans.linkBegin))) this.opened({mark: "["}, found[0]);
      else if ((found = this.match(spans.linkEnd))) this.linkEnd(found);
      else if ((found = this.match(spans.addressInBrackets))) this.web(found[1]);
      else if ((found = this.match(spans.address))) this.web(this.withoutEnd(found[0]));
      else this.pieces.push(this.text[this.at++]);
    }
    return this.pieces;
  }

  opened(mark, text) {
    if (this.open.length < maxOpen) this.open.push({...mark, index: this.pieces.length});
    this.pieces.push(text);
  }

  // Returns the last mark that `fits`. Those behind it have no partner and stay text.
  partner(fits) {
    const i = this.open.findLastIndex(fits);
    if (i >= 0) this.open.length = i + 1;
    return this.open[i];
  }

  // Puts the pieces from `from` on into `node`.
  wrap(from, node) {
    this.pieces.push(appendAll(node, this.pieces.splice(from)));
  }

  code(ticks) {
    if (!this.unclosed.has(ticks.length)) {
      const run = /`+/g;
      run.lastIndex = this.at;
      for (let end; (end = run.exec(this.text));) {
        if (end[0].length !== ticks.length) continue;
        const inside = this.text.slice(this.at, end.index);
        const padded = inside.startsWith(" ") && inside.endsWith(" ") && inside.trim();
        this.at = run.lastIndex;
        return this.pieces.push(element("code", {}, padded ? inside.slice(1, -1) : inside));
      }
      this.unclosed.add(ticks.length);
    }
    this.pieces.push(ticks);
  }

  // A run of *, _ or ~.
  mark(run) {
    const mark = run[0], before = this.text[this.at - run.length - 1] ?? " ", after = this.text[this.at] ?? " ";
    const inWord = mark === "_" && /[\p{L}\p{N}]/u.test(before) && /[\p{L}\p{N}]/u.test(after);
    const known = !inWord && (mark === "~" ? run.length === 2 : run.length <= 3);
    const begins = known && !/\s/.test(after), ends = known && !/\s/.test(before);
    // CommonMark's rule of three, so that **a*b** is one strong text.
    const three = other => (other.ends || begins) && (other.length + run.length) % 3 === 0 && run.length % 3;
    const fits = other => other.mark === mark && !three(other);
    let left = run.length;
    if (ends) {
      for (let opening; left && (opening = this.partner(fits));) {
        const length = Math.min(2, left, opening.left);
        this.wrap(opening.index + 1, element(mark === "~" ? "del" : length === 2 ? "strong" : "em"));
        left -= length;
        opening.left -= length;
        if (opening.left) { this.pieces[opening.index] = mark.repeat(opening.left); continue; }
        this.pieces.splice(opening.index, 1);
        this.open.pop();
      }
    }
    if (!left) return;
    if (begins) this.opened({mark, left, ends, length: run.length}, mark.repeat(left));
    else this.pieces.push(mark.repeat(left));
  }

  linkEnd([text, target]) {
    const opening = this.partner(other => other.mark === "["), href = target && address(target);
    if (!opening || !href) {
      if (opening) this.open.pop();
      return this.pieces.push(text);
    }
    const node = link(href);
    this.wrap(opening.index + 1, node);
    this.pieces.splice(opening.index, 1);
    this.open = this.open.filter(other => other.mark !== "[");  // no links in links
    for (const inner of node.querySelectorAll("a")) inner.replaceWith(inner.textContent);
  }

  web(text) {
    const href = address(text);
    this.pieces.push(href ? appendAll(link(href), [text]) : text);
  }

  // An address in running text does not have the punctuation behind it.
  withoutEnd(found) {
    let end = found.length;
    while (end && (".,;:!?'*_~}".includes(found[end - 1]) || (found[end - 1] === ")" && !found.includes("(")))) --end;
    this.at -= found.length - end;
    return found.slice(0, end);
  }
}

function appendInline(parent, text) {
  appendAll(parent, new Line(text).read());
  parent.normalize();
  return parent;
}

// --- blocks ---

function kindOf(lines, at) {
  const line = lines[at];
  if (patterns.indented.test(line)) return "code";
  if (patterns.fence.test(line)) return "fence";
  if (patterns.heading.test(line)) return "heading";
  if (patterns.rule.test(line)) return "rule";
  if (patterns.quote.test(line)) return "quote";
  if (patterns.item.test(line)) return "list";
  const next = lines[at + 1] ?? "";
  return line.includes("|") && next.includes("|") && patterns.tableRule.test(next) ? "table" : "text";
}

// Whether the line is of another kind than the paragraph before it. "1999. It was" in its middle begins no list.
function interrupts(lines, at) {
  const kind = kindOf(lines, at), item = patterns.item.exec(lines[at]);
  if (kind === "list") return item[0].length < lines[at].length && (!isOrdered(item) || parseInt(item[2]) === 1);
  return kind !== "text" && kind !== "code";
}

// Where a block ends that begins with line `at`.
const endOf = {
  code(lines, at) {
    let end = at;
    for (let i = at; i < lines.length && (isBlank(lines[i]) || patterns.indented.test(lines[i])); ++i)
      if (!isBlank(lines[i])) end = i + 1;
    return end;
  },
  fence(lines, at) {
    const fence = patterns.fence.exec(lines[at])[1];
    for (let end = at + 1; end < lines.length; ++end) if (closesFence(lines[end], fence)) return end + 1;
    return lines.length;
  },
  heading: (lines, at) => at + 1,
  rule: (lines, at) => at + 1,
  quote(lines, at) {
    while (at < lines.length && patterns.quote.test(lines[at])) ++at;
    return at;
  },
  list(lines, at) {
    const first = patterns.item.exec(lines[at]), indent = first[1].length;
    let end = at + 1;
    for (let i = at + 1; i < lines.length; ++i) {
      if (isBlank(lines[i])) continue;
      const item = patterns.item.exec(lines[i]);
      const same = item && isOrdered(item) === isOrdered(first) && !patterns.rule.test(lines[i]);
      const lazy = end === i && kindOf(lines, i) === "text";
      if (!same && !lazy && indentOf(lines[i]) <= indent) break;
      end = i + 1;
    }
    return end;
  },
  table(lines, at) {
    while (at < lines.length && lines[at].includes("|")) ++at;
    return at;
  },
  text(lines, at) {
    do ++at;
    while (at < lines.length && !isBlank(lines[at]) && !interrupts(lines, at));
    return at;
  },
};

function blocksOf(lines) {
  const blocks = [];
  for (let at = 0; at < lines.length;) {
    if (isBlank(lines[at])) { ++at; continue; }
    const kind = kindOf(lines, at), end = endOf[kind](lines, at);
    blocks.push({kind, lines: lines.slice(at, end)});
    at = end;
  }
  return blocks;
}

function codeBlock(text, language) {
  const copyIt = button("Copy", event => copy(text, event.target), {"aria-label": "Copy the code"});
  return element("figure", {className: "code"},
                 element("figcaption", {}, element("span", {}, language || "code"), copyIt),
                 element("pre", {tabIndex: 0}, element("code", {}, text)));
}

function list(lines, depth) {
  const first = patterns.item.exec(lines[0]), ordered = isOrdered(first);
  const items = [];
  let inside = first[0].length;  // where the text of the items begins
  for (const line of lines) {
    const item = patterns.item.exec(line);
    if (item && item[1].length < inside && isOrdered(item) === ordered) {
      inside = item[0].length;
      items.push([line.slice(inside)]);
    } else {
      items.at(-1).push(line.slice(Math.min(indentOf(line), inside)));
    }
  }
  const node = element(ordered ? "ol" : "ul");
  if (ordered) node.start = parseInt(first[2]);
  return appendAll(node, items.map(item => appendBlocks(element("li"), item, depth + 1)));
}

function table(lines) {
  const cells = line => line.trim().replace(/^\|/, "").replace(/\|$/, "").split(/(?<!\\)\|/);
  const width = cells(lines[0]).length;
  const row = (line, tag) =>
    appendAll(element("tr"), cells(line).slice(0, width).map(cell => appendInline(element(tag), cell.trim())));
  return element("div", {className: "wide", tabIndex: 0, role: "region", "aria-label": "Table"},
                 element("table", {}, element("thead", {}, row(lines[0], "th")),
                         appendAll(element("tbody"), lines.slice(2).map(line => row(line, "td")))));
}

function nodeOf({kind, lines}, depth) {
  switch (kind) {
    case "code": return codeBlock(lines.map(line => line.replace(patterns.indented, "")).join("\n"));
    case "fence": {
      const [, fence, language] = patterns.fence.exec(lines[0]), indent = indentOf(lines[0]);
      const inside = lines.slice(1, lines.length > 1 && closesFence(lines.at(-1), fence) ? -1 : undefined);
      const text = inside.map(line => line.slice(Math.min(indent, indentOf(line)))).join("\n");
      return codeBlock(text, language.trim().split(/\s/)[0]);
    }
    case "heading": {
      const [, marks, text = ""] = patterns.heading.exec(lines[0]);
      const node = element("h" + Math.min(6, marks.length + 2));  // below those of the page
      return appendInline(node, text.replace(/[ \t]#+[ \t]*$/, "").trim());
    }
    case "rule": return element("hr");
    case "quote":
      return appendBlocks(element("blockquote"), lines.map(line => line.replace(patterns.quote, "")), depth + 1);
    case "list": return list(lines, depth);
    case "table": return table(lines);
    default: return appendInline(element("p"), lines.map(line => line.trim()).join("\n"));
  }
}

function appendBlocks(parent, lines, depth) {
  if (depth >= maxDepth) return appendAll(parent, [element("p", {}, lines.join("\n"))]);
  return appendAll(parent, blocksOf(lines).map(block => nodeOf(block, depth)));
}

// Makes `parent` show a text. Blocks that it shows already keep their nodes, and with them focus and selection, while an
// answer grows.
function showMarkdown(parent, text) {
  const shown = parent.shown ?? [];
  const blocks = blocksOf(text.replace(/\r\n?/g, "\n").split("\n"));
  parent.shown = blocks.map((block, i) => {
    const source = block.kind + "\n" + block.lines.join("\n");
    if (shown[i]?.source === source) return shown[i];
    const node = nodeOf(block, 0);
    if (shown[i]) shown[i].node.replaceWith(node);
    else parent.append(node);
    return {source, node};
  });
  for (const {node} of shown.slice(blocks.length)) node.remove();
}
