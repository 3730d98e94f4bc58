import { element } from "./dom";

/** Longer code stays plain: colouring it would stop the page for too long. */
const MAX_HIGHLIGHTED = 60_000;

/** Code with a line above it that names the language and copies the code. */
export function codeBlock(text: string, language: string): HTMLElement {
  const name = language.trim().split(/\s/, 1)[0] ?? "";
  const copy = element("button", "quiet copy-code", "Copy");
  copy.type = "button";
  copy.setAttribute("aria-label", "Copy code");
  const code = element("code", "", text);
  const pre = element("pre", "", code);
  pre.tabIndex = 0;
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", name === "" ? "Code" : `Code, ${name}`);
  const figure = element("figure", "code", element("figcaption", "", element("span", "language", name), copy), pre);
  figure.dataset["language"] = name.toLowerCase();
  return figure;
}

/** Changes the code of a block that is still written, without touching what is there already. */
export function growCode(figure: HTMLElement, text: string): void {
  const node = figure.querySelector("code")!.firstChild;
  if (node instanceof Text && text.startsWith(node.data)) node.appendData(text.slice(node.data.length));
  else figure.querySelector("code")!.textContent = text;
}

/** Colours a finished block, when the browser has time for it. */
export function colourCode(figure: HTMLElement): void {
  const language = figure.dataset["language"] ?? "";
  const code = figure.querySelector("code")!;
  const text = code.textContent ?? "";
  if (language === "" || text.length > MAX_HIGHLIGHTED || figure.dataset["coloured"] !== undefined) return;
  figure.dataset["coloured"] = "";
  const whenIdle = globalThis.requestIdleCallback ?? ((work: () => void) => setTimeout(work, 50));
  whenIdle(() => {
    import("./languages").then(
      ({ highlight }) => {
        const nodes = highlight(text, language);
        if (nodes !== null) code.replaceChildren(...nodes);
      },
      () => undefined,
    );
  });
}
