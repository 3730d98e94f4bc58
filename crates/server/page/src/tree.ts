import type { Message } from "./model";

export type Messages = ReadonlyMap<string, Message>;

/** From the first message to `leaf`. */
export function path(messages: Messages, leaf: string | null): Message[] {
  const found: Message[] = [];
  let next = leaf === null ? undefined : messages.get(leaf);
  while (next !== undefined && found.length <= messages.size) {
    found.push(next);
    next = next.parent === null ? undefined : messages.get(next.parent);
  }
  return found.reverse();
}

/** Parents to children, oldest first. Made once per change so that counting siblings stays cheap. */
export function childrenByParent(messages: Messages): Map<string | null, Message[]> {
  const children = new Map<string | null, Message[]>();
  for (const message of messages.values()) {
    const list = children.get(message.parent);
    if (list === undefined) children.set(message.parent, [message]);
    else list.push(message);
  }
  for (const list of children.values()) {
    list.sort((a, b) => a.created - b.created || (a.id < b.id ? -1 : 1));
  }
  return children;
}

/** The end of the branch that was written last below `start`. */
export function newestLeaf(children: ReadonlyMap<string | null, Message[]>, start: string | null): string | null {
  let leaf = start;
  for (;;) {
    const last = children.get(leaf)?.at(-1);
    if (last === undefined) return leaf;
    leaf = last.id;
  }
}
