import { cleanTitle, titleOf } from "./format";
import { ID_PATTERN, newId } from "./ids";
import { STATUSES, type Conversation, type Message, type Settings, type Stats, type Status } from "./model";
import { childrenByParent, newestLeaf } from "./tree";

export interface Exported {
  conversation: Conversation;
  messages: Message[];
}

const FORMAT = "minke-conversations";
export const MAX_FILE_BYTES = 64 << 20;
const MAX_CONVERSATIONS = 10_000;
const MAX_MESSAGES = 20_000;
const MAX_TEXT = 4 << 20;
const MAX_TIME = 8.64e15;

export function exportText(all: readonly Exported[]): string {
  return JSON.stringify({ format: FORMAT, version: 1, conversations: all }, null, 1);
}

/** A file that is not what it says it is; the message is shown. */
export class BadFile extends Error {}

/**
 * Reads a file of unknown origin. Only known fields of the right type and size are copied, into new objects with new
 * names, so that nothing in the file can replace a conversation that is here or reach code that trusts its shape.
 */
export function importText(text: string): Exported[] {
  let file: unknown;
  try {
    file = JSON.parse(text);
  } catch {
    throw new BadFile("The file is not JSON.");
  }
  const { format, version, conversations } = fields(file, "The file");
  if (format !== FORMAT || version !== 1 || !Array.isArray(conversations)) {
    throw new BadFile("The file holds no conversations of this page.");
  }
  if (conversations.length > MAX_CONVERSATIONS) throw new BadFile("The file holds too many conversations.");
  return conversations.map((entry, index) => importOne(entry, `Conversation ${index + 1}`));
}

function importOne(entry: unknown, where: string): Exported {
  const { conversation: said, messages: list } = fields(entry, where);
  const conversation = fields(said, where);
  if (!Array.isArray(list) || list.length > MAX_MESSAGES) throw new BadFile(`${where} has no list of messages.`);
  const id = newId();
  const names = new Map<string, string>();
  for (const item of list) {
    const name = fields(item, where)["id"];
    if (typeof name !== "string" || !ID_PATTERN.test(name)) throw new BadFile(`${where} has a message without a name.`);
    if (names.has(name)) throw new BadFile(`${where} has two messages of one name.`);
    names.set(name, newId());
  }
  const messages = list.map((item) => importMessage(fields(item, where), id, names, where));
  refuseCycles(messages, where);
  const firstUser = messages.find((message) => message.role === "user");
  const leaf = names.get(String(conversation["leaf"])) ?? null;
  const created = time(conversation["created"]);
  const byId = new Map(messages.map((message) => [message.id, message]));
  const title = typeof conversation["title"] === "string" ? cleanTitle(conversation["title"]) : "";
  return {
    conversation: {
      id,
      title: title !== "" ? title : titleOf(firstUser?.text ?? ""),
      named: conversation["named"] === true,
      created,
      updated: Math.max(created, time(conversation["updated"])),
      leaf: leaf ?? newestLeaf(childrenByParent(byId), null),
      settings: importSettings(conversation["settings"]),
    },
    messages,
  };
}

function importMessage(
  said: Record<string, unknown>,
  conversation: string,
  names: ReadonlyMap<string, string>,
  where: string,
): Message {
  const { role, parent, status } = said;
  if (role !== "user" && role !== "assistant") throw new BadFile(`${where} has a message of an unknown role.`);
  const parentId = parent === null ? null : names.get(String(parent));
  if (parentId === undefined) throw new BadFile(`${where} has a message whose predecessor is missing.`);
  const known = STATUSES.includes(status as Status) ? (status as Status) : "done";
  return {
    id: names.get(String(said["id"]))!,
    conversation,
    parent: parentId,
    role,
    created: time(said["created"]),
    revision: 1,
    text: bounded(said["text"], where),
    thought: bounded(said["thought"], where),
    // The stream belonged to another browser; it is not asked for again.
    status: known === "running" ? "interrupted" : known,
    model: bounded(said["model"], where).slice(0, 200),
    response: null,
    stats: importStats(said["stats"]),
    failure: importFailure(said["failure"]),
  };
}

function refuseCycles(messages: readonly Message[], where: string): void {
  const parents = new Map(messages.map((message) => [message.id, message.parent]));
  const ends = new Set<string>();
  for (const message of messages) {
    const walked = new Set<string>();
    for (let at: string | null = message.id; at !== null && !ends.has(at); at = parents.get(at) ?? null) {
      if (walked.has(at)) throw new BadFile(`${where} has messages that follow each other in a circle.`);
      walked.add(at);
    }
    for (const id of walked) ends.add(id);
  }
}

function fields(value: unknown, where: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new BadFile(`${where} is not what this page exports.`);
  }
  return value as Record<string, unknown>;
}

function bounded(value: unknown, where: string): string {
  if (value === undefined || value === null) return "";
  if (typeof value !== "string" || value.length > MAX_TEXT) throw new BadFile(`${where} has a text that is no text.`);
  return value;
}

function time(value: unknown): number {
  return typeof value === "number" && value >= 0 && value <= MAX_TIME ? value : Date.now();
}

function importFailure(value: unknown): Message["failure"] {
  if (typeof value !== "object" || value === null) return null;
  const { code, sentence } = value as Record<string, unknown>;
  if (typeof code !== "string" || typeof sentence !== "string") return null;
  return { code: code.slice(0, 50), sentence: sentence.slice(0, 500) };
}

function importStats(value: unknown): Stats | null {
  if (typeof value !== "object" || value === null) return null;
  const said = value as Record<string, unknown>;
  const read = (name: keyof Stats) => {
    const number = said[name];
    return typeof number === "number" && number >= 0 && number < 1e12 ? number : 0;
  };
  return {
    promptTokens: read("promptTokens"),
    cachedTokens: read("cachedTokens"),
    outputTokens: read("outputTokens"),
    reasoningTokens: read("reasoningTokens"),
    promptSeconds: read("promptSeconds"),
    reasoningSeconds: read("reasoningSeconds"),
    seconds: read("seconds"),
  };
}

const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "seed", "max_tokens", "budget"] as const;

export function importSettings(value: unknown): Settings {
  if (typeof value !== "object" || value === null) return {};
  const said = value as Record<string, unknown>;
  const settings: Settings = {};
  for (const name of NUMBERS) {
    const number = said[name];
    if (typeof number === "number" && Number.isFinite(number)) settings[name] = number;
  }
  if (typeof said["thinking"] === "boolean") settings.thinking = said["thinking"];
  if (typeof said["system"] === "string" && said["system"].length <= MAX_TEXT) settings.system = said["system"];
  return settings;
}
