// A real dashboard in a browser: how long a line takes from the file to the page, and a rollout from the question to the page.
// `node test/board-real.mjs BINARY FOLDER`, where FOLDER is a run such as the example find_rollouts of minke-train writes.
import { spawn } from "node:child_process";
import { appendFileSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { Reader, launch, sleep } from "./harness.mjs";

const [binary, folder] = process.argv.slice(2);
const path = `${folder}/stages/zero/metrics.jsonl`;
const server = spawn(binary, ["report", folder, "--live", "127.0.0.1:0"], { stdio: ["ignore", "ignore", "pipe"] });
const url = await new Promise((resolve, reject) => {
  server.on("exit", (code) => reject(new Error(`the program ended with ${code}`)));
  createInterface(server.stderr).on("line", (line) => {
    const found = /http:\/\/\S+\//.exec(line);
    if (found !== null) resolve(found[0]);
  });
});
const browser = await launch();
try {
  const reader = await Reader.create(browser, { stub: { url, stop() {} }, width: 1440, height: 900, clipboard: false });
  const page = await reader.open();
  const shown = (step) => page.waitForFunction((wanted) => document.querySelector("#newest-step")?.dataset.step === String(wanted), { polling: 10, timeout: 60_000 }, step);
  const began = Date.now();
  const last = JSON.parse(readFileSync(path, "utf8").trim().split("\n").at(-1)).step;
  await shown(last);
  console.log(`curves of ${last + 1} steps after ${Date.now() - began} ms`);
  const lags = [];
  for (let i = 1; i <= 20; i++) {
    const at = Date.now();
    appendFileSync(path, `${JSON.stringify({ step: last + i, loss: 0.01, reward: 0.5, "rewards/accuracy/mean": 0.5, entropy: 0.3 })}\n`);
    await shown(last + i);
    lags.push(Date.now() - at);
    await sleep(Math.floor(137 * (i % 5)));
  }
  lags.sort((a, b) => a - b);
  console.log(`lag of a line: median ${lags[10]} ms, largest ${lags[19]} ms`);

  await (await page.waitForSelector('.views a[href*="rollouts"]')).click();
  await page.waitForSelector(".group-row");
  const summary = () => page.$eval(".list .note", (note) => note.innerText);
  console.log(await summary());
  const done = (wanted) =>
    page.waitForFunction((text) => {
      const note = document.querySelector(".list .note").innerText;
      const row = document.querySelector(".group-row");
      return /\(\d+ ms\)/.test(note) && row !== null && row.innerText.includes(text);
    }, { polling: 10, timeout: 60_000 }, wanted);
  for (const [name, field, value, row] of [
    ["a step", "step", "400", "step 400"],
    ["a text of a question", "text", "Basket 3210 of 7473", "Basket 3210 of 7473"],
    ["a text of one answer", "text", "group 6250 rollout 3", "step 390"],
  ]) {
    await page.click(".filters .quiet");
    await sleep(700);
    const at = Date.now();
    // Pasted, as one types slowly.
    await page.focus(`[name="${field}"]`);
    await page.evaluate((text) => document.execCommand("insertText", false, text), value);
    await done(row);
    const found = Date.now() - at;
    await page.click(".group-row");
    await page.waitForSelector(".reading .answer");
    console.log(`${name}: found after ${found} ms, read after ${Date.now() - at} ms. ${await summary()}`);
  }
  if (process.argv[4] !== undefined) await page.screenshot({ path: process.argv[4] });
  if (reader.violations.length > 0) throw new Error(reader.violations.join("; "));
} finally {
  server.removeAllListeners("exit");
  server.kill();
  await browser.close();
}
