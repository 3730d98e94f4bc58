// The page of a run that is watched: curves that grow, rollouts that are found, hostile text, narrow screens, no mouse.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { Board, group, steps, times } from "./board.mjs";
import { Reader, assert, equal, sleep, texts } from "./harness.mjs";
import { STRINGS } from "./scripts.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export async function board() {
  const made = await new Board().start();
  made.lines = steps(0, 240);
  made.timings = times(0, 240);
  made.groups = Array.from({ length: 300 }, (_, i) =>
    group(Math.floor(i / 4), String(9_007_199_254_740_993n + BigInt(i % 50)), `Make ${i % 50} from 3 and 4.`, [
      `<think>\n3 + 4 is ${i}.\n</think>\n\n3+4`, `Four times three, attempt ${i}`, "3*4", "I do not know"]),
  );
  made.amiss = [{ reason: "a quarter of the answers cut off", advice: "raise max_tokens, or set rewards.overlong", steps: 31, first: 4, last: 239, streak: 12, now: true }];
  made.scores = [{ task: "make", side: "test", mode: "T = 1", problems: 500, blind: 0.375, pass_at_1: { mean: 0.61, low: 0.58, high: 0.64 }, pass_at_k: [16, 0.9], mean_tokens: 61.5, truncated: 0.01 }];
  return made;
}

const shown = (page, wanted) =>
  page.waitForFunction((step) => document.querySelector("#newest-step")?.dataset.step === String(step), {}, wanted);

const CASES = {
  async "a line that is written is on the page within two seconds"({ page, stub }) {
    await shown(page, 239);
    const titles = await texts(page, ".panel-title");
    for (const title of ["Reward", "Entropy, nats", "Gradient norm", "Tokens per second"]) assert(titles.includes(title), `${title} is missing`);
    const curve = () => page.$eval(".panel .curve", (path) => path.getAttribute("d"));
    const before = await curve();
    const lags = [];
    for (let step = 240; step < 246; step++) {
      const began = Date.now();
      stub.grow(steps(step, 1), times(step, 1));
      await shown(page, step);
      lags.push(Date.now() - began);
      await sleep(50);
    }
    assert((await curve()) !== before, "the curve did not grow");
    assert(Math.max(...lags) < 2000, `lags of ${lags} ms`);
  },
  async "a file that begins anew takes the curve back"({ page, stub }) {
    await shown(page, 239);
    stub.lines = steps(0, 100);
    stub.timings = times(0, 100);
    stub.generation++;
    stub.say();
    await shown(page, 99);
  },
  async "advice, reasons, scores and what is broken are said"({ page, stub }) {
    stub.broken = ["metrics.jsonl: lines that are damaged and left out: 1, the first is line 9"];
    stub.say();
    await page.waitForSelector(".advice.broken");
    const said = (await texts(page, ".advice")).join(" ");
    assert(said.includes("cut off, for 12 steps. Raise max_tokens") && said.includes("line 9"), said);
    const main = await page.$eval("main", (element) => element.innerText);
    for (const part of ["Why a reward may not rise", "Held-out scores", "61.0 %", "240 of 400", "53 min"]) assert(main.includes(part), `${part} is missing`);
  },
  async "rollouts are found by step, by text and by problem, without a mouse"({ page }) {
    await page.waitForSelector(".views");
    await page.focus('.views a[href*="rollouts"]');
    await page.keyboard.press("Enter");
    await page.waitForSelector(".group-row");
    await page.type('[name="step"]', "12");
    await page.waitForFunction(() => document.querySelectorAll(".group-row").length === 4);
    assert((await texts(page, ".group-head")).every((text) => text.includes("step 12")), "another step");
    await page.focus(".group-row");
    await page.keyboard.press("Enter");
    await page.waitForSelector(".answer");
    await page.keyboard.press("ArrowDown");
    await page.waitForFunction(() => document.querySelector(".reading .question")?.innerText.includes("Make 0 from"));
    equal((await texts(page, ".verdict")).length, 4, "answers");
    await page.click(".filters .quiet");
    await page.type('[name="text"]', "ATTEMPT 77");
    await page.waitForFunction(() => document.querySelectorAll(".group-row").length === 1);
    await page.click(".group-row");
    await page.waitForSelector(".answer mark");
    equal(await page.$$eval(".answer", (all) => all.map((answer) => answer.open)), [false, true, false, false], "only what fits is open");
    const id = await page.$eval(".reading .note .link", (button) => button.innerText);
    equal(id, "9007199254741020", "a problem's id is whole");
    await page.click(".filters .quiet");
    await page.click(".reading .note .link");
    await page.waitForFunction(() => document.querySelectorAll(".group-row").length === 6);
    const address = page.url();
    await page.reload();
    await page.waitForSelector(".answer");
    equal(page.url(), address, "the address after a reload");
    await page.waitForFunction(() => document.querySelectorAll(".group-row").length === 6);
  },
  async "many groups come page by page"({ page }) {
    await (await page.waitForSelector('.views a[href*="rollouts"]')).click();
    for (const count of [40, 80, 120]) {
      await page.waitForFunction((wanted) => document.querySelectorAll(".group-row").length === wanted, {}, count);
      await page.click(".more-rows");
    }
  },
  async "groups that come later are shown when they are asked for"({ page, stub }) {
    await (await page.waitForSelector('.views a[href*="rollouts"]')).click();
    await page.waitForSelector(".group-row");
    stub.groups.push(group(90, "7", "A new question.", ["yes", "no"]));
    stub.say();
    const newer = await page.waitForFunction(() => [...document.querySelectorAll(".list .note .link")].find((link) => link.innerText === "Show 1 newer"));
    assert(!(await texts(page, ".group-question")).includes("A new question."), "the list moved by itself");
    await newer.asElement().click();
    await page.waitForFunction(() => document.querySelector(".group-question")?.innerText === "A new question.");
  },
  async "hostile text stays text"({ page, stub }) {
    stub.name = STRINGS[0];
    stub.groups = STRINGS.map((text, i) => group(i, String(i), text, [text, `<think>${text}</think>${text}`]));
    stub.broken = [STRINGS[2]];
    stub.lines = steps(0, 3).map((line) => ({ ...line, [STRINGS[4]]: 1, [`eval/${STRINGS[2]}/pass@1`]: 0.5 }));
    stub.timings = [];
    stub.generation++;
    stub.say();
    await page.evaluate(() => (window.ran = () => (window.didRun = true)));
    await page.waitForSelector(".advice.broken");
    await (await page.waitForSelector('.views a[href*="rollouts"]')).click();
    await page.waitForSelector(".group-row");
    for (let i = 0; i < STRINGS.length; i++) {
      await page.evaluate((number) => (location.hash = `#view=rollouts&group=${number}`), i);
      await page.waitForFunction((text) => document.querySelector(".question")?.textContent === text, {}, STRINGS[i]);
    }
    await sleep(200);
    equal(await page.evaluate(() => window.didRun ?? false), false, "a string ran");
  },
  async "a server that is gone is said, and found again"({ page, stub }) {
    await shown(page, 239);
    stub.setOffline(true);
    await page.waitForSelector(".status.lost");
    stub.setOffline(false);
    stub.grow(steps(240, 1));
    await shown(page, 240);
    await page.waitForFunction(() => document.querySelector(".status.lost") === null);
  },
  async "the cursor says the values of its step in all curves, by keys too"({ page }) {
    await shown(page, 239);
    await page.focus(".plot");
    await page.keyboard.press("Home");
    await page.keyboard.press("ArrowRight");
    await page.waitForFunction(() => document.querySelector("#newest-step").innerText === "Step 1");
    const label = await page.$eval(".plot", (plot) => plot.getAttribute("aria-label"));
    assert(label.startsWith("Reward: reward 0.") && label.endsWith("step 1"), label);
    assert((await page.$$(".cursor")).length > 5, "not all curves show it");
    await page.select(".tools select", "9");
    await page.waitForSelector(".faint");
  },
};

