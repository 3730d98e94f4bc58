// A server that speaks the part of the API that the page uses, and that fails on demand.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";

const dist = fileURLToPath(new URL("../dist/", import.meta.url));

export const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; " +
  "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
  "require-trusted-types-for 'script'; trusted-types 'none'";

const MODEL = {
  id: "r1-distill-qwen-1.5b",
  object: "model",
  created: 0,
  owned_by: "minke",
  context_length: 8192,
  quantization: "Q4_K_M",
  parameters: 1_777_088_000,
  thinking: "optional",
};

/** Words with the space before them, and line ends: about what a tokenizer makes of English. */
export function pieces(text) {
  return text.match(/\n+|[ \t]*[^\s]{1,6}|[ \t]+/g) ?? [];
}

/**
 * What the stub does with one request; all fields may be missing.
 * @typedef {object} Script
 * @property {string} [thought]
 * @property {string} [answer]
 * @property {string[]} [answerPieces] the deltas themselves, instead of `answer`
 * @property {number} [speed] tokens per second
 * @property {number} [promptTokens]
 * @property {number} [cachedTokens]
 * @property {number} [prefillMs]
 * @property {number[]} [cutAt] the connection breaks in the middle of the event of this number
 * @property {boolean} [shred] events arrive a few bytes at a time
 * @property {boolean} [cutShort] ends as `response.incomplete`
 * @property {{code: string, message: string}} [failure] ends as `response.failed`
 * @property {{status: number, code?: string, message?: string, retryAfter?: number}} [refuse]
 */

export class Stub {
  /** Scripts for the next requests, in order; then `otherwise`. */
  scripts = [];
  otherwise = { thought: "Let me see.", answer: "Here is an answer.", speed: 500 };
  models = [MODEL];
  key = null;
  offline = false;
  /** Bodies of POST v1/responses, and names of cancelled answers. */
  asked = [];
  cancelled = [];
  resumed = 0;
  /** So many streams end at once: the first after two events, later ones before any. */
  barren = 0;
  #responses = new Map();
  #sockets = new Set();
  #server;
  #next = 1;

  /** @param {string} folder the path below which the page lies, with a slash at both ends */
  constructor(folder = "/") {
    this.folder = folder;
    const { files } = JSON.parse(readFileSync(`${dist}manifest.json`, "utf8"));
    this.files = new Map(
      files.map((file) => [file.name, { ...file, body: readFileSync(`${dist}${file.file}`) }]),
    );
  }

