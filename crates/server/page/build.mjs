// Builds the pages into `dist/`: that of a conversation, and that of a run that is watched. The same sources give the same bytes, so that `--check` can compare what is committed.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync, gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = fileURLToPath(new URL(".", import.meta.url));
const dist = join(here, "dist");
const katex = join(here, "node_modules/katex/dist");

/** The pages: where each begins, and how many bytes of it are stored at most. Files of one are not served with the other. */
const PAGES = [
  { name: "chat", title: "Minke", script: "app", entry: "src/main.tsx", html: "index.html", most: 300_000 },
  { name: "dashboard", title: "Run · Minke", script: "dashboard", entry: "src/dashboard/main.tsx", html: "dashboard.html", most: 40_000 },
];

/** KaTeX has twenty faces; these are the ones that ordinary formulas use. Others fall back to the main face. */
const FACES = [
  "AMS-Regular",
  "Caligraphic-Regular",
  "Main-Bold",
  "Main-Italic",
  "Main-Regular",
  "Math-Italic",
  "Size1-Regular",
  "Size2-Regular",
  "Size3-Regular",
  "Size4-Regular",
];

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".woff2": "font/woff2",
  ".txt": "text/plain; charset=utf-8",
};

const hash = (bytes) => createHash("sha256").update(bytes).digest("hex");

function named(path, bytes) {
  const extension = extname(path);
  return `${basename(path, extension)}-${hash(bytes).slice(0, 10)}${extension}`;
}

async function scripts(page) {
  const result = await build({
    absWorkingDir: here,
    entryPoints: { [page.script]: page.entry },
    bundle: true,
    splitting: true,
    format: "esm",
    target: ["es2022"],
    minify: true,
    legalComments: "none",
    outdir: "dist",
    entryNames: "[name]-[hash]",
    chunkNames: "[name]-[hash]",
    jsx: "automatic",
    jsxImportSource: "preact",
    alias: { katex: join(katex, "katex.mjs") },
    write: false,
    metafile: true,
  });
  const files = new Map(result.outputFiles.map(({ path, contents }) => [basename(path), Buffer.from(contents)]));
  const entry = Object.entries(result.metafile.outputs).find(([, output]) => output.entryPoint === page.entry);
  return { files, entry: basename(entry[0]) };
}

/** The style sheet of KaTeX with the chosen faces alone, in the one format that all browsers of today read. */
function mathsStyle(fonts) {
  const style = readFileSync(join(katex, "katex.min.css"), "utf8");
  return style.replace(/@font-face\{[^}]*\}/g, (face) => {
    const source = /url\(fonts\/KaTeX_([A-Za-z0-9]+-[A-Za-z]+)\.woff2\)/.exec(face);
    if (!FACES.includes(source[1])) return "";
    const bytes = readFileSync(join(katex, `fonts/KaTeX_${source[1]}.woff2`));
    const name = named(`KaTeX_${source[1]}.woff2`, bytes);
    fonts.set(name, bytes);
    return face.replace(/src:.*?(?=[;}])/, `src:url(${name}) format("woff2")`);
  });
}

const source = (name) => readFileSync(join(here, "src", name), "utf8");

async function style(contents) {
  const { outputFiles } = await build({
    absWorkingDir: here,
    stdin: {
      contents,
      resolveDir: here,
      loader: "css",
    },
    bundle: true,
    minify: true,
    legalComments: "none",
    external: ["*.woff2"],
    target: ["chrome123", "firefox120", "safari17.5"],
    write: false,
  });
  return Buffer.from(outputFiles[0].contents);
}

/** The notices that the licences of the bundled packages ask to keep with them. */
function notices() {
  const { dependencies } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
  const texts = Object.entries(dependencies).map(([name, version]) => {
    const folder = join(here, "node_modules", name);
    const file = readdirSync(folder).find((entry) => /^license/i.test(entry));
    return `${name} ${version}\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`;
  });
  return Buffer.from(texts.join("\n\n"));
}

/** The files of a page by their names. */
async function filesOf(page) {
  const fonts = new Map();
  const { files, entry } = await scripts(page);
  const own = page.name === "chat" ? mathsStyle(fonts) + source("tokens.css") + source("style.css") : source("tokens.css") + source("dashboard.css");
  const sheet = await style(own);
  const sheetName = named(`${page.script}.css`, sheet);
  files.set(sheetName, sheet);
  const filled = { title: page.title, style: sheetName, script: entry };
  files.set(page.html, Buffer.from(source("page.html").replace(/\{\{(\w+)\}\}/g, (_, name) => filled[name])));
  for (const [name, bytes] of fonts) files.set(name, bytes);
  return [...files].map(([name, bytes]) => ({ name, bytes, page: page.name }));
}

async function all() {
  const files = (await Promise.all(PAGES.map(filesOf))).flat();
  // The notices are of all pages.
  files.push({ name: "licenses.txt", bytes: notices(), page: null });

  const out = new Map();
  const manifest = [];
  for (const { name, bytes, page } of files.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const type = TYPES[extname(name)];
    const compressed = extname(name) !== ".woff2";
    // Fonts are compressed already. Node writes no time and no name into the header.
    const stored = compressed ? gzipSync(bytes, { level: 9 }) : bytes;
    // The system that wrote it is the one byte of the header that differs between machines.
    if (compressed) stored[9] = 255;
    const file = compressed ? `${name}.gz` : name;
    out.set(file, stored);
    manifest.push({
      name,
      page,
      file,
      content_type: type,
      content_encoding: compressed ? "gzip" : null,
      // Names with a hash may be kept by browsers for good.
      immutable: /-[0-9A-Za-z]{8,}\.[a-z0-9]+$/.test(name),
      bytes: bytes.length,
      stored_bytes: stored.length,
      sha256: hash(bytes),
      stored_sha256: hash(stored),
    });
  }
  out.set("manifest.json", Buffer.from(`${JSON.stringify({ files: manifest }, null, 2)}\n`));
  return { out, manifest };
}

const { out, manifest } = await all();
if (process.argv.includes("--check")) {
  const there = readdirSync(dist).sort();
  const wanted = [...out.keys()].sort();
  // Versions of Node compress differently, so contents are compared and not how they are stored.
  const contents = (name, bytes) => {
    if (name.endsWith(".gz")) return hash(gunzipSync(bytes));
    if (name !== "manifest.json") return hash(bytes);
    return JSON.stringify(JSON.parse(bytes).files.map(({ name, sha256 }) => [name, sha256]));
  };
  const same =
    there.join() === wanted.join() &&
    wanted.every((name) => contents(name, out.get(name)) === contents(name, readFileSync(join(dist, name))));
  if (!same) {
    console.error("dist/ is not what the sources give; run `npm run build`.");
    process.exit(1);
  }
} else {
  rmSync(dist, { recursive: true, force: true });
  mkdirSync(dist, { recursive: true });
  for (const [name, bytes] of out) writeFileSync(join(dist, name), bytes);
}
for (const { name, bytes, stored_bytes } of manifest) {
  console.log(`${String(bytes).padStart(7)} ${String(stored_bytes).padStart(7)}  ${name}`);
}
for (const { name, most } of PAGES) {
  const own = manifest.filter(({ page }) => page === null || page === name);
  const total = own.reduce((sum, { stored_bytes }) => sum + stored_bytes, 0);
  console.log(`        ${String(total).padStart(7)}  of ${most} bytes: ${name}`);
  if (total > most) {
    console.error(`The page ${name} is larger than it may be.`);
    process.exit(1);
  }
}