async function accessible(page, what) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const grave = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const lines = grave.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 160)).join(" | ")}`);
  assert(lines.length === 0, `${what}: ${lines.join("; ")}`);
}

export async function run(browser) {
  let passed = 0;
  const failed = [];
  const attempt = async (name, options, work) => {
    const stub = await board();
    const reader = await Reader.create(browser, { ...options, stub });
    try {
      const page = await reader.open();
      await work({ page, stub });
      if (reader.violations.length > 0) throw new Error(`violations: ${reader.violations.join("; ")}`);
      passed++;
    } catch (error) {
      failed.push(`${name}: ${error.message}`);
    } finally {
      await reader.close();
    }
  };
  for (const [name, work] of Object.entries(CASES)) await attempt(name, {}, work);
  for (const [width, dark] of [[1440, false], [1440, true], [390, false], [390, true]]) {
    const name = `${width} px, ${dark ? "dark" : "light"}`;
    await attempt(name, { width, height: 900, dark }, async ({ page }) => {
      await shown(page, 239);
      for (const view of ["curves", "rollouts", "settings"]) {
        await page.evaluate((wanted) => (location.hash = `#view=${wanted}&group=7`), view);
        await page.waitForSelector({ curves: ".curve", rollouts: ".answer", settings: ".settings pre" }[view]);
        await sleep(100);
        await accessible(page, `${name}, ${view}`);
        const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert(over <= 0, `${name}, ${view}: ${over} px wider than the screen`);
      }
    });
  }
  if (failed.length > 0) throw new Error(`\n  ${failed.join("\n  ")}`);
  return `${passed} cases`;
}
