import { Refused, describe, listModels, requestBody } from "./api";
import { cleanTitle, titleOf } from "./format";
import { Generation, type Host } from "./generation";
import { newId } from "./ids";
import { apiKey, setApiKey } from "./key";
import type { Conversation, Message, Model, Settings } from "./model";
import { openStore, type Store } from "./storage";
import { Tabs, type Note } from "./tabs";
import { BadFile, MAX_FILE_BYTES, exportText, importSettings, importText, type Exported } from "./transfer";
import { childrenByParent, newestLeaf, path } from "./tree";

const SETTINGS_NAME = "minke-settings";
const MODEL_NAME = "minke-model";
/** A stream that another tab reads writes to storage once a second; after this long without a change it is asked. */
const WATCH_MS = 3000;

export interface Hit {
  conversation: Conversation;
  before: string;
  match: string;
  after: string;
}

/** The state of the page and what can be done to it. Views read it and are told of changes. */
export class App {
  conversations: Conversation[] = [];
  /** The conversation that is shown; null for one that has no message yet. */
  current: Conversation | null = null;
  messages = new Map<string, Message>();
  children = new Map<string | null, Message[]>();
  models: Model[] = [];
  model: string | null = readLasting(MODEL_NAME);
  generations = new Map<string, Generation>();
  /** Settings of a conversation that has no message yet. */
  draftSettings: Settings = readDraftSettings();
  keyWanted = false;
  keyRefused = false;
  /** One sentence about something other than an answer. */
  notice: string | null = null;
  /** The list of models could not be read. */
  unreachable: string | null = null;
  /** Text for screen readers, read out once. */
  announcement = "";
  lasting = true;
  ready = false;

  private store!: Store;
  private readonly listeners = new Set<() => void>();
  private readonly tabs = new Tabs(
    (note) => void this.takeNote(note),
    (message) => this.generations.has(message),
  );
  private keyAnswers: ((given: boolean) => void)[] = [];
  private queued = false;
  /** Changes on their way to storage, which a reading of the list would not contain. */
  private patching = 0;
  private watchers = new Map<string, ReturnType<typeof setTimeout>>();

