// All files together, as they are stored and sent.
import { readFileSync, readdirSync } from "node:fs";
import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { assert, equal } from "./harness.mjs";

const dist = fileURLToPath(new URL("../dist/", import.meta.url));
const source = fileURLToPath(new URL("../src/", import.meta.url));
const LIMITS = { chat: 300_000, dashboard: 40_000 };
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

export function run() {
  const { files } = JSON.parse(readFileSync(`${dist}manifest.json`, "utf8"));
  const totals = { chat: 0, dashboard: 0 };
  for (const { name, page, file, content_encoding, immutable, sha256: whole, stored_sha256 } of files) {
    const stored = readFileSync(`${dist}${file}`);
    for (const of of Object.keys(totals)) if (page === null || page === of) totals[of] += stored.length;
    equal(sha256(stored), stored_sha256, `the hash of ${file}`);
    const bytes = content_encoding === "gzip" ? gunzipSync(stored) : stored;
    equal(sha256(bytes), whole, `the hash of ${name}`);
    assert(immutable === !["index.html", "dashboard.html", "licenses.txt"].includes(name), `${name} may be cached for good if its name has a hash`);
  }
  for (const file of readdirSync(source, { recursive: true })) {
    if (!/\.tsx?$/.test(file)) continue;
    const text = readFileSync(`${source}${file}`, "utf8");
    assert(!/innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function/.test(text), `${file} parses markup`);
  }
  equal(readdirSync(dist).sort(), [...files.map(({ file }) => file), "manifest.json"].sort(), "files in dist");
  return Object.entries(totals).map(([page, total]) => {
    assert(total <= LIMITS[page], `${page}: ${total} bytes are more than ${LIMITS[page]}`);
    return `${page} ${total} of ${LIMITS[page]} bytes`;
  }).join(", ");
}
