// A server that says of a run what a test gives it, in the words of the real one.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { POLICY } from "./stub.mjs";

const dist = fileURLToPath(new URL("../dist/", import.meta.url));

export class Board {
  name = "a run";
  lines = [];
  timings = [];
  groups = [];
  amiss = [];
  broken = [];
  scores = [];
  state = "running";
  problem = null;
  generation = 0;
  offline = false;
  #streams = new Set();
  #sockets = new Set();
  #version = 0;

  constructor() {
    const { files } = JSON.parse(readFileSync(`${dist}manifest.json`, "utf8"));
    this.files = new Map(
      files.filter(({ page }) => page !== "chat").map((file) => [file.name, { ...file, body: readFileSync(`${dist}${file.file}`) }]),
    );
  }

  async start() {
    this.server = createServer((request, response) => this.#serve(request, response));
    this.server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      if (this.offline) socket.destroy();
    });
    await new Promise((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${this.server.address().port}/`;
    return this;
  }

  stop() {
    this.#sockets.forEach((socket) => socket.destroy());
    this.server.close();
  }

  setOffline(offline) {
    this.offline = offline;
    if (offline) this.#sockets.forEach((socket) => socket.destroy());
  }

  /** Adds lines, and says so. */
  grow(lines, timings = []) {
    this.lines.push(...lines);
    this.timings.push(...timings);
    this.say();
  }

  say() {
    this.#version++;
    for (const stream of this.#streams) stream.write(this.#news());
  }

  #news() {
    return `data: ${JSON.stringify({ version: this.#version, problem: this.problem })}\n\n`;
  }

  #serve(request, response) {
    const { pathname, searchParams } = new URL(request.url, "http://board");
    const query = Object.fromEntries(searchParams);
    if (pathname === "/api/events") {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(this.#news());
      this.#streams.add(response);
      response.on("close", () => this.#streams.delete(response));
      return;
    }
    const answer = { "/api/run": () => this.#run(), "/api/series": () => this.#series(query), "/api/config": () => ({ seed: 1 }),
      "/api/rollouts": () => this.#rollouts(query), "/api/group": () => this.#group(query) }[pathname];
    if (answer !== undefined) {
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify(answer()));
      return;
    }
    const file = this.files.get(pathname === "/" ? "dashboard.html" : pathname.slice(1));
    if (file === undefined) return void response.writeHead(404).end();
    response.writeHead(200, {
      "content-type": file.content_type,
      "content-security-policy": POLICY,
      ...(file.content_encoding === null ? {} : { "content-encoding": file.content_encoding }),
    });
    response.end(file.body);
  }

  #run() {
    const newest = this.lines.at(-1) ?? null;
    const common = { quiet_seconds: 1, amiss: [], scores: [], broken: [], generation: 0, read: 1 };
    const base = { ...common, name: "base", kind: "pretrain", state: "finished", steps: 120, total: 120, seconds: 64.2, step_seconds: 0.5,
      left_seconds: null, newest: { step: 119, loss: 1.25 }, metrics: 0, timings: 0, groups: 0, rollouts: 0 };
    const zero = { ...common, name: "zero", kind: "grpo", state: this.state, steps: this.lines.length, total: 400, seconds: 812, step_seconds: 9.1,
      left_seconds: 3200, newest, generation: this.generation, metrics: this.lines.length, timings: this.timings.length,
      groups: this.groups.length, rollouts: this.groups.reduce((sum, { rollouts }) => sum + rollouts.length, 0),
      amiss: this.amiss, broken: this.broken, scores: this.scores };
    return { name: this.name, facts: [["seed", "5"], ["precision", "f32"], ["commit", "0123456"]], stages: [base, zero] };
  }

  #series({ stage, generation, metrics, timings }) {
    const none = stage !== "zero";
    const lines = (all, known) => {
      const from = Number(generation) === this.generation ? Math.min(Number(known), all.length) : 0;
      const new_ = none ? [] : all.slice(from);
      const names = [...new Set(new_.flatMap(Object.keys))].filter((name) => name !== "step");
      return { from, to: from + new_.length, total: none ? 0 : all.length, steps: new_.map(({ step }) => step),
        columns: names.map((name) => [name, new_.map((line) => line[name] ?? null)]) };
    };
    return { generation: this.generation, metrics: lines(this.lines, metrics), timings: lines(this.timings, timings) };
  }

  #rollouts({ step, problem, verdict, truncated, text, order, from }) {
    const has = (string) => string.toLowerCase().includes(text.toLowerCase());
    const fits = (rollout) =>
      (verdict === undefined || rollout.verdict === verdict) && (truncated === undefined || rollout.truncated === (truncated === "true"));
    let all = this.groups.map((group, i) => ({ ...group, group: i, problem: group.id }));
    if (order !== "oldest") all.reverse();
    all = all.filter((group) => (step === undefined || group.step === Number(step)) && (problem === undefined || group.id === problem));
    all = all.filter((group) => group.rollouts.some(fits));
    if (text !== undefined) all = all.filter((group) => has(group.question) || group.rollouts.some((rollout) => has(rollout.text)));
    const start = from === undefined ? 0 : all.findIndex(({ group }) => group === Number(from));
    const found = all.slice(start, start + 40).map((group) => ({ ...group, rollouts: group.rollouts.map((rollout) => ({ ...rollout, fits: fits(rollout) })) }));
    return { groups: this.groups.length, rollouts: this.#run().stages[1].rollouts, fitting: all.length, found, next: all[start + 40]?.group ?? null };
  }

  #group({ group }) {
    return { group: Number(group), record: this.groups[Number(group)] };
  }
}

/** The lines of so many steps of a run that learns. */
export function steps(from, count) {
  return Array.from({ length: count }, (_, i) => {
    const step = from + i;
    const rise = 1 - Math.exp(-step / 120);
    const noise = (size) => size * (((step * 7919) % 101) / 101 - 0.5);
    return { step, loss: 0.02 + noise(0.05), grad_norm: 0.4 + noise(0.3), learning_rate: 5e-4, reward: 0.2 + 0.6 * rise + noise(0.15),
      reward_std: 0.3 - 0.15 * rise, frac_reward_zero_std: 0.1 + 0.5 * rise, "groups/all_right": 0.4 * rise, "groups/all_wrong": 0.2 * (1 - rise),
      "rewards/accuracy/mean": 0.18 + 0.6 * rise + noise(0.12), "rewards/format/mean": Math.min(1, 0.5 + rise), entropy: 0.6 - 0.4 * rise + noise(0.05),
      kl: 0.002 * step ** 0.5, clip_ratio: 0.01, "completions/mean_length": 60 + 90 * rise + noise(30), "completions/clipped_ratio": 0.1 + noise(0.05),
      num_tokens: 8350, learned: 24, skipped: 0, ratio_exact: 1, ...(step % 20 === 0 ? { "eval/make/pass@1": 0.2 + 0.55 * rise } : {}) };
  });
}

export function times(from, count) {
  return Array.from({ length: count }, (_, i) => ({ step: from + i, step_time: 9 + ((from + i) % 7) / 7, tokens_per_second: 900 - ((from + i) % 11) * 9,
    rollout_s: 5.2, training_s: 3.6, scoring_s: 0.01, rollout_tokens_per_second: 1600 }));
}

/** A group whose answers are right and wrong in turn. */
export function group(step, id, question, texts) {
  return { step, task: "make", id, question, rollouts: texts.map((text, i) => ({
    text, verdict: i % 2 === 0 ? "right" : "wrong", format: 1, reward: i % 2 === 0 ? 1.1 : 0.1, advantage: i % 2 === 0 ? 0.9 : -0.9,
    tokens: 60 + i, truncated: i === 3 })) };
}
