// axe-core in five states of the page, in both themes.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { Reader, answered, ask, press, send, sleep } from "./harness.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const STATES = {
  empty: async (page) => {
    await page.waitForSelector(".badge");
  },
  thinking: async (page, stub) => {
    stub.scripts.push({ thought: "A line of thought. ".repeat(200), answer: "x", speed: 100, promptTokens: 900 });
    await send(page, "Think.");
    await page.waitForSelector(".thought-preview p");
  },
  answered: async (page, stub) => {
    stub.scripts.push({
      thought: "Short.",
      answer: "# T\n\n$$x^2$$\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nprint(1) # c\n```\n\n- [x] a\n\n[l](https://e.org)",
    });
    await ask(page, "Everything.");
    await page.click(".thought-line");
    await press(page, ".answer", "Regenerate");
    await answered(page);
    await sleep(200);
  },
  settings: async (page) => {
    await page.waitForSelector(".badge");
    await press(page, ".header", "Settings");
    await page.waitForSelector("dialog[open]");
  },
  failed: async (page, stub) => {
    stub.scripts.push({ refuse: { status: 400, code: "context_length_exceeded", message: "9,120 of 8,192" } });
    await ask(page, "Too long.");
    stub.key = "k";
    await send(page, "And with a key.");
    await page.waitForSelector("dialog.key[open]");
  },
};

export async function run(browser) {
  let checked = 0;
  let minor = 0;
  for (const dark of [false, true]) {
    for (const [name, prepare] of Object.entries(STATES)) {
      const reader = await Reader.create(browser, { dark });
      try {
        const page = await reader.open();
        await prepare(page, reader.stub);
        // Given to the browser by its debugger, which the policy of the page does not concern.
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
        const grave = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
        minor += violations.length - grave.length;
        if (grave.length > 0) {
          const lines = grave.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 120)).join(" | ")}`);
          throw new Error(`${name}${dark ? ", dark" : ""}: ${lines.join("; ")}`);
        }
        for (const { id, impact } of violations) console.log(`      ${name}: ${impact} ${id}`);
        if (reader.violations.length > 0) throw new Error(reader.violations.join("; "));
        checked++;
      } finally {
        await reader.close();
      }
    }
  }
  return `${checked} states, 0 serious or critical, ${minor} lesser`;
}
