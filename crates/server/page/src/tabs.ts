import { newId } from "./ids";

/** What tabs of this page tell each other. The contents are in storage; only names are sent. */
export type Note =
  | { kind: "conversation"; conversation: string }
  | { kind: "message"; conversation: string; message: string }
  | { kind: "removed"; conversation: string }
  | { kind: "who_reads"; message: string; asked_by: string }
  | { kind: "i_read"; message: string; asked_by: string };

/** How long a tab waits for another to say that it reads an answer already. */
const ANSWER_MS = 400;

export class Tabs {
  private readonly channel = new BroadcastChannel("minke");
  private readonly self = newId();
  private readonly waiting = new Map<string, () => void>();

  constructor(
    onNote: (note: Note) => void,
    private readonly isRead: (message: string) => boolean,
  ) {
    this.channel.onmessage = (event: MessageEvent<Note>) => {
      const note = event.data;
      if (note.kind === "who_reads") {
        if (this.isRead(note.message)) this.tell({ kind: "i_read", message: note.message, asked_by: note.asked_by });
      } else if (note.kind === "i_read") {
        if (note.asked_by === this.self) this.waiting.get(note.message)?.();
      } else {
        onNote(note);
      }
    };
  }

  tell(note: Note): void {
    this.channel.postMessage(note);
  }

  /** Whether another tab is reading the stream of this message. */
  readElsewhere(message: string): Promise<boolean> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.waiting.delete(message);
        resolve(false);
      }, ANSWER_MS);
      this.waiting.set(message, () => {
        clearTimeout(timer);
        this.waiting.delete(message);
        resolve(true);
      });
      this.tell({ kind: "who_reads", message, asked_by: this.self });
    });
  }
}
