// Runs all tests, or those whose name contains the first argument. Ends by itself.
import { BASE_URL, Reader, launch } from "./harness.mjs";
import { scenarios } from "./scenarios.mjs";
import { Stub } from "./stub.mjs";

const LIMIT_MS = 90_000;
const SUITE_LIMIT_MS = 240_000;
const wanted = process.argv[2] ?? "";

/** Tests of a kind of their own: each gets the browser and returns a sentence for the log. */
const SUITES = ["access", "scripts", "maths", "size", "speed", "dashboard"];

function limited(work, name, limit) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${name} took longer than ${limit / 1000} s`)), limit);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

async function runScenario(browser, scenario) {
  const stub = BASE_URL === null ? await new Stub(scenario.folder).start() : null;
  if (stub !== null) scenario.prepare?.(stub);
  const reader = await Reader.create(browser, { stub, ...scenario.options });
  try {
    const page = await reader.open();
    await scenario.run({ page, reader, stub, real: BASE_URL !== null });
    if (reader.violations.length > 0) throw new Error(`violations:\n  ${reader.violations.join("\n  ")}`);
  } finally {
    await reader.close();
  }
}

const browser = await launch();
const failed = [];
let passed = 0;
async function attempt(name, limit, work) {
  const started = Date.now();
  try {
    const said = await limited(work(), name, limit);
    passed++;
    console.log(`ok    ${name}${said === undefined ? "" : `: ${said}`} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failed.push(name);
    console.log(`FAIL  ${name}: ${error.message}`);
  }
}

try {
  for (const scenario of scenarios) {
    if (!scenario.name.includes(wanted) || (BASE_URL !== null && scenario.real !== true)) continue;
    await attempt(scenario.name, LIMIT_MS, () => runScenario(browser, scenario));
  }
  if (BASE_URL === null) {
    for (const name of SUITES) {
      if (!name.includes(wanted)) continue;
      const { run } = await import(`./${name}.mjs`);
      await attempt(name, SUITE_LIMIT_MS, () => run(browser));
    }
  }
} finally {
  await browser.close();
}
console.log(`${passed} passed, ${failed.length} failed${failed.length > 0 ? `: ${failed.join(", ")}` : ""}`);
process.exit(failed.length > 0 ? 1 : 0);
