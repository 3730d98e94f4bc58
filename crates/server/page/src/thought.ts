/** So many characters of a running thought are shown as a preview of its end. */
const PREVIEW_CHARS = 1500;
/** A paragraph is broken off after so many characters, so that the browser lays out small pieces. */
const MAX_PARAGRAPH = 2000;

/**
 * Shows a thought as plain paragraphs that only ever grow. Paragraphs outside the window cost nothing: the style sheet
 * gives them `content-visibility: auto`.
 */
export class ThoughtView {
  private shown = "";
  private from = 0;
  private last: Text | null = null;

  constructor(private readonly root: HTMLElement) {}

  /** All of the text. */
  update(text: string): void {
    if (this.from !== 0 || !text.startsWith(this.shown)) this.clear(0);
    this.grow(text);
  }

  /** The end of the text alone. */
  preview(text: string): void {
    const visible = text.length - this.from;
    if (this.shown === "" || visible > 2 * PREVIEW_CHARS || !text.startsWith(this.shown, this.from)) {
      const near = Math.max(0, text.length - PREVIEW_CHARS);
      const line = near === 0 ? 0 : text.indexOf("\n", near);
      this.clear(line < 0 ? near : line);
    }
    this.grow(text.slice(this.from));
  }

  clear(from = 0): void {
    this.root.replaceChildren();
    this.shown = "";
    this.last = null;
    this.from = from;
  }

  private grow(text: string): void {
    let rest = text.slice(this.shown.length);
    this.shown = text;
    while (rest !== "") {
      const room = MAX_PARAGRAPH - (this.last?.data.length ?? 0);
      const end = rest.indexOf("\n");
      const piece = end < 0 ? rest : rest.slice(0, end);
      if (piece !== "") this.append(piece, room);
      if (end < 0) return;
      // Every line is a paragraph of its own; empty lines only separate.
      this.last = null;
      rest = rest.slice(end + 1);
    }
  }

  private append(piece: string, room: number): void {
    if (this.last !== null && room > 0) {
      this.last.appendData(piece);
      return;
    }
    this.last = document.createTextNode(piece);
    const paragraph = document.createElement("p");
    paragraph.append(this.last);
    this.root.append(paragraph);
  }
}
