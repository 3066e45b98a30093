//! The shell of vmtest's images, where scripts look for one.

use std::fs;
use std::path::Path;
use vmtest_guest::proto;

/// Has scripts find a shell: images of vmtest's keep theirs out of the user's way.
pub(crate) fn link(notices: &mut Vec<String>) {
    let shell = format!("{}/busybox", proto::SHELL_DIR);
    if !Path::new(&shell).exists() {
        return;
    }
    for (dir, link) in [("/bin", "/bin/sh"), ("/usr/bin", "/usr/bin/env")] {
        let link = Path::new(link);
        // A link of the image's that leads nowhere is the image's own business.
        if link.symlink_metadata().is_err() {
            let linked =
                fs::create_dir_all(dir).and_then(|()| std::os::unix::fs::symlink(&shell, link));
            if let Err(error) = linked {
                notices.push(format!("cannot link {} to the shell: {error}", link.display()));
            }
        }
    }
}
