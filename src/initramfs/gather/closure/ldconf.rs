//! `ld.so.conf` and musl's path file.

use std::collections::BTreeSet;

use super::sysroot::{Sysroot, join, parent};
use crate::formats::glob;

/// One line of `ld.so.conf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A directory.
    Dir(Vec<u8>),
    /// Patterns of further files, relative to the directory of the file if not absolute.
    Include(Vec<Vec<u8>>),
    /// A directory that ldconfig refuses since it is not absolute.
    Relative(Vec<u8>),
}

/// Reads `ld.so.conf` as ldconfig does; `hwcap` lines have no meaning any more.
pub fn parse(text: &[u8]) -> Vec<Line> {
    text.split(|&b| b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Line> {
    let line = line.split(|&b| b == b'#').next()?.trim_ascii();
    let mut words = line.split(|b| b.is_ascii_whitespace()).filter(|word| !word.is_empty());
    match words.next()? {
        b"include" => Some(Line::Include(words.map(<[u8]>::to_vec).collect())),
        b"hwcap" => None,
        _ => {
            // `DIR=TYPE` named the C library once.
            let dir = line.split(|&b| b == b'=').next()?.trim_ascii_end();
            let dir = match dir.iter().rposition(|&b| b != b'/') {
                Some(last) => &dir[..=last],
                None => &dir[..dir.len().min(1)],
            };
            match dir.first() {
                Some(b'/') => Some(Line::Dir(dir.to_vec())),
                _ => Some(Line::Relative(dir.to_vec())),
            }
        }
    }
}

/// Reads musl's path file: directories separated by newlines or colons.
pub fn parse_musl(text: &[u8]) -> Vec<Vec<u8>> {
    text.split(|b| matches!(b, b'\n' | b':'))
        .filter(|dir| dir.starts_with(b"/"))
        .map(<[u8]>::to_vec)
        .collect()
}

/// The directories of `/etc/ld.so.conf` and what it includes, each with the file that names it.
pub(super) fn directories(sysroot: &mut Sysroot) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    read(sysroot, b"etc/ld.so.conf", &mut BTreeSet::new(), &mut found);
    found
}

fn read(
    sysroot: &mut Sysroot,
    file: &[u8],
    seen: &mut BTreeSet<Vec<u8>>,
    found: &mut Vec<(Vec<u8>, Vec<u8>)>,
) {
    let Some(text) = contents(sysroot, file) else { return };
    // A file that includes itself, or is included twice, adds nothing.
    if !seen.insert(file.to_vec()) {
        return;
    }
    for line in parse(&text) {
        match line {
            Line::Dir(dir) => found.push((dir, file.to_vec())),
            Line::Relative(_) => {}
            Line::Include(patterns) => {
                for pattern in patterns {
                    let pattern = match pattern.strip_prefix(b"/") {
                        Some(absolute) => absolute.to_vec(),
                        None => join(parent(file), &pattern),
                    };
                    for included in expand(sysroot, &pattern) {
                        read(sysroot, &included, seen, found);
                    }
                }
            }
        }
    }
}

/// The bytes of a configuration file of the sysroot, `None` if there is no such file.
pub(super) fn contents(sysroot: &mut Sysroot, file: &[u8]) -> Option<Vec<u8>> {
    let resolved = sysroot.resolve(file).ok().filter(|found| !found.is_dir)?;
    std::fs::read(sysroot.host(&resolved.real)).ok()
}

/// Paths that match `pattern`, sorted, as `glob(3)` finds them.
fn expand(sysroot: &mut Sysroot, pattern: &[u8]) -> Vec<Vec<u8>> {
    let mut paths: Vec<Vec<u8>> = vec![Vec::new()];
    for part in pattern.split(|&b| b == b'/').filter(|part| !part.is_empty()) {
        let wild = part.iter().any(|b| matches!(b, b'*' | b'?' | b'['));
        let mut next = Vec::new();
        for path in paths {
            if !wild {
                next.push(join(&path, part));
                continue;
            }
            let Some(dir) = sysroot.resolve(&path).ok().filter(|found| found.is_dir) else {
                continue;
            };
            let names = sysroot.list(&dir.real);
            let fits =
                |name: &&Vec<u8>| glob::matches(part, name) && (name[0] != b'.' || part[0] == b'.');
            next.extend(names.iter().filter(fits).map(|name| join(&path, name)));
        }
        paths = next;
    }
    paths
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_read_as_ldconfig_does() {
        let text =
            b"# c\n/usr/lib//  \ninclude a b/*.conf\n  /x y # z\nhwcap 1 nosegneg\nrel\n/=libc6\n";
        let expected = [
            Line::Dir(b"/usr/lib".to_vec()),
            Line::Include(vec![b"a".to_vec(), b"b/*.conf".to_vec()]),
            Line::Dir(b"/x y".to_vec()),
            Line::Relative(b"rel".to_vec()),
            Line::Dir(b"/".to_vec()),
        ];
        assert_eq!(parse(text), expected);
        assert_eq!(parse_musl(b"/lib:/usr/lib\n\n/a\nrel"), [&b"/lib"[..], b"/usr/lib", b"/a"]);
    }

    #[test]
    fn includes_are_relative_to_the_sysroot_and_end() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("etc/ld.so.conf.d");
        std::fs::create_dir_all(&conf).unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("etc/ld.so.conf", "/first\ninclude ld.so.conf.d/*.conf\ninclude /etc/n*e\n/last\n");
        write("etc/ld.so.conf.d/b.conf", "/b\ninclude /etc/ld.so.conf\n");
        write("etc/ld.so.conf.d/a.conf", "/a\n");
        write("etc/ld.so.conf.d/.hidden.conf", "/hidden\n");
        let found = directories(&mut Sysroot::new(dir.path()));
        let dirs: Vec<_> = found.iter().map(|(dir, _)| String::from_utf8_lossy(dir)).collect();
        assert_eq!(dirs, ["/first", "/a", "/b", "/last"]);
        assert_eq!(found[1].1, b"etc/ld.so.conf.d/a.conf");
        assert!(directories(&mut Sysroot::new(&dir.path().join("etc"))).is_empty());
    }

    proptest! {
        #[test]
        fn any_text_ends(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            parse(&text);
            parse_musl(&text);
        }

        #[test]
        fn directories_are_absolute(text in "([ /a-c#=\n]|include ){0,60}") {
            for line in parse(text.as_bytes()) {
                if let Line::Dir(dir) = line {
                    prop_assert!(dir.starts_with(b"/"));
                }
            }
        }
    }
}
