// A browser, pages that record every violation, and the few gestures that all tests share.
import { existsSync } from "node:fs";
import puppeteer from "puppeteer-core";
import { Stub } from "./stub.mjs";

const BINARIES = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** The address of a real server; scenarios that need the tricks of the stub are passed over then. */
export const BASE_URL = process.env.BASE_URL ?? null;

export function launch() {
  const executablePath = BINARIES.find((path) => path !== undefined && existsSync(path));
  if (executablePath === undefined) throw new Error("no Chromium found; name one in CHROMIUM");
  return puppeteer.launch({
    executablePath,
    headless: true,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-extensions",
      "--disable-background-networking",
      "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
      "--force-color-profile=srgb",
      "--font-render-hinting=none",
    ],
  });
}

export function assert(condition, message) {
  if (!condition) throw new Error(message);
}

export function equal(found, wanted, what) {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`${what}: found ${a?.slice(0, 600)}, wanted ${b?.slice(0, 600)}`);
}

export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** One reader: a browser profile of its own, with any number of tabs. */
export class Reader {
  violations = [];

  static async create(browser, { stub = null, width = 1200, height = 800, dark = false, clipboard = true } = {}) {
    const reader = new Reader();
    reader.context = await browser.createBrowserContext();
    reader.stub = BASE_URL === null ? (stub ?? (await new Stub().start())) : null;
    reader.url = reader.stub?.url ?? BASE_URL;
    reader.size = { width, height };
    reader.dark = dark;
    if (clipboard) {
      await reader.context.overridePermissions(new URL(reader.url).origin, [
        "clipboard-read",
        "clipboard-write",
        "clipboard-sanitized-write",
      ]);
    }
    return reader;
  }

  async open(address = this.url) {
    const page = await this.context.newPage();
    const host = new URL(this.url).host;
    await page.setViewport(this.size);
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: this.dark ? "dark" : "light" }]);
    page.on("console", (message) => {
      if (message.type() !== "error") return;
      // The browser itself reports refusals and cuts that a test asked for.
      if (/Failed to load resource|net::ERR_/.test(message.text())) return;
      this.violations.push(`console: ${message.text()}`);
    });
    page.on("pageerror", (error) => this.violations.push(`error: ${error.message}`));
    page.on("dialog", (dialog) => {
      this.violations.push(`dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
    page.on("request", (request) => {
      const url = new URL(request.url());
      if (["data:", "blob:"].includes(url.protocol) || url.host === host) return;
      this.violations.push(`request: ${request.url()}`);
    });
    await page.exposeFunction("reportViolation", (text) => this.violations.push(text));
    await page.evaluateOnNewDocument(() => {
      addEventListener("securitypolicyviolation", (event) => {
        window.reportViolation(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
      });
      addEventListener("unhandledrejection", (event) => window.reportViolation(`rejection: ${event.reason}`));
    });
    await page.goto(address, { waitUntil: "load" });
    page.setDefaultTimeout(15_000);
    return page;
  }

  async close() {
    await this.context.close();
    this.stub?.stop();
  }
}

// Gestures

export async function send(page, text) {
  await page.waitForSelector(".badge");
  await page.click("#message");
  await page.evaluate((value) => document.execCommand("insertText", false, value), text);
  await page.keyboard.press("Enter");
}

/** Waits until an answer has ended, and as many have ended as are wanted. */
export async function answered(page, count = 1) {
  await page.waitForFunction(
    (wanted) => {
      const answers = [...document.querySelectorAll(".answer")];
      return answers.length >= wanted && answers.every((answer) => answer.getAttribute("aria-busy") === "false");
    },
    { timeout: 60_000 },
    count,
  );
}

export async function ask(page, text, count = 1) {
  await send(page, text);
  await answered(page, count);
}

export const lastAnswer = (page) =>
  page.evaluate(() => [...document.querySelectorAll(".answer .prose")].at(-1)?.innerText.trim() ?? "");

export const texts = (page, selector) =>
  page.$$eval(selector, (found) => found.map((element) => element.innerText.trim()));

/** Presses the button of this name below `selector`, the last one if there are several. */
export async function press(page, selector, name) {
  const handle = await page.waitForFunction(
    (where, label) =>
      [...document.querySelectorAll(`${where} button`)]
        .filter((button) => (button.getAttribute("aria-label") ?? button.innerText).trim() === label && !button.disabled)
        .at(-1) ?? null,
    {},
    selector,
    name,
  );
  await handle.asElement().evaluate((button) => button.click());
}

export async function importFile(page, text) {
  const input = await page.$(".files input[type=file]");
  await input.evaluate((element, content) => {
    const data = new DataTransfer();
    data.items.add(new File([content], "conversations.json", { type: "application/json" }));
    element.files = data.files;
    element.dispatchEvent(new Event("change", { bubbles: true }));
  }, text);
  await page.waitForSelector(".notice");
}

/** Everything the page has stored, as it lies in the browser. */
export function stored(page) {
  return page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const open = indexedDB.open("minke");
        open.onerror = () => reject(open.error);
        open.onsuccess = () => {
          const transaction = open.result.transaction(["conversations", "messages"]);
          const conversations = transaction.objectStore("conversations").getAll();
          const messages = transaction.objectStore("messages").getAll();
          transaction.oncomplete = () => {
            open.result.close();
            resolve({ conversations: conversations.result, messages: messages.result });
          };
        };
      }),
  );
}
