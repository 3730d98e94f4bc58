// Pictures of the page in its states, to look at: `node test/shots.mjs FOLDER`.
import { mkdirSync } from "node:fs";
import { Reader, answered, ask, launch, press, send, sleep } from "./harness.mjs";

const folder = process.argv[2] ?? "test/out";
mkdirSync(folder, { recursive: true });

const THOUGHT = `The user asks for the smallest n such that the sum 1 + 2 + ... + n is larger than 1000.

The sum is n(n+1)/2, so I need n(n+1) > 2000. The root of 2000 is about 44.7, so n is near 44.

n = 44: 44 * 45 = 1980, which is below 2000. n = 45: 45 * 46 = 2070, which is above.

Wait, let me check the bound again: "larger than 1000" means the sum itself, 1980 / 2 = 990 and 2070 / 2 = 1035. Yes.

So the answer is 45. I should also show how it follows without trying, by solving the quadratic inequality, and perhaps give a short program that confirms it.`;

const ANSWER = `The sum of the first $n$ whole numbers is $\\frac{n(n+1)}{2}$, so the question is when

$$\\frac{n(n+1)}{2} > 1000 \\quad\\Longleftrightarrow\\quad n^2 + n - 2000 > 0.$$

The positive root of the quadratic is $n = \\frac{-1+\\sqrt{8001}}{2} \\approx 44.2$, and the first whole number above it is **45**. The two neighbours confirm it:

| $n$ | $n(n+1)/2$ | larger than 1000 |
|----:|-----------:|:-----------------|
| 44  | 990        | no               |
| 45  | 1035       | yes              |

A few lines of Python find the same number by counting:

\`\`\`python
def smallest(limit: int) -> int:
    total, n = 0, 0
    while total <= limit:  # stop at the first sum above it
        n += 1
        total += n
    return n

print(smallest(1000))  # 45
\`\`\`

The result is \\boxed{45}.`;

const LONG = Array.from({ length: 14 }, (_, n) => `${THOUGHT.split("\n\n")[n % 5]}`).join("\n\n");

const browser = await launch();

async function shot(name, options, prepare) {
  const reader = await Reader.create(browser, options);
  try {
    const page = await reader.open();
    await prepare(page, reader.stub);
    await sleep(400);
    await page.screenshot({ path: `${folder}/${name}.png` });
    if (reader.violations.length > 0) console.log(name, reader.violations);
  } finally {
    await reader.close();
  }
}

const QUESTION = "What is the smallest n such that 1 + 2 + … + n is larger than 1000?";

async function history(page, stub) {
  for (const [question, reply] of [
    ["Explain what a Merkle tree is", "A tree of hashes."],
    ["A recipe for rye bread", "Flour, water, salt."],
    ["Why is the sky dark at night?", "Because the age of the universe is finite, as Olbers asked."],
  ]) {
    stub.scripts.push({ thought: "Short.", answer: reply });
    await ask(page, question);
    await press(page, ".sidebar", "New");
    await page.waitForSelector(".beginning");
  }
}

async function solved(page, stub) {
  await history(page, stub);
  stub.scripts.push({ thought: THOUGHT, answer: ANSWER, speed: 400, promptTokens: 214 });
  await ask(page, QUESTION);
  await page.waitForSelector(".code-keyword");
}

const top = (page) => page.$eval(".scroll", (scroll) => (scroll.scrollTop = 0));

