import { apiKey } from "./key";
import type { Failure, Message, Model, Settings } from "./model";
import { EventSplitter, type StreamEvent } from "./sse";

/** The server answered, and refused. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly retryAfter: number | null,
  ) {
    super(message);
  }
}

/** The connection ended before the answer did, or was never made. */
export class Cut extends Error {}

/** A stream in which nothing at all arrives for this long is taken for cut; the server writes about once a second. */
const SILENCE_MS = 45_000;

function headers(): Record<string, string> {
  const key = apiKey();
  return key === null ? {} : { authorization: `Bearer ${key}` };
}

async function send(path: string, init: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { ...init, headers: { ...headers(), ...init.headers }, cache: "no-store" });
  } catch (error) {
    if (init.signal?.aborted === true) throw error;
    throw new Cut();
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response: Response): Promise<Refused> {
  let code = "";
  let message = "";
  try {
    const body = (await response.json()) as { error?: { code?: unknown; type?: unknown; message?: unknown } };
    code = String(body.error?.code ?? body.error?.type ?? "");
    message = String(body.error?.message ?? "");
  } catch {
    // Not JSON, as from a proxy: the status alone says what happened.
  }
  const after = Number(response.headers.get("retry-after") ?? NaN);
  return new Refused(response.status, code, message, Number.isFinite(after) ? Math.max(0, after) : null);
}

function numberOrNull(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) && value > 0 ? value : null;
}

export async function listModels(): Promise<Model[]> {
  const response = await send("v1/models", {});
  const body = (await response.json()) as { data?: unknown };
  if (!Array.isArray(body.data)) return [];
  return body.data.flatMap((entry: Record<string, unknown>) => {
    if (typeof entry?.["id"] !== "string") return [];
    const thinking = entry["thinking"];
    return [
      {
        id: entry["id"],
        context: numberOrNull(entry["context_length"]),
        quantization: typeof entry["quantization"] === "string" ? entry["quantization"] : null,
        parameters: numberOrNull(entry["parameters"]),
        thinking: thinking === "always" || thinking === "none" ? thinking : "optional",
      },
    ];
  });
}

export function requestBody(model: string, settings: Settings, before: readonly Message[]): Record<string, unknown> {
  const input: { role: string; content: string }[] = [];
  if (settings.system !== undefined) input.push({ role: "system", content: settings.system });
  for (const message of before) {
    if (message.text !== "") input.push({ role: message.role, content: message.text });
  }
  const body: Record<string, unknown> = {
    model,
    input,
    stream: true,
    store: true,
    background: true,
    stream_options: { include_progress: true },
  };
  if (settings.temperature !== undefined) body["temperature"] = settings.temperature;
  if (settings.top_p !== undefined) body["top_p"] = settings.top_p;
  if (settings.top_k !== undefined) body["top_k"] = settings.top_k;
  if (settings.min_p !== undefined) body["min_p"] = settings.min_p;
  if (settings.seed !== undefined) body["seed"] = settings.seed;
  if (settings.max_tokens !== undefined) body["max_output_tokens"] = settings.max_tokens;
  if (settings.thinking === false) body["reasoning"] = { effort: "none" };
  else if (settings.budget !== undefined) body["reasoning"] = { max_tokens: settings.budget };
  return body;
}

export function openStream(body: Record<string, unknown>, signal: AbortSignal): Promise<Response> {
  return send("v1/responses", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
}

/** The stream behind event `after`, or from its beginning where nothing has come yet. */
export function reopenStream(id: string, after: number, signal: AbortSignal): Promise<Response> {
  const from = after < 0 ? "" : `&starting_after=${after}`;
  return send(`v1/responses/${encodeURIComponent(id)}?stream=true${from}`, { signal });
}

export async function cancel(id: string): Promise<void> {
  await send(`v1/responses/${encodeURIComponent(id)}/cancel`, { method: "POST" });
}

/** Reads a stream to its end. Throws `Cut` where it breaks off; the caller knows whether the last event had come. */
export async function readEvents(
  response: Response,
  abort: AbortController,
  emit: (event: StreamEvent) => void,
): Promise<void> {
  if (response.body === null) throw new Cut();
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const splitter = new EventSplitter();
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    for (;;) {
      const silence = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Cut()), SILENCE_MS);
      });
      const { done, value } = await Promise.race([reader.read(), silence]);
      clearTimeout(timer);
      if (done) return;
      splitter.push(decoder.decode(value, { stream: true }), emit);
    }
  } catch (error) {
    if (abort.signal.aborted) throw error;
    throw new Cut();
  } finally {
    clearTimeout(timer);
    reader.cancel().catch(() => undefined);
  }
}

/** One sentence for the reader. */
export function describe(error: unknown, model: string): Failure {
  if (error instanceof Cut) return { code: "unreachable", sentence: "The server cannot be reached." };
  if (!(error instanceof Refused)) {
    return { code: "unexpected", sentence: `The answer could not be read: ${String(error)}.` };
  }
  const said = error.message === "" ? "" : `: ${error.message.replace(/\.$/, "")}`;
  if (error.code === "context_length_exceeded") {
    return { code: "context", sentence: `The context is full${said}.` };
  }
  switch (error.status) {
    case 401:
      return { code: "key", sentence: "The server asks for a key." };
    case 404:
      return { code: "model", sentence: `The server does not have the model ${model}.` };
    case 429:
      return { code: "busy", sentence: "The server is busy with other requests." };
    case 503:
      return { code: "busy", sentence: "The server cannot answer at the moment." };
    default:
      return { code: `status_${error.status}`, sentence: `The server refused the request${said} (${error.status}).` };
  }
}
