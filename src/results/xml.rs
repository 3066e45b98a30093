//! The tokens of an XML report, as far as reports of tests need them: elements, attributes, text, CDATA.
//!
//! It reads on through what is no XML, keeps at most [`TAG_MAX`] bytes of a tag, and knows no entities but
//! the five of XML and numbers: what others would be expanded to is nothing a test report needs.

/// What is kept of a tag; of a longer one nothing is known but its name.
const TAG_MAX: usize = 64 << 10;

/// A token; text of an element may come in pieces.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// `<name attributes>`, or `<name attributes/>`.
    Open { name: &'a str, attributes: &'a str, closed: bool },
    /// `</name>`
    Close(&'a str),
    /// Text and CDATA, unescaped.
    Text(&'a str),
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    Tag {
        quote: Option<char>,
    },
    /// Up to `]]>`.
    Cdata,
    /// Up to `-->`.
    Comment,
}

/// Splits text into tokens.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    state: State,
    held: String,
}

impl Tokens {
    pub(super) fn feed(&mut self, text: &str, each: &mut impl FnMut(Token<'_>)) {
        for c in text.chars() {
            self.next(c, each);
        }
    }

    fn next(&mut self, c: char, each: &mut impl FnMut(Token<'_>)) {
        match self.state {
            State::Text if c == '<' => {
                if !self.held.is_empty() {
                    each(Token::Text(&unescape(&self.held)));
                }
                self.held.clear();
                self.state = State::Tag { quote: None };
            }
            State::Text => {
                self.held.push(c);
                if self.held.len() > TAG_MAX {
                    each(Token::Text(&unescape(&self.held)));
                    self.held.clear();
                }
            }
            State::Tag { quote } => self.in_tag(c, quote, each),
            State::Cdata | State::Comment => {
                self.held.push(c);
                let cdata = self.state == State::Cdata;
                let end = if cdata { "]]>" } else { "-->" };
                if let Some(text) = self.held.strip_suffix(end) {
                    if cdata {
                        each(Token::Text(text));
                    }
                    self.held.clear();
                    self.state = State::Text;
                } else if self.held.len() > TAG_MAX {
                    // The end may be split: its first two characters stay.
                    let mut at = self.held.len() - 2;
                    while !self.held.is_char_boundary(at) {
                        at -= 1;
                    }
                    if cdata {
                        each(Token::Text(&self.held[..at]));
                    }
                    self.held.drain(..at);
                }
            }
        }
    }

    fn in_tag(&mut self, c: char, quote: Option<char>, each: &mut impl FnMut(Token<'_>)) {
        if quote.is_none() && c == '>' {
            tag(&self.held, each);
            self.held.clear();
            self.state = State::Text;
            return;
        }
        let quote = match quote {
            Some(open) => (open != c).then_some(open),
            None => matches!(c, '"' | '\'').then_some(c),
        };
        self.state = State::Tag { quote };
        if self.held.len() < TAG_MAX {
            self.held.push(c);
        }
        match self.held.as_str() {
            "![CDATA[" => self.state = State::Cdata,
            "!--" => self.state = State::Comment,
            _ => return,
        }
        self.held.clear();
    }
}

fn tag(text: &str, each: &mut impl FnMut(Token<'_>)) {
    if let Some(name) = text.strip_prefix('/') {
        return each(Token::Close(name.trim()));
    }
    if text.starts_with(['?', '!']) {
        return;
    }
    let (text, closed) = match text.strip_suffix('/') {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (name, attributes) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    each(Token::Open { name, attributes, closed });
}

/// The value of an attribute.
pub(super) fn attribute(mut attributes: &str, wanted: &str) -> Option<String> {
    loop {
        let (name, rest) = attributes.split_once('=')?;
        let rest = rest.trim_start();
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (value, after) = rest[1..].split_once(quote)?;
        if name.trim() == wanted {
            return Some(unescape(value));
        }
        attributes = after;
    }
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        // An entity is short; what is longer is none.
        let end = rest.char_indices().take(12).find(|(_, c)| *c == ';').map(|it| it.0);
        let known = end.and_then(|end| entity(&rest[1..end]));
        match (known, end) {
            (Some(c), Some(end)) => {
                out.push(c);
                rest = &rest[end + 1..];
            }
            _ => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn entity(name: &str) -> Option<char> {
    Some(match name {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)?
        }
    })
}
