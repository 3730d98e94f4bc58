/** Where maths begins and ends in running text. Pure functions on strings, so that the rules can be read in one place. */

export interface MathSpan {
  /** Characters of the text that the span takes, with its marks. */
  length: number;
  source: string;
  display: boolean;
}

const MAX_INLINE = 600;
const MAX_DISPLAY = 10_000;

/** A span that begins at the first character of `text`; `previous` is the character before it, or "". */
export function mathAt(text: string, previous: string): MathSpan | null {
  if (text.startsWith("\\(")) return between(text, "\\)", false, MAX_INLINE);
  if (text.startsWith("\\[")) return between(text, "\\]", true, MAX_DISPLAY);
  // A longer row of dollars is no mark.
  if (text.startsWith("$$$") || (text.startsWith("$") && previous === "$")) return null;
  if (text.startsWith("$$")) return between(text, "$$", true, MAX_DISPLAY);
  if (text.startsWith("$")) return dollar(text, previous);
  if (text.startsWith("\\boxed{")) return boxed(text);
  return null;
}

function between(text: string, close: string, display: boolean, limit: number): MathSpan | null {
  const end = text.indexOf(close, 2);
  if (end < 0 || end > limit) return null;
  const source = text.slice(2, end).trim();
  // A blank line ends a paragraph; a pair of marks around one belongs to two thoughts.
  if (source === "" || (!display && /\n\s*\n/.test(source))) return null;
  return { length: end + 2, source, display };
}

/**
 * `$..$`, so that prices and shell variables stay text: no space inside the marks, no letter or digit before the first,
 * no digit after the last, and no plain prose in between.
 */
function dollar(text: string, previous: string): MathSpan | null {
  if (/[\w$\\]/.test(previous) || /^\$[\s$]/.test(text)) return null;
  for (let at = 1; at < text.length && at <= MAX_INLINE; at++) {
    const sign = text[at];
    if (sign === "\\") {
      at++;
    } else if (sign === "\n" && /^\n\s*\n/.test(text.slice(at))) {
      return null;
    } else if (sign === "`") {
      return null;
    } else if (sign === "$") {
      const source = text.slice(1, at);
      const next = text[at + 1] ?? "";
      if (/\s$/.test(source) || /[\d$]/.test(next) || isProse(source)) return null;
      // `$PATH:$HOME` and the like.
      if (/[A-Za-z]/.test(next) && /^[A-Z_]{2}/.test(source)) return null;
      return { length: at + 1, source, display: false };
    }
  }
  return null;
}

function isProse(source: string): boolean {
  const words = source
    .replace(/\\(?:text|mathrm|textbf|operatorname|mbox)\s*\{[^{}]*\}/g, " ")
    .replace(/\\[A-Za-z]+/g, " ");
  if (/^\d/.test(words) && /(?:^|[\s\d,.])[A-Za-z]{2,}\s/.test(words)) return true;
  return !/[\\^_{}=<>]/.test(source) && /[A-Za-z]{2,}\s+[A-Za-z]{2,}/.test(words);
}

/** `\boxed{..}` outside of any marks, as reasoning models often write their result. */
function boxed(text: string): MathSpan | null {
  let depth = 0;
  for (let at = "\\boxed".length; at < text.length && at <= MAX_INLINE; at++) {
    const sign = text[at];
    if (sign === "\\") at++;
    else if (sign === "{") depth++;
    else if (sign === "}" && --depth === 0) return { length: at + 1, source: text.slice(0, at + 1), display: false };
  }
  return null;
}

/** The next place where maths may begin, or -1. */
export function nextMath(text: string): number {
  return text.search(/(?<!\$)\${1,2}(?!\$)|\\[([]|\\boxed\{/);
}

/** The text with letters in the place of maths, so that a star or an underscore in a formula is no emphasis. */
export function maskMaths(text: string): string {
  if (!text.includes("$")) return text;
  let masked = "";
  let at = 0;
  for (;;) {
    const step = text.indexOf("$", at);
    if (step < 0) return masked + text.slice(at);
    const span = mathAt(text.slice(step, step + MAX_DISPLAY), text[step - 1] ?? "");
    const end = step + (span?.length ?? 1);
    masked += text.slice(at, step) + (span === null ? "$" : "a".repeat(span.length));
    at = end;
  }
}

/** Display maths that stands on lines of its own. */
export function mathBlockAt(text: string): MathSpan | null {
  const indent = /^ {0,3}(?=\$\$|\\\[)/.exec(text)?.[0].length;
  if (indent === undefined) return null;
  const span = mathAt(text.slice(indent), "");
  if (span === null) return null;
  const after = /^[ \t]*(?:\n|$)/.exec(text.slice(indent + span.length));
  return after === null ? null : { ...span, length: indent + span.length + after[0].length };
}

/** Display maths whose end has not arrived yet. */
export function openMathBlock(text: string): boolean {
  const open = /^ {0,3}(\$\$|\\\[)([\s\S]*)$/.exec(text);
  if (open === null || text.length > MAX_DISPLAY) return false;
  return !open[2]!.includes(open[1] === "$$" ? "$$" : "\\]");
}
