import core from "highlight.js/lib/core";
import bash from "highlight.js/lib/languages/bash";
import c from "highlight.js/lib/languages/c";
import cpp from "highlight.js/lib/languages/cpp";
import css from "highlight.js/lib/languages/css";
import go from "highlight.js/lib/languages/go";
import java from "highlight.js/lib/languages/java";
import javascript from "highlight.js/lib/languages/javascript";
import json from "highlight.js/lib/languages/json";
import python from "highlight.js/lib/languages/python";
import rust from "highlight.js/lib/languages/rust";
import sql from "highlight.js/lib/languages/sql";
import typescript from "highlight.js/lib/languages/typescript";
import xml from "highlight.js/lib/languages/xml";

const all = { bash, c, cpp, css, go, java, javascript, json, python, rust, sql, typescript, xml };
for (const [name, language] of Object.entries(all)) core.registerLanguage(name, language);

interface Scope {
  scope?: string;
  children: (Scope | string)[];
}

/** The highlighted code as nodes, or null for a language that is not known. */
export function highlight(code: string, language: string): Node[] | null {
  if (core.getLanguage(language) === undefined) return null;
  const result = core.highlight(code, { language, ignoreIllegals: true });
  // The library's own output is a string of markup. Its tree is used instead, so that no markup is ever parsed.
  const tree = (result._emitter as unknown as { rootNode: Scope }).rootNode;
  return tree.children.map(toNode);
}

function toNode(part: Scope | string): Node {
  if (typeof part === "string") return document.createTextNode(part);
  const span = document.createElement("span");
  if (part.scope !== undefined) span.className = `code-${part.scope.split(".")[0]}`;
  span.append(...part.children.map(toNode));
  return span;
}
