/** One event of a stream: its data, parsed as JSON. */
export interface StreamEvent {
  type: string;
  sequence_number?: number;
  [field: string]: unknown;
}

/**
 * Splits server-sent events out of text that arrives in pieces of any size. Comments and fields other than `data` are
 * passed over: every event names its type in its data too.
 */
export class EventSplitter {
  private rest = "";
  private data: string[] = [];

  push(piece: string, emit: (event: StreamEvent) => void): void {
    // A carriage return at the end may be half of a line end, so it waits for the next piece.
    const text = this.rest + piece;
    let start = 0;
    for (let at = 0; at < text.length; at++) {
      const sign = text.charCodeAt(at);
      if (sign !== 10 && sign !== 13) continue;
      if (sign === 13 && at + 1 === text.length) break;
      this.line(text.slice(start, at), emit);
      if (sign === 13 && text.charCodeAt(at + 1) === 10) at++;
      start = at + 1;
    }
    this.rest = text.slice(start);
  }

  private line(line: string, emit: (event: StreamEvent) => void): void {
    if (line !== "") {
      if (line.startsWith("data:")) this.data.push(line.slice(line[5] === " " ? 6 : 5));
      return;
    }
    if (this.data.length === 0) return;
    const data = this.data.join("\n");
    this.data = [];
    if (data === "[DONE]") return;
    const event: unknown = JSON.parse(data);
    if (typeof event === "object" && event !== null && "type" in event && typeof event.type === "string") {
      emit(event as StreamEvent);
    }
  }
}
