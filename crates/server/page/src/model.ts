/** What the page keeps: conversations, and their messages as a tree. */

export type Role = "user" | "assistant";

export type Status =
  | "running" // tokens are still expected
  | "done"
  | "stopped" // by the reader
  | "cut_short" // at the largest number of tokens
  | "interrupted" // the server lost it
  | "failed";

export const STATUSES: readonly Status[] = ["running", "done", "stopped", "cut_short", "interrupted", "failed"];

export interface Failure {
  code: string;
  sentence: string;
}

/** Counts and seconds of one answer, as the server measured them or, where it does not say, as the page did. */
export interface Stats {
  promptTokens: number;
  cachedTokens: number;
  outputTokens: number;
  reasoningTokens: number;
  promptSeconds: number;
  reasoningSeconds: number;
  seconds: number;
}

export interface Message {
  id: string;
  conversation: string;
  /** The message before this one; null for the first. Messages with one parent are alternatives of each other. */
  parent: string | null;
  role: Role;
  created: number;
  /** Grows with every change. Storage refuses to replace a newer revision by an older one. */
  revision: number;
  text: string;
  thought: string;
  status: Status;
  model: string;
  /** The server's name of this answer, and the last event of it that text and thought contain; -1 before the first. */
  response: { id: string; sequence: number } | null;
  stats: Stats | null;
  failure: Failure | null;
}

/** Undefined means that the server's default applies. */
export interface Settings {
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  seed?: number;
  max_tokens?: number;
  thinking?: boolean;
  budget?: number;
  system?: string;
}

export interface Conversation {
  id: string;
  title: string;
  /** The reader chose the title; it no longer follows the first message. */
  named: boolean;
  created: number;
  updated: number;
  /** The last message of the branch that is shown. */
  leaf: string | null;
  settings: Settings;
}

/** One entry of the list of models; the server may leave out all but the name. */
export interface Model {
  id: string;
  context: number | null;
  quantization: string | null;
  parameters: number | null;
  thinking: "always" | "optional" | "none";
}

/** How far the server is with one answer. */
export interface Progress {
  promptTokens: number;
  cachedTokens: number;
  prefilledTokens: number;
  completionTokens: number;
  reasoningTokens: number;
}
