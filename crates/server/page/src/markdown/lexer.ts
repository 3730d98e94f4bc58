import { Lexer, Tokenizer, type MarkedOptions, type Token, type Tokens } from "marked";
import { maskMaths, mathAt, mathBlockAt, nextMath, openMathBlock } from "./maths";

/** What marked's own tokens do not have. */
export interface MathToken {
  type: "math";
  raw: string;
  source: string;
  display: boolean;
  /** The end has not arrived; the source is shown as it is. */
  open: boolean;
}

/** Markup stays text, except for line breaks, which models write in the cells of tables. */
class TextTokenizer extends Tokenizer {
  override html(): undefined {
    return undefined;
  }

  override tag(source: string): Tokens.Tag | undefined {
    const found = /^<br\s*\/?>/i.exec(source);
    return found === null ? undefined : ({ type: "br", raw: found[0] } as unknown as Tokens.Tag);
  }
}

function options(open: boolean): MarkedOptions {
  const block = (source: string): MathToken | undefined => {
    const span = mathBlockAt(source);
    if (span !== null) {
      return { type: "math", raw: source.slice(0, span.length), source: span.source, display: true, open: false };
    }
    if (open && openMathBlock(source)) return { type: "math", raw: source, source, display: true, open: true };
    return undefined;
  };
  const inline = (source: string, before: readonly Token[]): MathToken | undefined => {
    const span = mathAt(source, before.at(-1)?.raw.at(-1) ?? "");
    if (span === null) return undefined;
    return { type: "math", raw: source.slice(0, span.length), source: span.source, display: span.display, open: false };
  };
  const startInline = (source: string): number | undefined => {
    const at = nextMath(source);
    return at < 0 ? undefined : at;
  };
  return {
    gfm: true,
    breaks: false,
    tokenizer: new TextTokenizer() as never,
    hooks: { emStrongMask: maskMaths } as never,
    extensions: {
      renderers: {},
      childTokens: {},
      block: [block as never],
      inline: [inline as never],
      startBlock: [
        (source: string) => {
          const at = source.search(/(?:^|\n) {0,3}(?:\$\$|\\\[)/);
          return at < 0 ? undefined : source[at] === "\n" ? at + 1 : at;
        },
      ],
      startInline: [startInline],
    } as never,
  };
}

/** Top-level tokens; their raw texts, one behind the other, are `text`. */
export function lex(text: string, open: boolean): Token[] {
  return new Lexer(options(open)).lex(text);
}

/** The text as one paragraph, for what cannot be parsed: nesting of thousands of levels ends the stack. */
export function plain(text: string): Token[] {
  return [{ type: "paragraph", raw: text, text, tokens: [{ type: "text", raw: text, text }] }];
}
