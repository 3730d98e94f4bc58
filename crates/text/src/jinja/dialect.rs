//! The Jinja of transformers in the words of the engine: what the engine does not have is found among the tokens of a
//! source and written anew. The same pass refuses sources whose nesting would let the engine recurse deeply.

use std::ops::Range;

use minijinja::machinery::{Token, tokenize};
use minijinja::{Error, ErrorKind, syntax::SyntaxConfig};

/// Filters of this module's making: they check a value that holds others, and one that a namespace shall hold.
pub(super) const NESTED: &str = "__nested";
pub(super) const STORED: &str = "__stored";
/// The operator `%` on a text.
pub(super) const PERCENT: &str = "__percent";

/// The longest tag: the engine's time and its recursion grow with it. Seven times the longest of DeepSeek's templates.
const MAX_TOKENS_PER_TAG: usize = 300;
/// Branches of conditions: the engine recurses for each.
const MAX_ELIFS: usize = 300;

/// A source that the engine understands.
pub(super) struct Translated {
    pub source: String,
    /// Whether it mentions the variable `tools`.
    pub knows_tools: bool,
}

/// A token and where it stands.
struct At<'a> {
    token: Token<'a>,
    range: Range<usize>,
}

/// Translates a source. Lines end as Jinja has them: "\n".
pub(super) fn translate(source: &str, syntax: SyntaxConfig) -> Result<Translated, Error> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let tokens: Vec<At> = tokenize(&source, false, syntax)
        .map(|token| {
            token.map(|(token, span)| At { token, range: span.start_offset as usize..span.end_offset as usize })
        })
        .collect::<Result<_, Error>>()?;
    let elifs = tokens.iter().filter(|at| matches!(at.token, Token::Ident("elif"))).count();
    if elifs > MAX_ELIFS {
        return Err(refuse(format!("it has {elifs} branches; at most {MAX_ELIFS} are read")));
    }
    let mut edits = Vec::new();
    for tag in tokens.split(|at| matches!(at.token, Token::BlockEnd | Token::VariableEnd)) {
        let start = tag.iter().position(|at| matches!(at.token, Token::BlockStart | Token::VariableStart));
        let Some(start) = start else { continue };
        if tag.len() - start > MAX_TOKENS_PER_TAG {
            return Err(refuse(format!("a tag has more than {MAX_TOKENS_PER_TAG} tokens; split it")));
        }
        Tag::of(&tag[start + 1..], matches!(tag[start].token, Token::BlockStart)).edit(&mut edits);
    }
    let knows_tools = tokens.iter().any(|at| matches!(at.token, Token::Ident("tools")));
    Ok(Translated { source: applied(&source, edits), knows_tools })
}

fn refuse(reason: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

/// A range that becomes another text. Of several at one place, those that close what began last come first.
struct Edit {
    range: Range<usize>,
    text: String,
}

fn applied(source: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| edit.range.start);
    let (mut text, mut end) = (String::with_capacity(source.len() + 16 * edits.len()), 0);
    for edit in edits {
        text.push_str(&source[end..edit.range.start]);
        text.push_str(&edit.text);
        end = edit.range.end;
    }
    text + &source[end..]
}

/// The tokens of a tag.
struct Tag<'a> {
    tokens: &'a [At<'a>],
    is_block: bool,
    /// By the index of an opening bracket that of its closing one.
    closing: Vec<Option<usize>>,
}

