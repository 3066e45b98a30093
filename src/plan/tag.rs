//! Mount tags: the names under which the guest finds 9p shares.

/// The longest mount tag, in bytes (QEMU, `hw/9pfs/9p.h`: `MAX_TAG_LEN` is 32 with the final NUL;
/// tried with 7.2 and 10.0).
pub const MOUNT_TAG_MAX: usize = 31;

/// A mount tag that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TagError {
    /// No tag at all.
    #[error("empty mount tag")]
    Empty,
    /// Longer than virtio-9p can say.
    #[error("mount tag `{tag}` is {} bytes long, virtio-9p allows {MOUNT_TAG_MAX}", .tag.len())]
    TooLong {
        /// The tag.
        tag: String,
    },
    /// The tag names a directory below `/mount/9p`, so it cannot have a slash, or be `..`.
    #[error("mount tag `{}` is no file name", .tag.escape_default())]
    NotAFileName {
        /// The tag.
        tag: String,
    },
}

impl TagError {
    /// How to fix it.
    pub fn hint(&self) -> String {
        "give the share a short name of its own: `--share DIR:TAG`".into()
    }

    /// Checks a tag.
    ///
    /// # Errors
    /// The rule that the tag breaks.
    pub fn check(tag: &str) -> Result<(), TagError> {
        let owned = || tag.to_owned();
        if tag.is_empty() {
            Err(TagError::Empty)
        } else if tag.len() > MOUNT_TAG_MAX {
            Err(TagError::TooLong { tag: owned() })
        } else if tag == "." || tag == ".." || tag.contains(['/', '\0', '\n']) {
            Err(TagError::NotAFileName { tag: owned() })
        } else {
            Ok(())
        }
    }
}
