//! Names of functions, for people.

/// A function's name for people: Rust's unmangled, without the file that LLVM puts before the names
/// of static functions (`open.c:helper`).
pub(super) fn readable(name: &str, path: &str) -> String {
    let base = path.rsplit('/').next().unwrap_or(path);
    let own = name.rsplit_once([':', ';']).filter(|(before, own)| {
        !own.is_empty() && (before.ends_with(base) || before.ends_with(path))
    });
    let name = own.map_or(name, |(_, own)| own);
    match rustc_demangle::try_demangle(name) {
        // Without the hash: instances of one function are one.
        Ok(demangled) => without_parameters(&format!("{demangled:#}")),
        Err(_) => name.to_owned(),
    }
}

/// `gen::<Vec<i32>>` is an instance of `gen`, `<T as Trait>::f` is a name of its own.
fn without_parameters(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find("::<") {
        out.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let mut depth = 0usize;
        let mut previous = ' ';
        let end = inside.char_indices().find_map(|(index, c)| {
            match c {
                '<' => depth += 1,
                // The arrow of a function's type closes nothing.
                '>' if previous != '-' => depth -= 1,
                _ => {}
            }
            previous = c;
            (depth == 0).then_some(index + c.len_utf8())
        });
        match end {
            Some(end) => rest = &inside[end..],
            None => return name.to_owned(),
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_functions_are_for_people() {
        for (name, path, expected) in [
            ("p.c:sq", "/x/p.c", "sq"),
            ("/x/p.c;sq", "/x/p.c", "sq"),
            ("main", "/x/p.c", "main"),
            ("a::b", "/x/p.c", "a::b"),
            ("_RNvCs6GmmlP4bgsG_1r4main", "/r.rs", "r::main"),
            ("_RINvCs6GmmlP4bgsG_1r3genReEB2_", "/r.rs", "r::gen"),
            (
                "_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE",
                "/r.rs",
                "core::fmt::Write::write_fmt",
            ),
        ] {
            assert_eq!(readable(name, path), expected);
        }
        assert_eq!(without_parameters("a::b::<fn() -> x::<T>>::c"), "a::b::c");
        assert_eq!(without_parameters("a::<b"), "a::<b");
    }
}
