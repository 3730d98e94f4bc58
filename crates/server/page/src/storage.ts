import type { Conversation, Message } from "./model";

/** Where conversations are kept between visits. */
export interface Store {
  conversations(): Promise<Conversation[]>;
  messages(conversation: string): Promise<Message[]>;
  /** Adds a conversation with its messages, all or nothing. */
  add(conversation: Conversation, messages: readonly Message[]): Promise<void>;
  /** Changes the named fields alone, so that two tabs that change different ones both keep their change. */
  patch(id: string, fields: Partial<Omit<Conversation, "id">>): Promise<void>;
  /** Keeps the newer of the stored and the given revision. False if the conversation is gone. */
  put(message: Message): Promise<boolean>;
  remove(conversation: string): Promise<void>;
}

const CONVERSATIONS = "conversations";
const MESSAGES = "messages";

function result<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

class BrowserStore implements Store {
  constructor(private readonly database: IDBDatabase) {}

  conversations(): Promise<Conversation[]> {
    return result(this.database.transaction(CONVERSATIONS).objectStore(CONVERSATIONS).getAll());
  }

  messages(conversation: string): Promise<Message[]> {
    const store = this.database.transaction(MESSAGES).objectStore(MESSAGES);
    return result(store.index("conversation").getAll(conversation));
  }

  private async write<T>(work: (conversations: IDBObjectStore, messages: IDBObjectStore) => Promise<T>): Promise<T> {
    const transaction = this.database.transaction([CONVERSATIONS, MESSAGES], "readwrite");
    const finished = new Promise<void>((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error);
    });
    finished.catch(() => undefined);
    const value = await work(transaction.objectStore(CONVERSATIONS), transaction.objectStore(MESSAGES));
    await finished;
    return value;
  }

  add(conversation: Conversation, messages: readonly Message[]): Promise<void> {
    return this.write(async (conversations, store) => {
      conversations.add(conversation);
      for (const message of messages) store.add(message);
    });
  }

  patch(id: string, fields: Partial<Omit<Conversation, "id">>): Promise<void> {
    return this.write(async (conversations) => {
      const stored = (await result(conversations.get(id))) as Conversation | undefined;
      if (stored !== undefined) conversations.put({ ...stored, ...fields });
    });
  }

  put(message: Message): Promise<boolean> {
    return this.write(async (conversations, messages) => {
      if ((await result(conversations.count(message.conversation))) === 0) return false;
      const stored = (await result(messages.get(message.id))) as Message | undefined;
      if (stored === undefined || stored.revision < message.revision) messages.put(message);
      return true;
    });
  }

  remove(conversation: string): Promise<void> {
    return this.write(async (conversations, messages) => {
      conversations.delete(conversation);
      for (const key of await result(messages.index("conversation").getAllKeys(conversation))) messages.delete(key);
    });
  }
}

/** Used where the browser forbids storage: all is gone with the page. */
class MemoryStore implements Store {
  private readonly all = new Map<string, { conversation: Conversation; messages: Map<string, Message> }>();

  async conversations(): Promise<Conversation[]> {
    return [...this.all.values()].map((entry) => entry.conversation);
  }

  async messages(conversation: string): Promise<Message[]> {
    return [...(this.all.get(conversation)?.messages.values() ?? [])];
  }

  async add(conversation: Conversation, messages: readonly Message[]): Promise<void> {
    this.all.set(conversation.id, { conversation, messages: new Map(messages.map((m) => [m.id, m])) });
  }

  async patch(id: string, fields: Partial<Omit<Conversation, "id">>): Promise<void> {
    const entry = this.all.get(id);
    if (entry !== undefined) entry.conversation = { ...entry.conversation, ...fields };
  }

  async put(message: Message): Promise<boolean> {
    const messages = this.all.get(message.conversation)?.messages;
    if (messages === undefined) return false;
    if ((messages.get(message.id)?.revision ?? -1) < message.revision) messages.set(message.id, message);
    return true;
  }

  async remove(conversation: string): Promise<void> {
    this.all.delete(conversation);
  }
}

export async function openStore(): Promise<{ store: Store; lasting: boolean }> {
  try {
    const request = indexedDB.open("minke", 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(CONVERSATIONS, { keyPath: "id" });
      request.result.createObjectStore(MESSAGES, { keyPath: "id" }).createIndex("conversation", "conversation");
    };
    return { store: new BrowserStore(await result(request)), lasting: true };
  } catch {
    return { store: new MemoryStore(), lasting: false };
  }
}