impl<'a> Tag<'a> {
    fn of(tokens: &'a [At<'a>], is_block: bool) -> Self {
        let (mut closing, mut open) = (vec![None; tokens.len()], Vec::new());
        for (i, at) in tokens.iter().enumerate() {
            match at.token {
                Token::BracketOpen | Token::BraceOpen | Token::ParenOpen => open.push(i),
                Token::BracketClose | Token::BraceClose | Token::ParenClose => {
                    if let Some(begun) = open.pop() {
                        closing[begun] = Some(i);
                    }
                }
                _ => {}
            }
        }
        Self { tokens, is_block, closing }
    }

    fn ident(&self, i: usize) -> Option<&'a str> {
        match self.tokens.get(i)?.token {
            Token::Ident(name) => Some(name),
            _ => None,
        }
    }

    fn edit(&self, edits: &mut Vec<Edit>) {
        let [first, .., last] = self.tokens else {
            if self.is_block
                && let [only] = self.tokens
            {
                // A block that marks what the assistant said. Like `with` it has a scope of its own.
                let text = match only.token {
                    Token::Ident("generation") => "with",
                    Token::Ident("endgeneration") => "endwith",
                    _ => return,
                };
                edits.push(Edit { range: only.range.clone(), text: text.into() });
            }
            return;
        };
        for i in 0..self.tokens.len() {
            if let Some(close) = self.closing[i].filter(|&close| self.is_literal(i, close)) {
                self.wrap(self.tokens[i].range.start, self.tokens[close].range.end, NESTED, edits);
            }
        }
        for i in 1..self.tokens.len() {
            let is_text = matches!(self.tokens[i - 1].token, Token::Str(_) | Token::String(_));
            if matches!(self.tokens[i].token, Token::Mod) && is_text && i + 1 < self.tokens.len() {
                edits.push(Edit { range: self.tokens[i].range.clone(), text: format!("|{PERCENT}(") });
                let end = self.tokens[self.operand_end(i + 1)].range.end;
                edits.push(Edit { range: end..end, text: ")".into() });
            }
        }
        if self.is_block && matches!(first.token, Token::Ident("set")) {
            let Some(assign) = self.top_level(0).find(|&i| matches!(self.tokens[i].token, Token::Assign)) else {
                return;
            };
            let is_attribute = self.tokens[..assign].iter().any(|at| matches!(at.token, Token::Dot));
            let is_tuple = self.top_level(assign + 1).any(|i| matches!(self.tokens[i].token, Token::Comma));
            if let Some(value) = self.tokens.get(assign + 1).filter(|_| is_attribute || is_tuple) {
                let filter = if is_attribute { STORED } else { NESTED };
                self.wrap(value.range.start, last.range.end, filter, edits);
            }
        }
    }

    fn wrap(&self, start: usize, end: usize, filter: &str, edits: &mut Vec<Edit>) {
        edits.push(Edit { range: start..start, text: "(".into() });
        edits.push(Edit { range: end..end, text: format!("|{filter})") });
    }

    /// The indices from `start` on that stand in no bracket.
    fn top_level(&self, start: usize) -> impl Iterator<Item = usize> {
        let mut next = start;
        std::iter::from_fn(move || {
            let i = next;
            next = self.closing.get(i)?.unwrap_or(i) + 1;
            Some(i)
        })
    }

    /// Whether these brackets enclose a list, a map or a tuple that holds something else than constants.
    fn is_literal(&self, open: usize, close: usize) -> bool {
        let is_subscript = open > 0 && self.ends_operand(open - 1);
        let is_target = matches!(self.tokens.get(close + 1).map(|at| &at.token), Some(Token::Assign))
            || open == 1 && self.ident(0) == Some("for");
        let is_group = matches!(self.tokens[open].token, Token::ParenOpen)
            && !self
                .top_level(open + 1)
                .take_while(|&i| i < close)
                .any(|i| matches!(self.tokens[i].token, Token::Comma));
        let constant = ["true", "false", "none", "True", "False", "None"];
        let holds_values = (open + 1..close).any(|i| self.ident(i).is_some_and(|name| !constant.contains(&name)));
        !is_subscript && !is_target && !is_group && holds_values
    }

    /// Whether a token ends what a bracket behind it would call or index.
    fn ends_operand(&self, i: usize) -> bool {
        match self.tokens[i].token {
            Token::Ident(name) => {
                let is_attribute = i > 0 && matches!(self.tokens[i - 1].token, Token::Dot);
                is_attribute || !["and", "elif", "else", "if", "in", "is", "not", "or"].contains(&name)
            }
            Token::Str(_) | Token::String(_) | Token::BracketClose | Token::BraceClose | Token::ParenClose => true,
            _ => false,
        }
    }

    /// The last token of the operand that begins here: signs, a value, and what is done to it by `.`, `[]`, `()` and `|`.
    fn operand_end(&self, start: usize) -> usize {
        let last = self.tokens.len() - 1;
        let mut i = start;
        while i < last && matches!(self.tokens[i].token, Token::Plus | Token::Minus) {
            i += 1;
        }
        let mut end = self.closing[i].unwrap_or(i);
        loop {
            let next = end + 1;
            end = match self.tokens.get(next).map(|at| &at.token) {
                Some(Token::Dot | Token::Pipe) if next < last => next + 1,
                Some(Token::BracketOpen | Token::ParenOpen) => match self.closing[next] {
                    Some(close) => close,
                    None => return end,
                },
                _ => return end,
            };
        }
    }
}
