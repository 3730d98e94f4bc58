// What a reader does with the page. Each scenario gets a reader with a fresh profile; `real` ones need no tricks of the
// stub and also run against the server that BASE_URL names.
import { answered, ask, assert, equal, importFile, lastAnswer, press, send, sleep, stored, texts } from "./harness.mjs";

const LONG_THOUGHT = Array.from({ length: 120 }, (_, n) => `Step ${n}: add ${n} to what there was.`).join("\n\n");
const LONG_ANSWER = Array.from({ length: 80 }, (_, n) => `Paragraph ${n} says what follows from the one before it.`).join("\n\n");

const hashOf = (page) => page.evaluate(() => location.hash);
const thoughtLine = (page) => page.$eval(".thought-line", (element) => element.innerText.trim());
const phase = (page, wanted) => page.waitForSelector(wanted);

export const scenarios = [
  {
    name: "send and read",
    real: true,
    async run({ page, real }) {
      // A question of the kind that the embedded model learned: about others it may think until it ends.
      await ask(page, "compute 2+3*4");
      assert((await lastAnswer(page)) !== "", "there is an answer");
      equal(await texts(page, ".question-text"), ["compute 2+3*4"], "the question is shown");
      if (!real) equal(await lastAnswer(page), "Here is an answer.", "the answer");
      assert(/^#\/c\/[0-9a-f]{24}$/.test(await hashOf(page)), "the address names the conversation");
      assert((await page.title()).startsWith("compute 2+3*4"), "the title follows the conversation");
    },
  },
  {
    name: "text streams in",
    async run({ page, stub }) {
      stub.scripts.push({ answer: LONG_ANSWER, speed: 300 });
      await send(page, "Go on.");
      const lengths = [];
      for (let n = 0; n < 6; n++) {
        await sleep(150);
        lengths.push(await page.$eval(".answer .prose", (element) => element.innerText.length).catch(() => 0));
      }
      assert(new Set(lengths).size >= 4, `the text grows in steps: ${lengths}`);
      await answered(page);
      equal((await lastAnswer(page)).replace(/\s+/g, " "), LONG_ANSWER.replace(/\s+/g, " "), "all of it");
    },
  },
  {
    name: "a thought is folded when it is over",
    async run({ page, stub }) {
      stub.scripts.push({ thought: "One.\n\nTwo.", answer: "Three.", speed: 8 });
      await send(page, "Think.");
      await phase(page, ".thought-preview");
      await answered(page);
      await phase(page, ".thought-folded");
      assert(/^Thought for .* s · \d+ tokens$/.test(await thoughtLine(page)), await thoughtLine(page));
      await page.click(".thought-line");
      equal(await texts(page, ".thought-text p"), ["One.", "Two."], "opened by the reader");
      equal(await page.$eval(".thought-line", (line) => line.ariaExpanded), "true", "expanded");
      await page.click(".thought-line");
      await phase(page, ".thought-folded");
    },
  },
  {
    name: "a thought that was opened stays open",
    async run({ page, stub }) {
      stub.scripts.push({ thought: LONG_THOUGHT.slice(0, 900), answer: "Done.", speed: 150 });
      await send(page, "Think.");
      await phase(page, ".thought-preview");
      await page.click(".thought-line");
      await phase(page, ".thought-all");
      await answered(page);
      await phase(page, ".thought-all");
      const shown = (await texts(page, ".thought-text p")).join("\n\n");
      assert(shown.startsWith("Step 0") && LONG_THOUGHT.startsWith(shown.slice(0, 800)), "all of the thought is there");
    },
  },
  {
    name: "live clock and counts",
    async run({ page, stub }) {
      stub.scripts.push({ thought: LONG_THOUGHT, answer: "Done.", speed: 300 });
      await send(page, "Think.");
      await phase(page, ".thought-line");
      const seen = [];
      for (let n = 0; n < 5; n++) {
        await sleep(450);
        seen.push(await thoughtLine(page));
      }
      assert(seen.every((line) => /^Thinking for [\d.]+ s · [\d,]+ tokens?$/.test(line)), seen.join(" | "));
      const counts = seen.map((line) => Number(/· ([\d,]+)/.exec(line)[1].replace(",", "")));
      assert(counts.every((count, n) => n === 0 || count > counts[n - 1]), `counts grow: ${counts}`);
      await page.waitForFunction(() => /\d+ tokens\/s/.test(document.querySelector(".speed").innerText));
    },
  },
  {
    name: "the bar while the prompt is read",
    async run({ page, stub }) {
      stub.scripts.push({ answer: "Done.", prefillMs: 1200, promptTokens: 4000, cachedTokens: 1000 });
      await send(page, "A long prompt.");
      await phase(page, ".prefill");
      const first = await page.$eval("[role=progressbar]", (bar) => Number(bar.ariaValueNow));
      await sleep(500);
      const second = await page.$eval("[role=progressbar]", (bar) => Number(bar.ariaValueNow));
      assert(first >= 1000 && second > first && second <= 4000, `${first} then ${second}`);
      equal(await page.$eval(".prefill-cached", (bar) => bar.style.width), "25%", "the cached part");
      assert((await page.$eval(".prefill", (bar) => bar.innerText)).includes("of 4,000 tokens, 1,000 from the cache"), "counts");
      await answered(page);
    },
  },
  {
    name: "stop with the button",
    async run({ page, stub }) {
      stub.scripts.push({ answer: LONG_ANSWER, speed: 100 });
      await send(page, "Go on.");
      await page.waitForFunction(() => document.querySelector(".prose")?.innerText.length > 20);
      await press(page, ".composer", "Stop");
      await answered(page);
      const text = await lastAnswer(page);
      await sleep(300);
      equal(await lastAnswer(page), text, "nothing is added after a stop");
      equal(await texts(page, ".ending"), ["Stopped."], "it says so");
      equal(stub.cancelled.length, 1, "the server was told");
    },
  },
  {
    name: "stop with Escape",
    real: true,
    async run({ page, stub, real }) {
      stub?.scripts.push({ thought: LONG_THOUGHT, answer: LONG_ANSWER, speed: 100 });
      await send(page, "Count from one to a thousand, in words.");
      await page.waitForFunction(
        () =>
          document.querySelector(".prose")?.innerText.length > 5 ||
          document.querySelector(".thought-text p") !== null ||
          document.querySelector(".answer")?.getAttribute("aria-busy") === "false",
      );
      await page.keyboard.press("Escape");
      await answered(page);
      const ending = await texts(page, ".ending");
      // A small model may have come to its end, or to that of its context, before the key did.
      const own = real && (ending.length === 0 || ending[0] === "Cut short at the largest number of tokens.");
      if (!own) equal(ending, ["Stopped."], "it says so");
    },
  },
  {
    name: "regenerate gives a second version",
    real: true,
    async run({ page, stub }) {
      stub?.scripts.push({ answer: "First." }, { answer: "Second." });
      await ask(page, "Say something.");
      const first = await lastAnswer(page);
      await press(page, ".answer", "Regenerate");
      await page.waitForSelector(".answer .siblings");
      await answered(page);
      const second = await lastAnswer(page);
      equal((await texts(page, ".answer .siblings"))[0].replace(/\s/g, ""), "‹2/2›", "second of two");
      equal(await page.evaluate(() => document.activeElement.id), "message", "the focus is not lost");
      await press(page, ".answer", "Version before");
      await page.waitForFunction(() => document.querySelector(".siblings").innerText.includes("1/2"));
      equal(await lastAnswer(page), first, "back to the first");
      await press(page, ".answer", "Version after");
      await page.waitForFunction(() => document.querySelector(".siblings").innerText.includes("2/2"));
      equal(await lastAnswer(page), second, "and to the second");
    },
  },
  {
    name: "edit, branch and switch back",
    async run({ page, stub }) {
      stub.scripts.push({ answer: "A1" }, { answer: "A2" }, { answer: "B1" });
      await ask(page, "Q1");
      await ask(page, "Q2", 2);
      await page.hover(".question");
      await page.evaluate(() => [...document.querySelectorAll(".question button")].find((b) => b.innerText === "Edit").click());
      // The editor puts the cursor behind the text when it is shown.
      await page.waitForFunction(() => document.activeElement === document.querySelector(".editor textarea")
        && document.activeElement.selectionStart === document.activeElement.value.length);
      await page.evaluate(() => document.querySelector(".editor textarea").select());
      await page.keyboard.type("Q1 changed");
      await page.keyboard.press("Enter");
      await page.waitForFunction(() => document.querySelectorAll(".question").length === 1);
      await answered(page);
      equal(stub.asked[2].input, [{ role: "user", content: "Q1 changed" }], "only the branch is sent");
      equal(await lastAnswer(page), "B1", "the answer of the branch");
      await press(page, ".question", "Version before");
      await page.waitForFunction(() => document.querySelectorAll(".question").length === 2);
      equal(await texts(page, ".question-text"), ["Q1", "Q2"], "the old branch with all that follows");
      equal(await texts(page, ".prose"), ["A1", "A2"], "and its answers");
      equal(stub.asked[1].input.map((entry) => entry.role), ["user", "assistant", "user"], "the history is sent");
    },
  },
  {
    name: "a reload restores",
    real: true,
    async run({ page, stub }) {
      stub?.scripts.push({ thought: "Hm.", answer: "Kept **for good**." });
      await ask(page, "Keep this.");
      const before = [await texts(page, ".question-text"), await texts(page, ".prose"), await hashOf(page)];
      await page.reload();
      await answered(page);
      equal([await texts(page, ".question-text"), await texts(page, ".prose"), await hashOf(page)], before, "the same");
    },
  },
  {
    name: "a reload before the end is stored",
    async run({ page, stub }) {
      await page.evaluate(() => {
        const put = IDBObjectStore.prototype.put;
        IDBObjectStore.prototype.put = function (value) {
          return value.status === "done" ? undefined : put.call(this, value);
        };
      });
      await ask(page, "Hello.");
      await page.reload();
      await answered(page);
      equal(await lastAnswer(page), "Here is an answer.", "read again from the server");
      equal(stub.resumed, 1, "by its name");
    },
  },
  {
    name: "a reload in mid-stream goes on",
    async run({ page, stub }) {
      stub.scripts.push({ thought: LONG_THOUGHT.slice(0, 1500), answer: LONG_ANSWER, speed: 350 });
      await send(page, "Go on.");
      await page.waitForFunction(() => document.querySelector(".prose")?.innerText.length > 200);
      await page.reload();
      await page.waitForSelector(".answer");
      await answered(page);
      equal((await lastAnswer(page)).replace(/\s+/g, " "), LONG_ANSWER.replace(/\s+/g, " "), "no byte lost or doubled");
      const { messages } = await stored(page);
      const answer = messages.find((message) => message.role === "assistant");
      equal(answer.thought, LONG_THOUGHT.slice(0, 1500), "the thought too");
      equal(stub.asked.length, 1, "asked once");
      assert(stub.resumed >= 1, "resumed");
    },
  },
  {
    name: "two tabs",
    async run({ page, reader, stub }) {
      stub.scripts.push({ answer: "From the first." }, { answer: LONG_ANSWER, speed: 250 }, { answer: "From the second." });
      await ask(page, "One.");
      const other = await reader.open(page.url());
      await answered(other);
      // The second tab follows what the first one reads, and does not ask the server for it.
      await page.bringToFront();
      await send(page, "Two.");
      // A tab in the background draws no frames, so it is looked at by the clock.
      await other.waitForFunction(() => document.querySelectorAll(".question").length === 2, { polling: 50 });
      await answered(page, 2);
      await other.bringToFront();
      await answered(other, 2);
      equal((await lastAnswer(other)).replace(/\s+/g, " "), LONG_ANSWER.replace(/\s+/g, " "), "the second tab has it all");
      equal(stub.resumed, 0, "one connection");
      await ask(other, "Three.", 3);
      await page.bringToFront();
      await answered(page, 3);
      equal(await texts(page, ".question-text"), ["One.", "Two.", "Three."], "the first tab follows");
    },
  },
  {
    name: "two tabs that write at once lose nothing",
    async run({ page, reader, stub }) {
      await ask(page, "Start.");
      const other = await reader.open(page.url());
      await answered(other);
      stub.otherwise = { answer: LONG_ANSWER.slice(0, 500), speed: 150 };
      await page.bringToFront();
      await page.type("#message", "Mine");
      await other.bringToFront();
      await other.type("#message", "Yours");
      const enter = (tab) =>
        tab.evaluate(() =>
          document.querySelector("#message").dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true })),
        );
      await Promise.all([enter(page), enter(other)]);
      await sleep(300);
      await answered(other, 2);
      await page.bringToFront();
      await answered(page, 2);
      const { messages } = await stored(page);
      equal(messages.map((message) => message.text).filter((text) => ["Mine", "Yours"].includes(text)).sort(), ["Mine", "Yours"], "both");
      const answers = messages.filter((message) => message.role === "assistant" && message.text.startsWith("Paragraph"));
      equal(answers.map((message) => message.text), [LONG_ANSWER.slice(0, 500), LONG_ANSWER.slice(0, 500)], "both answers");
    },
  },
  {
    name: "a tab takes over when the reading tab is closed",
    async run({ page, reader, stub }) {
      await ask(page, "Start.");
      const other = await reader.open(page.url());
      await answered(other);
      stub.scripts.push({ answer: LONG_ANSWER, speed: 200 });
      await page.bringToFront();
      await send(page, "Go on.");
      await page.waitForFunction(() => [...document.querySelectorAll(".prose")].at(-1)?.innerText.length > 60);
      await sleep(1200);
      await page.close();
      await other.bringToFront();
      await other.waitForFunction(() => document.querySelectorAll(".answer").length === 2);
      await answered(other, 2);
      equal((await lastAnswer(other)).replace(/\s+/g, " "), LONG_ANSWER.replace(/\s+/g, " "), "complete");
      equal(stub.asked.length, 2, "asked once");
    },
  },
  {
    name: "the key is asked for, and a wrong one refused",
    prepare: (stub) => (stub.key = "right"),
    async run({ page, stub }) {
      await page.waitForSelector("dialog.key[open]");
      await page.type("dialog.key input[name=key]", "wrong");
      await page.keyboard.press("Enter");
      await page.waitForSelector("dialog.key .ending-failed");
      await page.type("dialog.key input[name=key]", "right");
      await page.click("dialog.key input[name=remember]");
      await press(page, "dialog.key", "Use this key");
      await page.waitForSelector(".badge");
      equal(await page.evaluate(() => [localStorage.getItem("minke-key"), sessionStorage.getItem("minke-key")]), ["right", null], "remembered");
      await ask(page, "Hello.");
      stub.key = "changed";
      await send(page, "Again.");
      await page.waitForSelector("dialog.key[open]");
      await page.type("dialog.key input[name=key]", "changed");
      await page.keyboard.press("Enter");
      await answered(page, 2);
      equal(await lastAnswer(page), "Here is an answer.", "it goes on after the question");
      equal(await page.evaluate(() => [localStorage.getItem("minke-key"), sessionStorage.getItem("minke-key")]), [null, "changed"], "not remembered");
    },
  },
  {
    name: "a server restart in mid-stream",
    async run({ page, stub }) {
      stub.scripts.push({ answer: LONG_ANSWER, speed: 150 }, { answer: "Complete now." });
      await send(page, "Go on.");
      await page.waitForFunction(() => document.querySelector(".prose")?.innerText.length > 100);
      stub.restart();
      await answered(page);
      assert((await lastAnswer(page)).length > 50, "the partial answer stays");
      assert((await texts(page, ".ending"))[0].startsWith("Interrupted."), "it is marked");
      await press(page, ".ending", "Continue");
      await page.waitForSelector(".answer .siblings");
      await answered(page);
      equal(await lastAnswer(page), "Complete now.", "continued");
    },
  },
  {
    name: "a cut network resumes, byte for byte",
    async run({ page, stub }) {
      const text = "Größe, naïve, 漢字, emoji 🐋🌊, and “quotes”. ".repeat(60);
      stub.scripts.push({ thought: text, answer: text, speed: 600, cutAt: [0, 3, 40, 41, 300, 700, 900], shred: true });
      await send(page, "Go on.");
      await answered(page);
      const { messages } = await stored(page);
      const answer = messages.find((message) => message.role === "assistant");
      equal(answer.text, text.trimEnd() + " ", "the answer");
      equal(answer.thought, text.trimEnd() + " ", "the thought");
      equal(answer.status, "done", "ended by itself");
      equal(stub.resumed, 7, "seven cuts");
    },
  },
  {
    name: "a network that is away for a while",
    async run({ page, stub }) {
      stub.scripts.push({ answer: LONG_ANSWER, speed: 150 });
      await send(page, "Go on.");
      await page.waitForFunction(() => document.querySelector(".prose")?.innerText.length > 100);
      stub.setOffline(true);
      await page.waitForFunction(() => document.querySelector(".waiting")?.innerText.includes("Offline, reconnecting"));
      await sleep(1200);
      stub.setOffline(false);
      await answered(page);
      equal((await lastAnswer(page)).replace(/\s+/g, " "), LONG_ANSWER.replace(/\s+/g, " "), "complete");
    },
  },
  {
    name: "a full context",
    async run({ page, stub }) {
      const message = "the prompt has 9,120 tokens, the context 8,192";
      stub.scripts.push({ refuse: { status: 400, code: "context_length_exceeded", message } });
      await send(page, "Too much.");
      await answered(page);
      const ending = (await texts(page, ".ending"))[0];
      assert(ending.includes("The context is full") && ending.includes("9,120") && ending.includes("8,192"), ending);
      await press(page, ".ending", "Retry");
      await page.waitForFunction(() => document.querySelector(".prose")?.innerText !== "");
      await answered(page);
      equal((await texts(page, ".answer")).length, 1, "in the place of the failed one");
    },
  },
  {
    name: "a busy server is asked again",
    async run({ page, stub }) {
      stub.scripts.push({ refuse: { status: 429, retryAfter: 1 } }, { refuse: { status: 503, retryAfter: 1 } }, { answer: "Now." });
      await send(page, "Hello.");
      await page.waitForFunction(() => document.querySelector(".waiting")?.innerText.includes("The server is busy"));
      await answered(page);
      equal(await lastAnswer(page), "Now.", "answered at last");
      equal(stub.asked.length, 3, "three attempts");
    },
  },
  {
    name: "a failure in mid-stream and an unreachable server",
    async run({ page, stub }) {
      stub.scripts.push({ answer: "Half of it", failure: { code: "server_error", message: "the model is out of memory" } });
      await ask(page, "Hello.");
      assert((await texts(page, ".ending"))[0].includes("could not finish this answer: the model is out of memory"), "the sentence");
      equal(await lastAnswer(page), "Half of it", "what came stays");
      stub.setOffline(true);
      await send(page, "Hello again.");
      await answered(page, 2);
      assert((await texts(page, ".ending")).at(-1).includes("The server cannot be reached."), "the sentence");
      stub.setOffline(false);
      await press(page, ".ending", "Retry");
      await page.waitForFunction(() => [...document.querySelectorAll(".prose")].at(-1).innerText !== "");
      equal(await lastAnswer(page), "Here is an answer.", "retried");
    },
  },
  {
    name: "390 pixels wide",
    real: true,
    options: { width: 390, height: 800 },
    async run({ page, stub }) {
      stub?.scripts.push({
        thought: "w".repeat(300),
        answer:
          `# Title\n\n${"long".repeat(80)}\n\n\`${"code".repeat(60)}\`\n\n$$${"x+".repeat(80)}1$$\n\n` +
          `\`\`\`python\n${"print(1); ".repeat(40)}\n\`\`\`\n\n|${"a|".repeat(20)}\n|${"-|".repeat(20)}\n|${"word|".repeat(20)}\n`,
      });
      await ask(page, `A ${"very".repeat(100)} long word`);
      const wide = () =>
        page.evaluate(() => [document.documentElement.scrollWidth, document.querySelector(".scroll").scrollWidth, innerWidth]);
      await sleep(300);
      let [whole, log, width] = await wide();
      assert(whole <= width && log <= width, `no horizontal scroll: ${[whole, log, width]}`);
      await page.click('[aria-label="Show conversations"]');
      await page.waitForSelector(".list-open");
      [whole, , width] = await wide();
      assert(whole <= width, "none with the list either");
      await page.keyboard.press("Escape");
      await page.waitForFunction(() => document.querySelector(".list-open") === null);
    },
  },
  {
    name: "dark and light",
    real: true,
    options: { dark: true },
    async run({ page }) {
      const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      await page.waitForSelector(".badge");
      const dark = await ground();
      await press(page, ".header", "Settings");
      await page.select("select[name=theme]", "light");
      const light = await ground();
      assert(dark !== light, `${dark} ${light}`);
      await page.reload();
      await page.waitForSelector(".badge");
      equal(await ground(), light, "the choice is kept");
    },
  },
  {
    name: "the keyboard alone",
    async run({ page, stub }) {
      await page.waitForSelector(".badge");
      await page.waitForFunction(() => document.activeElement?.id === "message");
      await page.keyboard.type("Hello");
      await page.keyboard.down("Shift");
      await page.keyboard.press("Enter");
      await page.keyboard.up("Shift");
      await page.keyboard.type("there");
      await page.keyboard.press("Enter");
      await answered(page);
      equal(stub.asked[0].input[0].content, "Hello\nthere", "two lines");
      // Back with the Tab key to the answer, and open its thought with Enter.
      for (let n = 0; n < 12; n++) {
        await page.keyboard.down("Shift");
        await page.keyboard.press("Tab");
        await page.keyboard.up("Shift");
        if (await page.evaluate(() => document.activeElement.matches(".thought-line"))) break;
      }
      assert(await page.evaluate(() => document.activeElement.matches(".thought-line")), "the thought is reached");
      await page.keyboard.press("Enter");
      await phase(page, ".thought-all");
      await page.keyboard.down("Control");
      await page.keyboard.down("Shift");
      await page.keyboard.press("KeyO");
      await page.keyboard.up("Shift");
      await page.keyboard.up("Control");
      await page.waitForSelector(".beginning");
      equal(await page.evaluate(() => document.activeElement.id), "message", "ready to write");
      // From the top of the page the first stop leads past the list.
      await page.evaluate(() => document.activeElement.blur());
      await page.evaluate(() => document.body.focus());
      await page.reload();
      await page.waitForSelector(".badge");
      await page.focus(".skip");
      await page.keyboard.press("Enter");
      equal(await page.evaluate(() => document.activeElement.id), "message", "the skip link");
    },
  },
  {
    name: "settings by keyboard, focus comes back",
    async run({ page }) {
      await page.waitForSelector(".badge");
      await page.focus(".header > button:last-child");
      await page.keyboard.press("Enter");
      await page.waitForSelector("dialog.drawer[open]");
      await page.keyboard.press("Escape");
      await page.waitForFunction(() => document.querySelector("dialog") === null);
      equal(await page.evaluate(() => document.activeElement.innerText), "Settings", "focus is back");
    },
  },
  {
    name: "what a screen reader hears",
    async run({ page, stub }) {
      stub.scripts.push({ thought: "Hm.", answer: LONG_ANSWER.slice(0, 400), speed: 100 });
      await page.evaluate(() => {
        window.heard = [];
        const place = document.querySelector("[aria-live=polite]");
        new MutationObserver(() => window.heard.push(place.innerText)).observe(place, { childList: true, characterData: true, subtree: true });
      });
      await send(page, "Hello.");
      await answered(page);
      await sleep(100);
      const heard = await page.evaluate(() => window.heard.filter((text) => text !== ""));
      equal(heard.length, 1, "one message");
      assert(heard[0].startsWith("Answer: Paragraph 0"), heard[0]);
    },
  },
  {
    name: "search in titles and texts",
    async run({ page, stub }) {
      stub.scripts.push({ answer: "The narwhal has one tusk." }, { answer: "Lighthouses blink." });
      await ask(page, "About whales");
      await press(page, ".sidebar", "New");
      await page.waitForSelector(".beginning");
      await ask(page, "About towers");
      await page.evaluate(() => document.activeElement.blur());
      await page.keyboard.press("/");
      await page.waitForFunction(() => document.activeElement.matches(".search"));
      await page.keyboard.type("NARWHAL tusk");
      await page.waitForSelector("mark");
      equal((await texts(page, ".list .entry-title")).join(), "About whales", "found by its text");
      await page.keyboard.press("Escape");
      await page.keyboard.down("Control");
      await page.keyboard.press("k");
      await page.keyboard.up("Control");
      await page.waitForFunction(() => document.activeElement.matches(".search"));
      await page.keyboard.type("towers");
      await page.waitForFunction(() => document.querySelectorAll("mark").length === 1);
      await page.click(".list .entry");
      equal(await texts(page, ".question-text"), ["About towers"], "opened");
    },
  },
  {
    name: "export and import give the same",
    async run({ page, stub }) {
      stub.scripts.push({ thought: "T", answer: "A $x$ <b>" }, { answer: "B" });
      await ask(page, "Question");
      await press(page, ".answer", "Regenerate");
      await page.waitForSelector(".answer .siblings");
      await answered(page);
      await page.evaluate(() => {
        window.blobs = [];
        const make = URL.createObjectURL;
        URL.createObjectURL = (blob) => (window.blobs.push(blob), make.call(URL, blob));
        HTMLAnchorElement.prototype.click = function () {};
      });
      await press(page, ".files", "Export all");
      await page.waitForFunction(() => window.blobs.length === 1);
      const text = await page.evaluate(() => window.blobs[0].text());
      const before = await stored(page);
      await press(page, ".sidebar", "Actions for Question");
      await press(page, ".entry-actions", "Delete");
      await press(page, ".entry-actions", "Delete");
      await page.waitForFunction(() => document.querySelector(".list .entry") === null);
      equal((await stored(page)).messages.length, 0, "all is gone");
      await importFile(page, text);
      await page.waitForSelector(".list .entry");
      const after = await stored(page);
      const shape = ({ conversations, messages }) => {
        const place = new Map(messages.sort((a, b) => a.created - b.created || (a.role < b.role ? 1 : -1)).map((m, n) => [m.id, n]));
        return [
          conversations.map(({ title, created, updated, settings, leaf }) => ({ title, created, updated, settings, leaf: place.get(leaf) })),
          messages.map(({ role, text, thought, status, created, parent, stats }) => ({ role, text, thought, status, created, stats, parent: place.get(parent) ?? null })),
        ];
      };
      equal(shape(after), shape(before), "the same");
      await page.click(".list .entry");
      await page.waitForSelector(".answer");
      equal(await lastAnswer(page), "B", "and shown");
    },
  },
  {
    name: "hostile files are refused",
    async run({ page }) {
      const message = { id: "a", parent: null, role: "user", text: "x", created: 1 };
      const wrap = (conversation, messages) =>
        JSON.stringify({ format: "minke-conversations", version: 1, conversations: [{ conversation, messages }] });
      const bad = [
        "no json",
        "[]",
        "null",
        '"text"',
        '{"format":"other"}',
        JSON.stringify({ format: "minke-conversations", version: 1, conversations: {} }),
        wrap(null, []),
        wrap({}, null),
        wrap({}, [{ ...message, id: "../../x" }]),
        wrap({}, [{ ...message, id: 7 }]),
        wrap({}, [message, message]),
        wrap({}, [{ ...message, role: "system" }]),
        wrap({}, [{ ...message, text: { toString: 1 } }]),
        wrap({}, [{ ...message, parent: "missing" }]),
        wrap({}, [{ ...message, parent: "a" }]),
        wrap({}, [{ ...message, parent: "b" }, { ...message, id: "b", parent: "a" }]),
        wrap({}, [[message]]),
      ];
      await page.waitForSelector(".files");
      for (const text of bad) {
        await importFile(page, text);
        const notice = (await texts(page, ".notice"))[0];
        assert(!notice.includes("imported.") || notice.includes("could not"), `refused: ${text} ${notice}`);
        await press(page, ".notice", "Close");
        await page.waitForFunction(() => document.querySelector(".notice") === null);
      }
      equal((await stored(page)).conversations.length, 0, "nothing was kept");
      await importFile(
        page,
        wrap({ title: "<img src=x onerror=alert(1)>\u202e\n", leaf: "__proto__", settings: { __proto__: { temperature: 9 }, temperature: "1" } }, [
          { ...message, text: "<script>alert(1)</script>", polluted: true, status: "running", response: { id: "x", sequence: 1 } },
        ]).replace('"settings"', '"__proto__":{"polluted":1},"settings"'),
      );
      await page.waitForSelector(".list .entry");
      equal(await texts(page, ".list .entry-title"), ["<img src=x onerror=alert(1)>"], "a title is text");
      await page.click(".list .entry");
      await page.waitForSelector(".question-text");
      equal(await texts(page, ".question-text"), ["<script>alert(1)</script>"], "a message is text");
      equal(await page.evaluate(() => ({}).polluted ?? null), null, "no prototype was changed");
      equal((await stored(page)).conversations[0].settings, {}, "settings of the wrong type are left out");
    },
  },
  {
    name: "rename and delete",
    real: true,
    async run({ page, reader }) {
      await ask(page, "Old title");
      const other = await reader.open(page.url());
      await other.waitForSelector(".list .entry");
      await page.bringToFront();
      await press(page, ".sidebar", "Actions for Old title");
      await press(page, ".entry-actions", "Rename");
      await page.waitForSelector(".rename:focus");
      await page.keyboard.type("Never mind");
      await page.keyboard.press("Escape");
      await page.waitForFunction(() => document.querySelector(".rename") === null);
      equal((await stored(page)).conversations[0].title, "Old title", "Escape keeps the old one");
      await press(page, ".sidebar", "Actions for Old title");
      await press(page, ".entry-actions", "Rename");
      await page.waitForSelector(".rename:focus");
      await page.keyboard.type("New title");
      await page.keyboard.press("Enter");
      await page.waitForFunction(() => document.title.startsWith("New title"));
      await other.waitForFunction(() => document.title.startsWith("New title"), { polling: 50 });
      await press(page, ".sidebar", "Actions for New title");
      await press(page, ".entry-actions", "Delete");
      await press(page, ".entry-actions", "Delete");
      await page.waitForSelector(".beginning");
      await other.bringToFront();
      await other.waitForSelector(".beginning");
      equal(await stored(page), { conversations: [], messages: [] }, "nothing is left");
    },
  },
  {
    name: "settings reach the request",
    async run({ page, stub }) {
      await page.waitForSelector(".badge");
      await ask(page, "With defaults.");
      const { model, input, stream, store, background, stream_options, ...rest } = stub.asked[0];
      equal([model, stream, store, background, stream_options], ["r1-distill-qwen-1.5b", true, true, true, { include_progress: true }], "always sent");
      equal([input, rest], [[{ role: "user", content: "With defaults." }], {}], "nothing else by default");
      await press(page, ".header", "Settings");
      const values = { temperature: "0.6", top_p: "0.95", top_k: "40", min_p: "0.05", seed: "7", max_tokens: "512", budget: "256" };
      for (const [name, value] of Object.entries(values)) await page.type(`dialog [name=${name}]`, value);
      await page.type("dialog [name=system]", "Be brief.");
      await press(page, "dialog", "Close");
      await ask(page, "With settings.", 2);
      const second = stub.asked[1];
      equal(second.input[0], { role: "system", content: "Be brief." }, "the system prompt comes first");
      equal(
        [second.temperature, second.top_p, second.top_k, second.min_p, second.seed, second.max_output_tokens, second.reasoning],
        [0.6, 0.95, 40, 0.05, 7, 512, { max_tokens: 256 }],
        "all values",
      );
      await page.reload();
      await page.waitForSelector(".badge");
      await press(page, ".header", "Settings");
      equal(await page.$eval("dialog [name=top_k]", (input) => input.value), "40", "kept with the conversation");
      await page.select("dialog [name=thinking]", "false");
      await page.$eval("dialog [name=temperature]", (input) => input.select());
      await page.keyboard.press("Backspace");
      await page.type("dialog [name=min_p]", "9");
      equal(await page.$eval("dialog [name=min_p]", (input) => input.ariaInvalid), "true", "a value out of range is marked");
      await press(page, "dialog", "Close");
      await ask(page, "Without thinking.", 3);
      equal([stub.asked[2].reasoning, stub.asked[2].temperature, stub.asked[2].min_p], [{ effort: "none" }, undefined, 0.05], "changed");
    },
  },
  {
    name: "models, badge and the meter of the context",
    prepare: (stub) =>
      (stub.models = [
        { id: "bare", object: "model" },
        { id: "full", object: "model", context_length: 4096, quantization: "Q8_0", parameters: 7e9, thinking: "always" },
      ]),
    async run({ page, stub }) {
      await page.waitForSelector(".badge");
      equal(await texts(page, ".badge-facts"), [""], "a model of which nothing is known");
      await page.select(".badge select", "full");
      equal(await texts(page, ".badge-facts"), ["7.0B · Q8_0 · 4k context"], "its facts");
      stub.scripts.push({ answer: "one two three", promptTokens: 1000 });
      await ask(page, "Hello.");
      equal(stub.asked[0].model, "full", "the chosen one is asked");
      equal(await texts(page, ".meter"), ["1,003 of 4,096 tokens"], "used and all");
      await press(page, ".header", "Settings");
      equal(await page.$("dialog [name=thinking]"), null, "what cannot be switched is not offered");
    },
  },
  {
    name: "copy a message and code",
    async run({ page, stub }) {
      stub.scripts.push({ answer: "Text:\n\n```js\nlet a = 1;\n\nlet b = '<i>';\n```\n" });
      await ask(page, "Code.");
      const clipboard = () => page.evaluate(() => navigator.clipboard.readText());
      await press(page, ".code", "Copy code");
      await page.waitForFunction(() => document.querySelector(".copy-code").innerText === "Copied");
      equal(await clipboard(), "let a = 1;\n\nlet b = '<i>';", "the code");
      await press(page, ".answer > .actions", "Copy");
      await sleep(200);
      equal(await clipboard(), "Text:\n\n```js\nlet a = 1;\n\nlet b = '<i>';\n```\n", "the message as it was written");
      await page.waitForFunction(() => document.querySelector(".copy-code").innerText === "Copy");
      // Where the interface is missing, as over plain http from another machine.
      await page.evaluate(() => Object.defineProperty(navigator, "clipboard", { value: undefined, configurable: true }));
      await press(page, ".code", "Copy code");
      await page.waitForFunction(() => document.querySelector(".copy-code").innerText === "Copied");
    },
  },
  {
    name: "tables, lists and highlighted code",
    async run({ page, stub }) {
      stub.scripts.push({
        answer:
          "## Head\n\n| a | b |\n|:-:|--:|\n| 1 | **2** |\n| x<br>y | `c` |\n\n1. one\n2. two\n   - in\n\n- [x] done\n- [ ] open\n\n" +
          "```rust\nfn main() { let x = 1; } // note\n```\n\n```unknown\n<x>\n```\n\n> quote\n\n[link](https://example.org/a?b=1) [bad](javascript:alert(1)) ![alt](http://example.org/i.png) &lt;tag&gt;\n\n---\n\nEnd.",
      });
      await ask(page, "All.");
      await page.waitForSelector(".code-keyword");
      const counts = await page.evaluate(() =>
        Object.fromEntries(
          ["table", "th", "tbody tr", "td br", "ol > li", "li ul li", "li.task input:checked", "li.task input", "pre", "blockquote", "hr", "a", "img", ".align-right"].map(
            (selector) => [selector, document.querySelectorAll(`.prose ${selector}`).length],
          ),
        ),
      );
      equal(
        counts,
        { table: 1, th: 2, "tbody tr": 2, "td br": 1, "ol > li": 2, "li ul li": 1, "li.task input:checked": 1, "li.task input": 2, pre: 2, blockquote: 1, hr: 1, a: 1, img: 0, ".align-right": 3 },
        "elements",
      );
      equal(
        await page.$eval(".prose a", (link) => [link.href, link.rel, link.target]),
        ["https://example.org/a?b=1", "noopener noreferrer nofollow", "_blank"],
        "the link",
      );
      const text = await lastAnswer(page);
      assert(text.includes("bad (javascript:alert(1))") && text.includes("[Image: alt, http://example.org/i.png]") && text.includes("<tag>"), text);
    },
  },
  {
    name: "maths is set, prices stay",
    async run({ page, stub }) {
      stub.scripts.push({ answer: "It costs $5 and $6. But $x^2$, \\(y\\), \\[z^3\\] and\n\n$$\n\\int_0^1 x\\,dx\n$$\n\nso \\boxed{42}. Broken: $\\frac{$." });
      await ask(page, "Maths.");
      await page.waitForFunction(() => document.querySelectorAll(".prose .katex").length === 5);
      assert((await lastAnswer(page)).startsWith("It costs $5 and $6. But"), "prices");
      equal(await page.$$eval(".maths-display .katex", (found) => found.length), 2, "two on lines of their own");
      const height = await page.$eval(".maths-display .katex-html", (element) => element.getBoundingClientRect().height);
      assert(height > 15, "styles reach the formulas");
      assert(await page.evaluate(() => document.fonts.ready.then(() => [...document.fonts].some((f) => f.family === "KaTeX_Main" && f.status === "loaded"))), "its fonts are loaded");
    },
  },
  {
    name: "code fences split over pieces",
    async run({ page, stub }) {
      const answerPieces = ["Look", ":\n", "\n`", "`", "`", "py", "thon", "\n", "a = ", "`b`", "\n", "`", "`", "`", "\n", "\n~~", "~\n", "x\n", "~", "~~\n\n", "*", "*bo", "ld*", "* end"];
      stub.scripts.push({ answerPieces, speed: 40 });
      const seen = [];
      await send(page, "Code.");
      const timer = setInterval(() => {
        page.$eval(".prose", (element) => element.innerText).then((text) => seen.push(text), () => undefined);
      }, 20);
      await answered(page);
      clearInterval(timer);
      equal(await page.$$eval(".prose pre code", (found) => found.map((code) => code.textContent)), ["a = `b`", "x"], "two blocks of code");
      assert((await lastAnswer(page)).endsWith("bold end"), "and what follows");
      assert(!seen.some((text) => /^`{1,2}$/m.test(text)), "half a fence is never shown");
    },
  },
  {
    name: "a long thought, folded and unfolded",
    async run({ page, stub }) {
      const thought = Array.from({ length: 1500 }, (_, n) => `Line ${n} of the thought.`).join("\n\n");
      stub.scripts.push({ thought, answer: "Done.", speed: 9000 });
      await ask(page, "Think long.");
      assert((await page.$$(".thought-text p")).length === 0, "folded, nothing is mounted");
      await page.click(".thought-line");
      equal((await page.$$(".thought-text p")).length, 1500, "unfolded, all is there");
      await page.click(".thought-line");
      equal((await page.$$(".thought-text p")).length, 0, "and gone again");
    },
  },
  {
    name: "texts that are hard to read",
    async run({ page, stub }) {
      const hard = [">".repeat(6000), "[".repeat(4000), "*a ".repeat(2000), "$".repeat(8000), "\\(".repeat(2000), "\\boxed{".repeat(800), "|".repeat(3000)];
      for (const [index, answer] of hard.entries()) {
        stub.scripts.push({ answer, speed: 8000 });
        await ask(page, "Hard.", index + 1);
      }
      const shown = await page.$$eval(".prose", (found) => found.map((prose) => prose.textContent.length));
      assert(shown.every((length) => length > 500), `all are shown: ${shown}`);
      await ask(page, "Easy.", hard.length + 1);
      equal(await lastAnswer(page), "Here is an answer.", "the page goes on");
    },
  },
  {
    name: "an answer goes on while another conversation is shown",
    async run({ page, stub }) {
      stub.scripts.push({ answer: LONG_ANSWER, speed: 350 });
      await send(page, "First.");
      await page.waitForFunction(() => document.querySelector(".prose")?.innerText.length > 50);
      await press(page, ".sidebar", "New");
      await page.waitForSelector(".beginning");
      await page.waitForSelector(".entry-running");
      await ask(page, "Second.");
      equal(await lastAnswer(page), "Here is an answer.", "a second answer meanwhile");
      await page.waitForFunction(() => document.querySelector(".entry-running") === null);
      await page.evaluate(() => [...document.querySelectorAll(".list .entry")].find((e) => e.innerText === "First.").click());
      await page.waitForFunction(() => document.querySelector(".question-text")?.innerText === "First.");
      equal((await lastAnswer(page)).replace(/\s+/g, " "), LONG_ANSWER.replace(/\s+/g, " "), "the first is complete");
    },
  },
  {
    name: "the list on narrow screens has the focus and gives it back",
    options: { width: 390, height: 800 },
    async run({ page }) {
      await ask(page, "Hello.");
      await page.focus('[aria-label="Show conversations"]');
      await page.keyboard.press("Enter");
      await page.waitForFunction(() => document.activeElement?.closest(".sidebar") !== null);
      await page.keyboard.press("Escape");
      await page.waitForFunction(() => document.activeElement?.ariaLabel === "Show conversations");
    },
  },
  {
    name: "a stream that ends without an end",
    async run({ page, stub }) {
      // Every connection breaks off before it brought anything; the page must not ask in a tight circle.
      stub.scripts.push({ answer: "one two three", speed: 30 });
      stub.barren = 4;
      await ask(page, "Hello.");
      equal(await lastAnswer(page), "one two three", "complete");
      assert(stub.resumed <= 6, `${stub.resumed} attempts`);
    },
  },
  {
    name: "jump to the latest",
    async run({ page, stub }) {
      stub.scripts.push({ answer: LONG_ANSWER.repeat(2), speed: 600 });
      await send(page, "Go on.");
      await page.waitForFunction(() => document.querySelector(".scroll").scrollTop > 300);
      const gap = () => page.$eval(".scroll", (s) => s.scrollHeight - s.scrollTop - s.clientHeight);
      assert((await gap()) < 60, "it follows the end");
      await page.hover(".scroll");
      await page.mouse.wheel({ deltaY: -400 });
      await page.waitForSelector(".jump");
      const before = await page.$eval(".scroll", (s) => s.scrollTop);
      await sleep(400);
      assert(Math.abs((await page.$eval(".scroll", (s) => s.scrollTop)) - before) < 500, "it does not run away");
      const here = await page.$eval(".scroll", (s) => s.scrollTop);
      await sleep(300);
      equal(await page.$eval(".scroll", (s) => s.scrollTop), here, "it stays where the reader is");
      await page.click(".jump");
      await page.waitForFunction(() => document.querySelector(".jump") === null);
      await answered(page);
      assert((await gap()) < 60, "at the end");
    },
  },
  {
    name: "below a path of any depth",
    folder: "/some/where/minke/",
    async run({ page }) {
      await ask(page, "Hello.");
      equal(await lastAnswer(page), "Here is an answer.", "answered");
      await page.reload();
      await answered(page);
      equal(await lastAnswer(page), "Here is an answer.", "restored");
    },
  },
  {
    name: "cut short at the largest number of tokens",
    async run({ page, stub }) {
      stub.scripts.push({ answer: "Only this", cutShort: true });
      await ask(page, "Hello.");
      equal(await texts(page, ".ending"), ["Cut short at the largest number of tokens."], "it says so");
    },
  },
  {
    name: "an unknown model and an unknown address",
    async run({ page, stub }) {
      stub.scripts.push({ refuse: { status: 404, code: "model_not_found", message: "no such model" } });
      await send(page, "Hello.");
      await answered(page);
      assert((await texts(page, ".ending"))[0].includes("does not have the model r1-distill-qwen-1.5b"), "the sentence");
      await page.evaluate(() => (location.hash = "#/c/nowhere"));
      await page.waitForSelector(".notice");
      equal(await hashOf(page), "#/", "back to the beginning");
    },
  },
];