  async start() {
    this.#server = createServer((request, response) => {
      this.#serve(request, response).catch((error) => response.destroy(error));
    });
    this.#server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      if (this.offline) socket.destroy();
    });
    await new Promise((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${this.#server.address().port}${this.folder}`;
    return this;
  }

  stop() {
    for (const { timer } of this.#responses.values()) clearInterval(timer);
    this.cutAll();
    this.#server.close();
  }

  cutAll() {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** As after a restart: connections are gone, and so is all that was asked. */
  restart() {
    for (const { timer } of this.#responses.values()) clearInterval(timer);
    this.#responses.clear();
    this.cutAll();
  }

  setOffline(offline) {
    this.offline = offline;
    if (offline) this.cutAll();
  }

  async #serve(request, response) {
    const { pathname, searchParams } = new URL(request.url, "http://stub");
    if (!pathname.startsWith(this.folder)) return this.#refuse(response, 404, "not_found", "no such page");
    const path = pathname.slice(this.folder.length);
    if (!path.startsWith("v1/")) return this.#file(path, response);
    if (this.key !== null && request.headers.authorization !== `Bearer ${this.key}`) {
      return this.#refuse(response, 401, "invalid_api_key", "the key is missing or wrong");
    }
    if (path === "v1/models") return this.#json(response, 200, { object: "list", data: this.models });
    const [, id, action] = /^v1\/responses(?:\/([^/]+))?(?:\/(cancel))?$/.exec(path) ?? [];
    if (id === undefined && request.method === "POST") return this.#create(await readJson(request), response);
    const made = this.#responses.get(id);
    if (made === undefined) return this.#refuse(response, 404, "not_found", "no such response");
    if (action === "cancel") {
      this.cancelled.push(id);
      clearInterval(made.timer);
      return this.#json(response, 200, { id, status: "cancelled" });
    }
    this.resumed++;
    this.#stream(made, Number(searchParams.get("starting_after") ?? -1), response);
  }

  #file(path, response) {
    const file = this.files.get(path === "" ? "index.html" : path);
    if (file === undefined) return this.#refuse(response, 404, "not_found", "no such file");
    response.writeHead(200, {
      "content-type": file.content_type,
      "content-security-policy": POLICY,
      "x-content-type-options": "nosniff",
      "cache-control": file.immutable ? "public, max-age=31536000, immutable" : "no-cache",
      ...(file.content_encoding === null ? {} : { "content-encoding": file.content_encoding }),
    });
    response.end(file.body);
  }

  /** The text of a file of the page, as a browser gets it. */
  text(name) {
    return gunzipSync(this.files.get(name).body).toString();
  }

  #json(response, status, body, headers = {}) {
    response.writeHead(status, { "content-type": "application/json", ...headers });
    response.end(JSON.stringify(body));
  }

  #refuse(response, status, code, message, retryAfter) {
    const headers = retryAfter === undefined ? {} : { "retry-after": String(retryAfter) };
    this.#json(response, status, { error: { message, type: "invalid_request_error", param: null, code } }, headers);
  }

  #create(body, response) {
    this.asked.push(body);
    const script = this.scripts.shift() ?? this.otherwise;
    if (script.refuse !== undefined) {
      const { status, code = "error", message = "refused", retryAfter } = script.refuse;
      return this.#refuse(response, status, code, message, retryAfter);
    }
    const made = this.#produce(script, body.model);
    this.#stream(made, -1, response);
  }

  /** Writes events over time, whether or not anyone listens. */
  #produce(script, model) {
    const id = `resp_${this.#next++}`;
    const { promptTokens = 120, cachedTokens = 0, prefillMs = 0, speed = 300 } = script;
    const made = { id, events: [], over: false, listeners: new Set(), script, cuts: new Set(script.cutAt ?? []) };
    this.#responses.set(id, made);
    const started = Date.now();
    const thought = pieces(script.thought ?? "");
    const answer = script.answerPieces ?? pieces(script.answer ?? "");
    const object = (status, more = {}) => ({ id, object: "response", status, model, ...more });
    const emit = (type, fields) => {
      const event = { type, sequence_number: made.events.length, ...fields };
      made.events.push(`event: ${type}\ndata: ${JSON.stringify(event)}\n\n`);
    };
    const progress = (prefilled, written) => ({
      prompt_tokens: promptTokens,
      cached_tokens: cachedTokens,
      prefilled_tokens: prefilled,
      completion_tokens: written,
      reasoning_tokens: Math.min(written, thought.length),
      seconds: (Date.now() - started) / 1000,
    });
    emit("response.created", { response: object("in_progress") });
    emit("response.in_progress", { response: object("in_progress"), progress: progress(cachedTokens, 0) });

    const steps = [];
    const part = (kind, list, item, index) => {
      if (list.length === 0) return;
      const at = { item_id: item.id, output_index: index, content_index: 0 };
      steps.push(() => {
        emit("response.output_item.added", { output_index: index, item });
        emit("response.content_part.added", { ...at, part: { type: kind, text: "" } });
      });
      for (const delta of list) steps.push(() => emit(`response.${kind}.delta`, { ...at, delta }));
      steps.push(() => {
        emit(`response.${kind}.done`, { ...at, text: list.join("") });
        emit("response.content_part.done", { ...at, part: { type: kind, text: list.join("") } });
        emit("response.output_item.done", { output_index: index, item });
      });
    };
    part("reasoning_text", thought, { type: "reasoning", id: `rs_${id}` }, 0);
    part("output_text", answer, { type: "message", role: "assistant", id: `msg_${id}` }, 1);
    const seconds = () => (Date.now() - started) / 1000;
    let thoughtSeconds = 0;
    let done = 0;
    let lastProgress = 0;
    made.timer = setInterval(() => {
      const elapsed = Date.now() - started;
      const before = made.events.length;
      if (elapsed < prefillMs) {
        if (elapsed - lastProgress > 60) {
          lastProgress = elapsed;
          const read = cachedTokens + Math.floor(((promptTokens - cachedTokens) * elapsed) / prefillMs);
          emit("response.in_progress", { response: object("in_progress"), progress: progress(read, 0) });
        }
      } else {
        if (elapsed - lastProgress > 1000) {
          lastProgress = elapsed;
          const written = Math.min(done, thought.length + answer.length);
          emit("response.in_progress", { response: object("in_progress"), progress: progress(promptTokens, written) });
        }
        const due = Math.min(steps.length, Math.ceil(((elapsed - prefillMs) * speed) / 1000));
        while (done < due) steps[done++]();
        if (thoughtSeconds === 0 && done >= thought.length) thoughtSeconds = seconds() - prefillMs / 1000;
        if (done === steps.length) {
          const usage = {
            input_tokens: promptTokens,
            input_tokens_details: { cached_tokens: cachedTokens },
            output_tokens: thought.length + answer.length,
            output_tokens_details: { reasoning_tokens: thought.length },
            total_tokens: promptTokens + thought.length + answer.length,
          };
          const timings = { prompt_seconds: prefillMs / 1000, reasoning_seconds: thoughtSeconds, seconds: seconds() };
          if (script.failure !== undefined) {
            emit("response.failed", { response: object("failed", { error: script.failure, usage }) });
          } else if (script.cutShort === true) {
            const incomplete_details = { reason: "max_output_tokens" };
            emit("response.incomplete", { response: object("incomplete", { incomplete_details, usage, timings }) });
          } else {
            emit("response.completed", { response: object("completed", { usage, timings }) });
          }
          made.over = true;
          clearInterval(made.timer);
        }
      }
      if (made.events.length > before) for (const listener of [...made.listeners]) listener();
    }, 8);
    return made;
  }

  #stream(made, after, response) {
    response.writeHead(200, {
      "content-type": "text/event-stream",
      "cache-control": "no-store",
      "x-minke-response": made.id,
    });
    response.write(": the stream begins\n\n");
    let next = after + 1;
    if (this.barren > 0) {
      this.barren--;
      response.end(after < 0 ? made.events.slice(0, 2).join("") : "");
      return;
    }
    const write = () => {
      while (next < made.events.length) {
        const text = made.events[next];
        if (made.cuts.delete(next)) {
          // Half of the event has left already, and the split may lie within a character.
          const bytes = Buffer.from(text);
          made.listeners.delete(write);
          response.write(bytes.subarray(0, bytes.length >> 1), () => response.socket?.destroy());
          return;
        }
        if (made.script.shred === true) {
          const bytes = Buffer.from(text);
          for (let at = 0; at < bytes.length; at += 7) response.write(bytes.subarray(at, at + 7));
        } else {
          response.write(text);
        }
        next++;
      }
      if (made.over) {
        made.listeners.delete(write);
        response.end();
      }
    };
    made.listeners.add(write);
    response.on("close", () => made.listeners.delete(write));
    write();
  }
}

async function readJson(request) {
  let text = "";
  for await (const piece of request) text += piece;
  return JSON.parse(text);
}
