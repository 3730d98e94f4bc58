import type { Token, Tokens } from "marked";
import { colourCode, growCode } from "./code";
import { lex, plain } from "./lexer";
import { listItem, renderBlock } from "./render";

/** One block that may still change, with what it was made from. */
interface OpenBlock {
  token: Token;
  node: HTMLElement | null;
}

/** So many characters of the next block show that the one before it is over. */
const SIGNS_OF_A_NEW_BLOCK = 8;

/** An update that takes longer than this, in milliseconds, is followed by a pause in which the page can do other things. */
const DEAR = 12;

/**
 * Shows a text that grows at its end. Blocks that are over are never touched again; only the last one is parsed anew,
 * and of a list only its last item.
 */
export class MarkdownView {
  private text = "";
  /** Where the first block begins that may still change. */
  private stable = 0;
  private open: OpenBlock[] = [];
  private finished = false;
  private nextUpdate = 0;
  private later: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly root: HTMLElement) {}

  /** `whole` is false for a finished text whose end is missing; maths that was never closed is then shown as it is. */
  update(given: string, finished: boolean, whole = finished): void {
    clearTimeout(this.later);
    const started = performance.now();
    if (!finished && started < this.nextUpdate) {
      this.later = setTimeout(() => this.update(given, false), this.nextUpdate - started);
      return;
    }
    const text = given.includes("\r") ? given.replace(/\r\n?/g, "\n") : given;
    if (text === this.text && finished === this.finished) return;
    if (this.finished || !text.startsWith(this.text)) this.clear();
    // A definition may follow the text that refers to it, so at the end all is read once more.
    if (finished && this.stable > 0 && /^ {0,3}\[[^\]]+\]:/m.test(text)) this.clear();
    this.text = text;
    this.finished = finished;
    const tail = text.slice(this.stable);
    let tokens: Token[];
    try {
      tokens = lex(finished ? tail : withoutHalfFence(tail), !whole);
      this.show(tokens);
    } catch {
      this.clear();
      this.text = text;
      this.finished = finished;
      tokens = plain(text);
      this.show(tokens);
    }
    if (finished) this.close(this.open.length);
    else this.closeWhatIsOver(tokens);
    const cost = performance.now() - started;
    this.nextUpdate = cost > DEAR ? performance.now() + 2 * cost : 0;
  }

  private clear(): void {
    this.root.replaceChildren();
    this.text = "";
    this.stable = 0;
    this.open = [];
    this.finished = false;
  }

  private show(tokens: readonly Token[]): void {
    const next: OpenBlock[] = [];
    for (const [index, token] of tokens.entries()) {
      const old = this.open[index];
      if (old === undefined) {
        const node = renderBlock(token);
        if (node !== null) this.root.append(node);
        next.push({ token, node });
      } else {
        next.push({ token, node: this.renew(old, token) });
      }
    }
    for (const gone of this.open.slice(tokens.length)) gone.node?.remove();
    this.open = next;
  }

  private renew(old: OpenBlock, token: Token): HTMLElement | null {
    const { node } = old;
    if (node !== null && token.type === old.token.type) {
      if (token.raw === old.token.raw) return node;
      if (token.type === "code" && sameLanguage(old.token, token)) {
        growCode(node, (token as Tokens.Code).text);
        return node;
      }
      if (token.type === "list" && growList(node, old.token as Tokens.List, token as Tokens.List)) return node;
    }
    const made = renderBlock(token);
    if (node === null) {
      if (made !== null) this.insert(made, old);
    } else if (made === null) {
      node.remove();
    } else {
      node.replaceWith(made);
    }
    return made;
  }

  /** Puts the node of a block that showed nothing before in front of the next one that does. */
  private insert(node: HTMLElement, block: OpenBlock): void {
    const later = this.open.slice(this.open.indexOf(block) + 1).find((entry) => entry.node !== null);
    this.root.insertBefore(node, later?.node ?? null);
  }

  private closeWhatIsOver(tokens: readonly Token[]): void {
    let last = tokens.length - 1;
    while (last >= 0 && tokens[last]!.type === "space") last--;
    if (last <= 0) return;
    const raw = tokens[last]!.raw.trimStart();
    if (raw.length >= SIGNS_OF_A_NEW_BLOCK || raw.includes("\n")) this.close(last);
  }

  private close(blocks: number): void {
    const over = this.open.slice(0, blocks);
    for (const { token, node } of over) {
      this.stable += token.raw.length;
      if (node === null) continue;
      if (node.matches("figure.code")) colourCode(node);
      else for (const figure of node.querySelectorAll<HTMLElement>("figure.code")) colourCode(figure);
    }
    this.open = this.open.slice(blocks);
  }
}

function sameLanguage(a: Token, b: Token): boolean {
  return (a as Tokens.Code).lang === (b as Tokens.Code).lang;
}

/** Changes a list item by item. False if the list as a whole has changed. */
function growList(node: HTMLElement, old: Tokens.List, list: Tokens.List): boolean {
  if (old.ordered !== list.ordered || old.start !== list.start || list.items.length < old.items.length) return false;
  for (const [index, item] of list.items.entries()) {
    const before = old.items[index];
    if (before !== undefined && before.raw === item.raw && before.loose === item.loose) continue;
    const made = listItem(item);
    const place = node.children[index];
    if (place === undefined) node.append(made);
    else place.replaceWith(made);
  }
  return true;
}

/** The first one or two signs of a code fence are not shown as text while the rest of it is on its way. */
function withoutHalfFence(text: string): string {
  return text.replace(/(^|\n) {0,3}(?:`{1,2}|~{1,2})$/, "$1");
}
