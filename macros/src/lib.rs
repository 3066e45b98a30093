//! `#[vmtest::test]`: a Rust test whose body runs in a guest. Its documentation is at `vmtest::test`.
//!
//! Only tokens are moved here: what the arguments mean, and everything that happens, is in
//! `vmtest::testing::guest`. No parser of Rust is needed: an attribute macro gets one whole function, whose name
//! follows the first `fn`, and whose body is the last group.

use proc_macro::{Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};

/// Arguments, by the setters of `vmtest::testing::guest::Settings`, with what they take.
const ARGUMENTS: [(&str, Kind); 7] = [
    ("arch", Kind::Text),
    ("kernel", Kind::Text),
    ("memory", Kind::Text),
    ("cpus", Kind::Number),
    ("timeout", Kind::Text),
    ("cmdline", Kind::Text),
    ("net", Kind::Text),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
}

/// Makes a test whose body runs in a guest.
///
/// See `vmtest::test` for the arguments.
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, function: TokenStream) -> TokenStream {
    let expanded = settings(arguments).and_then(|settings| expand(settings, function.clone()));
    expanded.unwrap_or_else(|Wrong { text, span }| {
        // The function stays, so that this is the only error.
        let error = quoted(&format!("::core::compile_error!({text:?});"), span);
        error.into_iter().chain(function).collect()
    })
}

/// What is wrong, and where.
struct Wrong {
    text: String,
    span: Span,
}

fn wrong<T>(text: impl Into<String>, span: Span) -> Result<T, Wrong> {
    Err(Wrong { text: text.into(), span })
}

/// Rust text as tokens at a place.
fn quoted(text: &str, span: Span) -> TokenStream {
    let stream: TokenStream = text.parse().unwrap_or_default();
    stream
        .into_iter()
        .map(|mut token| {
            token.set_span(span);
            token
        })
        .collect()
}

/// The calls of setters, `.memory("1G").cpus(2)`.
fn settings(arguments: TokenStream) -> Result<TokenStream, Wrong> {
    let mut calls = TokenStream::new();
    let mut tokens = arguments.into_iter();
    while let Some(token) = tokens.next() {
        let span = token.span();
        let TokenTree::Ident(name) = token else {
            return wrong("write `NAME = VALUE`, separated by commas", span);
        };
        let known = ARGUMENTS.iter().find(|(known, _)| name.to_string() == *known);
        let Some((_, kind)) = known else {
            let names = ARGUMENTS.map(|(name, _)| name).join(", ");
            return wrong(format!("there is no argument `{name}`; there are {names}"), span);
        };
        let value = match (tokens.next(), tokens.next()) {
            (Some(TokenTree::Punct(equals)), Some(TokenTree::Literal(value)))
                if equals.as_char() == '=' && kind_of(&value) == Some(*kind) =>
            {
                value
            }
            _ => {
                let form = if *kind == Kind::Text { "\"…\"" } else { "NUMBER" };
                return wrong(format!("write `{name} = {form}`"), span);
            }
        };
        let argument = Group::new(Delimiter::Parenthesis, TokenTree::from(value).into());
        calls.extend([
            TokenTree::from(Punct::new('.', Spacing::Alone)),
            name.into(),
            argument.into(),
        ]);
        match tokens.next() {
            None => break,
            Some(TokenTree::Punct(comma)) if comma.as_char() == ',' => {}
            Some(other) => return wrong("write a comma between arguments", other.span()),
        }
    }
    Ok(calls)
}

fn kind_of(value: &Literal) -> Option<Kind> {
    match value.to_string().chars().next() {
        Some('"') => Some(Kind::Text),
        Some(digit) if digit.is_ascii_digit() => Some(Kind::Number),
        _ => None,
    }
}

/// The test, which has the function in it:
///
/// ```text
/// #[::core::prelude::v1::test]
/// ATTRIBUTES fn NAME() -> TYPE {
///     fn NAME() -> TYPE { BODY }
///     ::vmtest::testing::guest::Settings::new(concat!(module_path!(), "::", "NAME")) CALLS .run(NAME)
/// }
/// ```
fn expand(calls: TokenStream, function: TokenStream) -> Result<TokenStream, Wrong> {
    let mut tokens: Vec<TokenTree> = function.into_iter().collect();
    let is_fn =
        |token: &TokenTree| matches!(token, TokenTree::Ident(word) if word.to_string() == "fn");
    let Some(at) = tokens.iter().position(is_fn) else {
        return wrong("`#[vmtest::test]` is for functions", Span::call_site());
    };
    if let Some(word) = tokens[..at].iter().find(
        |token| matches!(token, TokenTree::Ident(word) if ["async", "unsafe", "const", "extern"].contains(&&*word.to_string())),
    ) {
        return wrong(format!("a test cannot be `{word}`"), word.span());
    }
    let (name, takes) = match (tokens.get(at + 1), tokens.get(at + 2)) {
        (Some(TokenTree::Ident(name)), Some(TokenTree::Group(takes))) => (name.clone(), takes),
        _ => return wrong("a test has no type parameters", tokens[at].span()),
    };
    if !takes.stream().is_empty() {
        return wrong("a test takes nothing", takes.span());
    }
    match tokens.pop() {
        Some(TokenTree::Group(body)) if body.delimiter() == Delimiter::Brace => {
            let attributes = should_panic(&tokens[..at]);
            let signature: TokenStream = tokens[at..].iter().cloned().collect();
            let mut inside = signature;
            inside.extend([TokenTree::from(body)]);
            inside.extend(run(&name, attributes, calls));
            let mut test = quoted("#[::core::prelude::v1::test]", Span::call_site());
            test.extend(tokens);
            test.extend([TokenTree::from(Group::new(Delimiter::Brace, inside))]);
            Ok(test)
        }
        _ => wrong("a test has a body", name.span()),
    }
}

/// Whether the function is expected to panic.
fn should_panic(before: &[TokenTree]) -> bool {
    let names = before.iter().filter_map(|token| match token {
        TokenTree::Group(attribute) if attribute.delimiter() == Delimiter::Bracket => {
            attribute.stream().into_iter().next()
        }
        _ => None,
    });
    names.into_iter().any(|name| name.to_string() == "should_panic")
}

/// Has the body run.
fn run(name: &Ident, should_panic: bool, calls: TokenStream) -> TokenStream {
    let start = format!(
        "::vmtest::testing::guest::Settings::new(::core::concat!(::core::module_path!(), \"::{name}\")){}",
        if should_panic { ".should_panic()" } else { "" }
    );
    let mut stream = quoted(&start, Span::call_site());
    stream.extend(calls);
    let body = Group::new(Delimiter::Parenthesis, TokenTree::from(name.clone()).into());
    stream.extend([
        TokenTree::from(Punct::new('.', Spacing::Alone)),
        Ident::new("run", Span::call_site()).into(),
        body.into(),
    ]);
    stream
}
