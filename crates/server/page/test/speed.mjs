// A thought of 16,000 tokens and an answer of 4,000 at 200 tokens per second, with the thought open and a reader who
// types meanwhile. `SPEED_FACTOR` shortens it on a machine that is busy with other things.
import { loadavg } from "node:os";
import { Reader, assert, send, sleep } from "./harness.mjs";
import { pieces } from "./stub.mjs";

const FACTOR = Number(process.env.SPEED_FACTOR ?? 1);

function thought() {
  const sentences = [
    "First I look at what is asked and write down what is known.",
    "Wait, that is not right; let me check the third step again.",
    "If x = 3 then the left side is 14, and the right side is 12.",
    "So the sum of both has to be even, which leaves two cases.",
  ];
  let text = "";
  for (let n = 0; pieces(text).length < 16_000; n++) {
    for (let m = 0; m < 40; m++) text += `${sentences[(n + m) % 4]} ${m % 3 === 2 ? "\n\n" : ""}`;
  }
  return pieces(text).slice(0, 16_000).join("");
}

function answer() {
  const parts = [
    (n) => `## Section ${n}\n\nThe value of $x_{${n}}$ follows from **both** equations, as in \`f(${n})\`, and costs $5.\n\n`,
    (n) => `$$\\sum_{k=1}^{${n}} k = \\frac{${n}(${n}+1)}{2}$$\n\n`,
    (n) => `1. the first point of ${n}\n2. the second, with $a^2$\n   - one below\n   - another\n3. the third\n\n`,
    (n) => `\`\`\`python\ndef f${n}(x):\n    # a comment\n    return x ** ${n} + sum(range(${n}))\n\`\`\`\n\n`,
    (n) => `| n | value |\n|---|---:|\n| ${n} | ${n * n} |\n| ${n + 1} | ${(n + 1) ** 2} |\n\n`,
    (n) => `Plain words that go on for a while, so that paragraph ${n} has more than one line and is laid out anew.\n\n`,
  ];
  let text = "";
  for (let n = 0; pieces(text).length < 4000; n++) text += parts[n % parts.length](n);
  return pieces(text).slice(0, 4000).join("");
}

/** Frames per second in windows of one second, and the time from a key to the frame that shows it. */
function measure() {
  const frames = [];
  const delays = [];
  const frame = (time) => {
    frames.push(time);
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  addEventListener(
    "keydown",
    (event) => {
      requestAnimationFrame(() => {
        const channel = new MessageChannel();
        channel.port1.onmessage = () => delays.push(performance.now() - event.timeStamp);
        channel.port2.postMessage(0);
      });
    },
    true,
  );
  window.measured = () => {
    const counts = [];
    for (let start = 0, n = 0; n < frames.length; n++) {
      if (frames[n] - frames[start] < 1000) continue;
      counts.push(((n - start) * 1000) / (frames[n] - frames[start]));
      start = n;
    }
    const sorted = delays.splice(0).sort((a, b) => a - b);
    frames.splice(0);
    const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
    return {
      fps: counts.reduce((sum, count) => sum + count, 0) / counts.length,
      slowest: Math.min(...counts),
      p50: at(0.5),
      p95: at(0.95),
      keys: sorted.length,
    };
  };
}

export async function run(browser) {
  const reader = await Reader.create(browser);
  try {
    const page = await reader.open();
    reader.stub.scripts.push({ thought: thought(), answer: answer(), speed: 200 * FACTOR, promptTokens: 500 });
    await send(page, "Think for long.");
    await page.waitForSelector(".thought-preview");
    await page.click(".thought-line");
    await page.waitForSelector(".thought-all");
    await page.focus("#message");
    await page.evaluate(measure);
    const typeUntil = async (over) => {
      for (let n = 0; !(await page.evaluate(over)); n++) {
        await page.keyboard.press(n % 30 === 29 ? "Backspace" : "KeyA");
        await sleep(120);
      }
      return page.evaluate(() => window.measured());
    };
    const inThought = await typeUntil(() => document.querySelector(".prose").textContent !== "");
    const inAnswer = await typeUntil(() => document.querySelector(".answer").getAttribute("aria-busy") === "false");
    const said = [["thought", inThought], ["answer", inAnswer]].map(
      ([name, { fps, slowest, p50, p95, keys }]) =>
        `${name} ${fps.toFixed(0)} fps (slowest second ${slowest.toFixed(0)}), key to frame p50 ${p50.toFixed(0)} ms, p95 ${p95.toFixed(0)} ms of ${keys}`,
    );
    const summary = `${200 * FACTOR} tokens/s, load ${loadavg()[0].toFixed(1)}: ${said.join("; ")}`;
    for (const { fps, p95 } of [inThought, inAnswer]) {
      assert(fps >= 30, `at least 30 fps: ${summary}`);
      assert(p95 < 100, `a key is shown within 100 ms: ${summary}`);
    }
    assert(reader.violations.length === 0, reader.violations.join("; "));
    return summary;
  } finally {
    await reader.close();
  }
}