  listen(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  changed(): void {
    if (this.queued) return;
    this.queued = true;
    queueMicrotask(() => {
      this.queued = false;
      for (const listener of this.listeners) listener();
    });
  }

  async start(): Promise<void> {
    const opened = await openStore();
    this.store = opened.store;
    this.lasting = opened.lasting;
    await this.reloadList();
    await this.followAddress();
    this.ready = true;
    addEventListener("hashchange", () => void this.followAddress());
    addEventListener("unhandledrejection", (event) => {
      this.notice = `The browser refused to store a change: ${String(event.reason)}`;
      this.changed();
    });
    addEventListener("pagehide", () => {
      for (const generation of this.generations.values()) generation.save();
    });
    this.changed();
    await this.loadModels();
  }

  // Models and the key

  async loadModels(): Promise<void> {
    for (;;) {
      try {
        this.models = await listModels();
        this.unreachable = null;
        if (!this.models.some((model) => model.id === this.model)) this.model = this.models[0]?.id ?? null;
        this.changed();
        return;
      } catch (error) {
        if (error instanceof Refused && error.status === 401 && (await this.askKey())) continue;
        this.unreachable = describe(error, "").sentence;
        this.changed();
        return;
      }
    }
  }

  chooseModel(id: string): void {
    this.model = id;
    keepLasting(MODEL_NAME, id);
    this.changed();
  }

  modelInUse(): Model | null {
    return this.models.find((model) => model.id === this.model) ?? null;
  }

  askKey(): Promise<boolean> {
    this.keyRefused = apiKey() !== null;
    this.keyWanted = true;
    this.changed();
    return new Promise((resolve) => this.keyAnswers.push(resolve));
  }

  answerKey(key: string | null, remember: boolean): void {
    if (key !== null) setApiKey(key, remember);
    this.keyWanted = false;
    const answers = this.keyAnswers;
    this.keyAnswers = [];
    for (const answer of answers) answer(key !== null);
    this.changed();
  }

  // The list of conversations

  private async reloadList(): Promise<void> {
    const list = await this.store.conversations();
    list.sort((a, b) => b.updated - a.updated);
    this.conversations = list;
    if (this.current !== null && this.patching === 0) {
      const fresh = list.find((conversation) => conversation.id === this.current?.id);
      // Which branch is shown is this tab's own affair once it is open.
      if (fresh !== undefined) this.current = { ...fresh, leaf: this.current.leaf };
    }
    this.changed();
  }

  async rename(id: string, title: string): Promise<void> {
    const clean = cleanTitle(title);
    if (clean === "") return;
    await this.patch(id, { title: clean, named: true });
  }

  async remove(id: string): Promise<void> {
    for (const generation of [...this.generations.values()]) {
      if (generation.message.conversation === id) generation.stop();
    }
    await this.store.remove(id);
    this.tabs.tell({ kind: "removed", conversation: id });
    await this.forget(id);
  }

  private async forget(id: string): Promise<void> {
    for (const generation of [...this.generations.values()]) {
      if (generation.message.conversation === id) generation.drop();
    }
    await this.reloadList();
    if (this.current?.id === id) location.hash = "#/";
  }

  private async patch(id: string, fields: Partial<Omit<Conversation, "id">>): Promise<void> {
    if (this.current?.id === id) this.current = { ...this.current, ...fields };
    this.patching++;
    await this.store.patch(id, fields).finally(() => this.patching--);
    this.tabs.tell({ kind: "conversation", conversation: id });
    await this.reloadList();
  }

  /** Conversations whose title or any text contains all words of `query`, newest first. */
  async search(query: string): Promise<Hit[]> {
    const words = query.toLowerCase().split(/\s+/).filter((word) => word !== "");
    const hits: Hit[] = [];
    if (words.length === 0) return hits;
    for (const conversation of this.conversations) {
      const texts = [conversation.title];
      for (const message of await this.store.messages(conversation.id)) texts.push(message.text, message.thought);
      const lower = texts.map((text) => text.toLowerCase());
      if (!words.every((word) => lower.some((text) => text.includes(word)))) continue;
      hits.push({ conversation, ...excerpt(texts, lower, words[0]!) });
    }
    return hits;
  }

  // The conversation that is shown

  private async followAddress(): Promise<void> {
    const id = /^#\/c\/([A-Za-z0-9_-]+)$/.exec(location.hash)?.[1];
    if (id === undefined) {
      this.show(null, []);
      return;
    }
    if (this.current?.id === id) return;
    const conversation = this.conversations.find((entry) => entry.id === id);
    if (conversation === undefined) {
      this.notice = "This conversation is not in this browser.";
      location.hash = "#/";
      return;
    }
    const messages = await this.store.messages(id);
    // The reader may have gone on meanwhile.
    if (location.hash !== `#/c/${id}`) return;
    this.show(conversation, messages);
    this.pickUpStreams();
  }

  private show(conversation: Conversation | null, messages: readonly Message[]): void {
    this.current = conversation;
    this.messages = new Map(messages.map((message) => [message.id, message]));
    for (const generation of this.generations.values()) {
      if (generation.message.conversation === conversation?.id) {
        this.messages.set(generation.message.id, generation.message);
      }
    }
    this.children = childrenByParent(this.messages);
    if (conversation !== null && (conversation.leaf === null || !this.messages.has(conversation.leaf))) {
      this.current = { ...conversation, leaf: newestLeaf(this.children, null) };
    }
    this.announcement = "";
    this.changed();
  }

  /** The messages of the branch that is shown. */
  shown(): Message[] {
    return path(this.messages, this.current?.leaf ?? null);
  }

  siblings(message: Message): readonly Message[] {
    return this.children.get(message.parent) ?? [message];
  }

  /** Whether an answer in this conversation is being read by this tab. */
  isRunning(conversation: string): boolean {
    return [...this.generations.values()].some(({ message }) => message.conversation === conversation);
  }

  /** The answer that is being read on the branch that is shown. */
  running(): Generation | null {
    const leaf = this.current?.leaf;
    return leaf === undefined || leaf === null ? null : (this.generations.get(leaf) ?? null);
  }

  async switchTo(message: Message): Promise<void> {
    await this.setLeaf(newestLeaf(this.children, message.id));
  }

  private async setLeaf(leaf: string | null): Promise<void> {
    if (this.current === null) return;
    this.current = { ...this.current, leaf };
    this.changed();
    await this.store.patch(this.current.id, { leaf });
  }

  settings(): Settings {
    return this.current?.settings ?? this.draftSettings;
  }

  async setSettings(settings: Settings): Promise<void> {
    // A new conversation begins with the settings that were chosen last, without the text of the system prompt.
    const { system: _, ...lasting } = settings;
    keepLasting(SETTINGS_NAME, JSON.stringify(lasting));
    this.draftSettings = this.current === null ? settings : lasting;
    if (this.current !== null) await this.patch(this.current.id, { settings });
    this.changed();
  }

  // Messages

  async send(text: string): Promise<void> {
    const model = this.model;
    if (model === null || text.trim() === "" || this.running() !== null) return;
    const user = this.newMessage("user", this.current?.leaf ?? null, model);
    user.text = text;
    if (this.current === null) {
      const conversation: Conversation = {
        id: newId(),
        title: titleOf(text),
        named: false,
        created: user.created,
        updated: user.created,
        leaf: user.id,
        settings: this.draftSettings,
      };
      user.conversation = conversation.id;
      await this.store.add(conversation, [user]);
      this.current = conversation;
      this.messages = new Map();
      location.hash = `#/c/${conversation.id}`;
      this.draftSettings = readDraftSettings();
    }
    await this.keep(user);
    await this.answer(user);
  }

  /** The edited message stands beside the old one, which keeps its answers. */
  async edit(message: Message, text: string): Promise<void> {
    if (text.trim() === "" || this.model === null) return;
    const user = this.newMessage("user", message.parent, this.model);
    user.text = text;
    await this.keep(user);
    await this.answer(user);
  }

  /** Another answer beside this one; in its place if it never had a word. */
  async regenerate(message: Message): Promise<void> {
    const question = message.parent === null ? undefined : this.messages.get(message.parent);
    if (question === undefined || this.running() !== null) return;
    await this.answer(question, message.text === "" && message.thought === "" ? message : undefined);
  }

  private newMessage(role: Message["role"], parent: string | null, model: string): Message {
    return {
      id: newId(),
      conversation: this.current?.id ?? "",
      parent,
      role,
      created: Date.now(),
      revision: 1,
      text: "",
      thought: "",
      status: role === "user" ? "done" : "running",
      model,
      response: null,
      stats: null,
      failure: null,
    };
  }

  private async answer(question: Message, replaced?: Message): Promise<void> {
    if (this.model === null) return;
    const message = this.newMessage("assistant", question.id, this.model);
    if (replaced !== undefined) {
      message.id = replaced.id;
      message.revision = replaced.revision + 1;
    }
    const body = requestBody(this.model, this.settings(), path(this.messages, question.id));
    const generation = new Generation(message, this.host);
    this.generations.set(message.id, generation);
    await this.keep(message);
    await this.patch(message.conversation, { updated: message.created, leaf: message.id });
    void generation.start(body);
  }

  private async keep(message: Message): Promise<void> {
    this.messages.set(message.id, message);
    this.children = childrenByParent(this.messages);
    if (this.current !== null) this.current = { ...this.current, leaf: message.id };
    this.changed();
    await this.store.put({ ...message });
    this.tabs.tell({ kind: "message", conversation: message.conversation, message: message.id });
  }

  private readonly host: Host = {
    askKey: () => this.askKey(),
    save: (message) => {
      if (message.conversation === this.current?.id && message.status !== "running") {
        this.messages.set(message.id, message);
        this.children = childrenByParent(this.messages);
      }
      this.store.put(message).then(
        () => this.tabs.tell({ kind: "message", conversation: message.conversation, message: message.id }),
        () => {
          this.notice = "The browser's storage is full; this answer is not kept.";
          this.changed();
        },
      );
    },
    ended: (generation) => {
      this.generations.delete(generation.message.id);
      if (generation.message.conversation === this.current?.id) {
        const { status, text, failure } = generation.message;
        this.announcement =
          failure !== null ? failure.sentence : status === "stopped" ? "Stopped." : `Answer: ${text.slice(0, 2000)}`;
      }
      this.changed();
    },
  };

  // Streams of other tabs, or of this page before it was loaded again

  private pickUpStreams(): void {
    for (const message of this.messages.values()) {
      if (message.status === "running" && !this.generations.has(message.id)) void this.pickUp(message.id);
    }
  }

  private async pickUp(id: string): Promise<void> {
    clearTimeout(this.watchers.get(id));
    this.watchers.delete(id);
    if (await this.tabs.readElsewhere(id)) {
      this.watch(id);
      return;
    }
    const message = this.messages.get(id);
    if (message === undefined || message.status !== "running" || this.generations.has(id)) return;
    const generation = new Generation(
      { ...message, stats: message.stats === null ? null : { ...message.stats } },
      this.host,
    );
    this.generations.set(id, generation);
    this.messages.set(id, generation.message);
    this.changed();
    if (message.response === null) generation.lose();
    else void generation.resume();
  }

  private watch(id: string): void {
    clearTimeout(this.watchers.get(id));
    this.watchers.set(id, setTimeout(() => void this.pickUp(id), WATCH_MS));
  }

  private async takeNote(note: Note): Promise<void> {
    if (note.kind === "removed") {
      await this.forget(note.conversation);
    } else if (note.kind === "conversation") {
      await this.reloadList();
    } else if (note.kind === "message" && note.conversation === this.current?.id) {
      const stored = (await this.store.messages(note.conversation)).find((message) => message.id === note.message);
      if (stored === undefined || note.conversation !== this.current?.id || this.generations.has(stored.id)) return;
      const known = this.messages.get(stored.id);
      if (known !== undefined && known.revision >= stored.revision) return;
      this.messages.set(stored.id, stored);
      this.children = childrenByParent(this.messages);
      // Follow what another tab adds at the end of the branch that is shown here.
      if (known === undefined && stored.parent === this.current.leaf && this.running() === null) {
        this.current = { ...this.current, leaf: stored.id };
      }
      if (stored.status === "running") this.watch(stored.id);
      else this.announcement = stored.role === "assistant" ? `Answer: ${stored.text.slice(0, 2000)}` : "";
      this.changed();
    } else if (note.kind === "message" && !this.conversations.some((entry) => entry.id === note.conversation)) {
      await this.reloadList();
    }
  }

  // Files

  async exported(ids: readonly string[]): Promise<string> {
    const all: Exported[] = [];
    for (const conversation of this.conversations) {
      if (!ids.includes(conversation.id)) continue;
      all.push({ conversation, messages: await this.store.messages(conversation.id) });
    }
    return exportText(all);
  }

  async importFile(file: File): Promise<void> {
    try {
      if (file.size > MAX_FILE_BYTES) throw new BadFile("The file is larger than 64 MiB.");
      const all = importText(await file.text());
      for (const { conversation, messages } of all) {
        await this.store.add(conversation, messages);
        this.tabs.tell({ kind: "conversation", conversation: conversation.id });
      }
      this.notice = all.length === 1 ? "One conversation was imported." : `${all.length} conversations were imported.`;
    } catch (error) {
      this.notice = error instanceof BadFile ? error.message : "The file could not be imported.";
    }
    await this.reloadList();
  }

  dismissNotice(): void {
    this.notice = null;
    this.changed();
  }
}

/** Storage may be forbidden or full; then a choice lives as long as the page. */
function keepLasting(name: string, value: string): void {
  try {
    localStorage.setItem(name, value);
  } catch {
    // Nothing else to do.
  }
}

function readLasting(name: string): string | null {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function readDraftSettings(): Settings {
  try {
    return importSettings(JSON.parse(readLasting(SETTINGS_NAME) ?? "{}"));
  } catch {
    return {};
  }
}

function excerpt(texts: readonly string[], lower: readonly string[], word: string): Omit<Hit, "conversation"> {
  // The title is shown anyway, so a place in a message says more.
  let index = lower.findIndex((text, position) => position > 0 && text.includes(word));
  if (index < 0) index = 0;
  const text = texts[index]!;
  const at = lower[index]!.indexOf(word);
  if (at < 0) return { before: "", match: "", after: text.slice(0, 80) };
  const from = Math.max(0, at - 30);
  return {
    before: (from > 0 ? "…" : "") + text.slice(from, at).replace(/\s+/g, " "),
    match: text.slice(at, at + word.length),
    after: text.slice(at + word.length, at + word.length + 60).replace(/\s+/g, " "),
  };
}
