import type { MarkedToken, Token, Tokens } from "marked";
import { codeBlock } from "./code";
import { element } from "./dom";
import { decodeEntities } from "./entities";
import { formula } from "./formula";
import type { MathToken } from "./lexer";
import { safeAddress } from "./links";

type Known = MarkedToken | MathToken;

/** The element of one top-level block, or null for what shows nothing. */
export function renderBlock(token: Token): HTMLElement | null {
  const known = token as Known;
  switch (known.type) {
    case "space":
    case "def":
      return null;
    case "heading": {
      // The page and the message have headings of their own, so those of an answer begin at the third level.
      const level = Math.min(known.depth + 2, 6) as 3 | 4 | 5 | 6;
      return element(`h${level}`, `heading-${known.depth}`, ...inline(known.tokens));
    }
    case "paragraph":
      return element("p", "", ...inline(known.tokens));
    case "code":
      return codeBlock(known.text, known.lang ?? "");
    case "blockquote":
      return element("blockquote", "", ...blocks(known.tokens));
    case "list":
      return list(known);
    case "table":
      return table(known);
    case "hr":
      return element("hr");
    case "math":
      return known.open ? element("pre", "maths-open", known.source) : formula(known.source, true);
    case "html":
      return element("p", "", known.raw);
    default:
      return element("p", "", ...inline([token]));
  }
}

export function blocks(tokens: readonly Token[]): Node[] {
  return tokens.flatMap((token) => renderBlock(token) ?? []);
}

export function listItem(item: Tokens.ListItem): HTMLLIElement {
  const made = element("li", item.task ? "task" : "");
  for (const token of item.tokens) {
    const known = token as Known;
    // In a tight list the text stands in the item itself.
    if (known.type === "text") made.append(...inline("tokens" in known && known.tokens ? known.tokens : [known]));
    else if (known.type === "checkbox") made.append(checkbox(known.checked));
    else if (known.type === "paragraph" && !item.loose) made.append(...inline(known.tokens));
    else made.append(...blocks([token]));
  }
  return made;
}

function checkbox(checked: boolean): HTMLElement {
  const box = element("input");
  box.type = "checkbox";
  box.checked = checked;
  box.disabled = true;
  box.setAttribute("aria-label", checked ? "done" : "to do");
  return box;
}

function list(token: Tokens.List): HTMLElement {
  const items = token.items.map(listItem);
  if (!token.ordered) return element("ul", "", ...items);
  const ordered = element("ol", "", ...items);
  if (typeof token.start === "number" && token.start !== 1) ordered.start = token.start;
  return ordered;
}

function table(token: Tokens.Table): HTMLElement {
  const cell = (tag: "th" | "td", content: Tokens.TableCell) => {
    const made = element(tag, content.align === null ? "" : `align-${content.align}`, ...inline(content.tokens));
    if (tag === "th") (made as HTMLTableCellElement).scope = "col";
    return made;
  };
  const head = element("tr", "", ...token.header.map((content) => cell("th", content)));
  const rows = token.rows.map((row) => element("tr", "", ...row.map((content) => cell("td", content))));
  const scroll = element("div", "table", element("table", "", element("thead", "", head), element("tbody", "", ...rows)));
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", "Table");
  return scroll;
}

function inline(tokens: readonly Token[]): (Node | string)[] {
  return tokens.map(inlineOne);
}

function inlineOne(token: Token): Node | string {
  const known = token as Known;
  switch (known.type) {
    case "text":
      if ("tokens" in known && known.tokens) return element("span", "", ...inline(known.tokens));
      return decodeEntities(known.text);
    case "escape":
      return known.text;
    case "strong":
      return element("strong", "", ...inline(known.tokens));
    case "em":
      return element("em", "", ...inline(known.tokens));
    case "del":
      return element("del", "", ...inline(known.tokens));
    case "codespan":
      return element("code", "", known.text);
    case "br":
      return element("br");
    case "link":
      return link(known);
    case "image":
      return image(known);
    case "math":
      return formula(known.source, known.display);
    case "checkbox":
      return checkbox(known.checked);
    default:
      return token.raw;
  }
}

function link(token: Tokens.Link): Node | string {
  const address = safeAddress(token.href);
  if (address === null) return element("span", "", ...inline(token.tokens), ` (${token.href})`);
  const made = element("a", "", ...inline(token.tokens));
  made.href = address;
  made.target = "_blank";
  made.rel = "noopener noreferrer nofollow";
  made.title = address;
  return made;
}

/** Images of an answer are never loaded: the address alone would tell another host what was asked. */
function image(token: Tokens.Image): HTMLElement {
  return element("span", "image", `[Image: ${token.text === "" ? "no description" : token.text}, ${token.href}]`);
}
