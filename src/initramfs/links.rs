//! Symbolic links of an image, followed as Linux will.

use super::entry::parent;

/// What is at a path: the text of a symbolic link, or `None` for anything else.
pub(crate) type Found = Option<Vec<u8>>;

/// Follows symbolic links in all components of a path. `target` tells of a path whether it exists,
/// and if it is a link, where to.
pub(crate) fn follow(path: &[u8], target: &dyn Fn(&[u8]) -> Option<Found>) -> Option<Vec<u8>> {
    let split = |path: &[u8]| -> Vec<Vec<u8>> {
        path.split(|&b| b == b'/')
            .filter(|c| !c.is_empty() && *c != b".")
            .map(<[u8]>::to_vec)
            .collect()
    };
    let mut todo = split(path);
    todo.reverse();
    let mut at: Vec<u8> = Vec::new();
    let mut hops = 0;
    while let Some(component) = todo.pop() {
        if component == b".." {
            at.truncate(parent(&at).len());
            continue;
        }
        let end = at.len();
        if end > 0 {
            at.push(b'/');
        }
        at.extend_from_slice(&component);
        match target(&at) {
            Some(Some(text)) => {
                hops += 1;
                if hops > 40 {
                    return None;
                }
                at.truncate(if text.starts_with(b"/") { 0 } else { end });
                todo.extend(split(&text).into_iter().rev());
            }
            Some(None) => {}
            // Directories may be implied; only the last component must be there.
            None if todo.is_empty() => return None,
            None => {}
        }
    }
    Some(at)
}
