import type katexModule from "katex";
import { element } from "./dom";

type Katex = typeof katexModule;

let katex: Katex | null = null;
let loading: Promise<void> | null = null;

/** Typeset formulas by their source. While an answer is written, its open paragraph is made anew for every frame. */
const made = new Map<string, Node>();
const MAX_MADE = 500;

/** KaTeX is a third of the page, so it comes when the first formula does, or when the page has nothing else to do. */
export function loadMaths(): Promise<void> {
  loading ??= import("katex").then((module) => {
    katex = module.default;
  });
  return loading;
}

export function formula(source: string, display: boolean): HTMLElement {
  // A span in both cases, because display maths also stands within paragraphs; the style sheet makes it a block.
  const place = element("span", display ? "maths maths-display" : "maths");
  if (display) {
    place.tabIndex = 0;
    place.setAttribute("role", "group");
    place.setAttribute("aria-label", "Formula");
  }
  if (katex !== null) {
    place.append(typeset(katex, source, display));
  } else {
    place.textContent = source;
    loadMaths().then(
      () => place.replaceChildren(typeset(katex!, source, display)),
      () => undefined,
    );
  }
  return place;
}

function typeset(engine: Katex, source: string, display: boolean): Node {
  const name = (display ? "d" : "i") + source;
  let node = made.get(name);
  if (node === undefined) {
    node = build(engine, source, display);
    if (made.size >= MAX_MADE) made.clear();
    made.set(name, node);
  }
  return node.cloneNode(true);
}

function build(engine: Katex, source: string, display: boolean): Node {
  const holder = document.createElement("span");
  try {
    // Styles are set through the object model, which the content security policy allows. KaTeX reports errors with a
    // style attribute, which it does not allow, so they are caught here.
    engine.render(source, holder, {
      displayMode: display,
      throwOnError: true,
      trust: false,
      strict: "ignore",
      maxExpand: 1000,
      maxSize: 20,
      output: "htmlAndMathml",
    });
    return holder.firstChild ?? holder;
  } catch {
    return element("code", "maths-source", source);
  }
}
