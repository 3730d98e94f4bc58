// All files together, as they are stored and sent.
import { readFileSync, readdirSync } from "node:fs";
import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { assert, equal } from "./harness.mjs";

const dist = fileURLToPath(new URL("../dist/", import.meta.url));
const source = fileURLToPath(new URL("../src/", import.meta.url));
const LIMIT = 300_000;
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

export function run() {
  const { files } = JSON.parse(readFileSync(`${dist}manifest.json`, "utf8"));
  let total = 0;
  for (const { name, file, content_encoding, immutable, sha256: whole, stored_sha256 } of files) {
    const stored = readFileSync(`${dist}${file}`);
    total += stored.length;
    equal(sha256(stored), stored_sha256, `the hash of ${file}`);
    const bytes = content_encoding === "gzip" ? gunzipSync(stored) : stored;
    equal(sha256(bytes), whole, `the hash of ${name}`);
    assert(immutable === !["index.html", "licenses.txt"].includes(name), `${name} may be cached for good if its name has a hash`);
  }
  for (const file of readdirSync(source, { recursive: true })) {
    if (!/\.tsx?$/.test(file)) continue;
    const text = readFileSync(`${source}${file}`, "utf8");
    assert(!/innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function/.test(text), `${file} parses markup`);
  }
  equal(readdirSync(dist).sort(), [...files.map(({ file }) => file), "manifest.json"].sort(), "files in dist");
  assert(total <= LIMIT, `${total} bytes are more than ${LIMIT}`);
  return `${total} of ${LIMIT} bytes in ${files.length} files`;
}