try {
  await shot("empty", {}, async (page) => page.waitForSelector(".badge"));
  await shot("prefill", {}, async (page, stub) => {
    await history(page, stub);
    stub.scripts.push({ answer: "x", prefillMs: 4000, promptTokens: 6200, cachedTokens: 1900 });
    await send(page, "Read this long text, and tell me what it says about the second law.");
    await sleep(1300);
  });
  await shot("thinking", {}, async (page, stub) => {
    await history(page, stub);
    stub.scripts.push({ thought: THOUGHT.repeat(3), answer: "x", speed: 60 });
    await send(page, QUESTION);
    await page.waitForSelector(".thought-preview");
    await sleep(3200);
  });
  await shot("long-thought", {}, async (page, stub) => {
    stub.scripts.push({ thought: LONG, answer: ANSWER, speed: 1500 });
    await ask(page, QUESTION);
    await page.click(".thought-line");
    await sleep(200);
    await top(page);
  });
  await shot("answer-light", {}, async (page, stub) => {
    await solved(page, stub);
    await top(page);
  });
  await shot("answer-end-light", {}, solved);
  await shot("answer-dark", { dark: true }, async (page, stub) => {
    await solved(page, stub);
    await top(page);
  });
  await shot("answer-end-dark", { dark: true }, solved);
  await shot("narrow", { width: 390, height: 844 }, async (page, stub) => {
    stub.scripts.push({ thought: THOUGHT, answer: ANSWER, speed: 600 });
    await ask(page, QUESTION);
    await page.waitForSelector(".code-keyword");
    await top(page);
  });
  await shot("narrow-end-dark", { width: 390, height: 844, dark: true }, async (page, stub) => {
    stub.scripts.push({ thought: THOUGHT, answer: ANSWER, speed: 600 });
    await ask(page, QUESTION);
    await page.waitForSelector(".code-keyword");
  });
  await shot("narrow-list", { width: 390, height: 844 }, async (page, stub) => {
    stub.scripts.push({ thought: THOUGHT, answer: ANSWER, speed: 2000 });
    await ask(page, QUESTION);
    await page.click('[aria-label="Show conversations"]');
  });
  await shot("drawer", {}, async (page, stub) => {
    await solved(page, stub);
    await press(page, ".header", "Settings");
    await page.type("dialog [name=temperature]", "0.6");
    await page.type("dialog [name=top_p]", "0.95");
  });
  await shot("context-full", {}, async (page, stub) => {
    const message = "the prompt has 9,120 tokens, the context 8,192";
    stub.scripts.push({ thought: THOUGHT, answer: "The first is 45.", promptTokens: 7900 });
    await ask(page, QUESTION);
    stub.scripts.push({ refuse: { status: 400, code: "context_length_exceeded", message } });
    await ask(page, "And the first 500 of them, with all steps?", 2);
  });
  await shot("interrupted", {}, async (page, stub) => {
    stub.scripts.push({ thought: THOUGHT, answer: ANSWER, speed: 250 });
    await send(page, QUESTION);
    await page.waitForFunction(() => document.querySelector(".prose")?.innerText.length > 150);
    stub.restart();
    await answered(page);
  });
  await shot("reconnecting", {}, async (page, stub) => {
    stub.scripts.push({ thought: THOUGHT, answer: ANSWER, speed: 250 });
    await send(page, QUESTION);
    await page.waitForFunction(() => document.querySelector(".prose")?.innerText.length > 150);
    stub.setOffline(true);
    await page.waitForFunction(() => document.querySelector(".waiting")?.innerText.includes("next attempt"));
  });
  await shot("key", {}, async (page, stub) => {
    await solved(page, stub);
    stub.key = "k";
    await page.reload();
    await page.waitForSelector("dialog.key[open]");
  });
  await shot("search", {}, async (page, stub) => {
    await history(page, stub);
    await page.type(".search", "olbers");
    await page.waitForSelector("mark");
  });
  await shot("edit-and-versions", {}, async (page, stub) => {
    stub.scripts.push({ thought: "Short.", answer: "Forty-four." }, { thought: "Again.", answer: "It is forty-five." });
    await ask(page, QUESTION);
    await press(page, ".answer", "Regenerate");
    await page.waitForSelector(".answer .siblings");
    await answered(page);
    await press(page, ".sidebar", `Actions for ${await page.$eval(".title", (title) => title.innerText)}`);
    await press(page, ".question", "Edit");
  });
} finally {
  await browser.close();
}
