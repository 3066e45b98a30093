//! Reads `/proc/mounts`.

/// The type of the file system that is mounted at a directory; the last one that was mounted there.
pub fn file_system(mounts: &str, directory: &str) -> Option<String> {
    mounts
        .lines()
        .rev()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(1) == Some(&directory))
        .and_then(|fields| fields.get(2).map(|name| name.to_string()))
}

#[cfg(test)]
mod tests {
    use super::file_system;

    #[test]
    fn the_last_mount_counts() {
        let mounts = "a /x ext4 rw 0 0\nb /x tmpfs rw 0 0\n";
        assert_eq!(file_system(mounts, "/x").as_deref(), Some("tmpfs"));
        assert_eq!(file_system(mounts, "/y"), None);
    }

    /// Needs root, and a machine where that does no harm: a guest.
    #[test]
    #[ignore = "mounts a file system: runs in a guest, see flake.nix"]
    fn a_mount_is_found() {
        std::fs::create_dir_all("/scratch").unwrap();
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "none", "/scratch"])
            .status()
            .unwrap();
        assert!(status.success());
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        assert_eq!(file_system(&mounts, "/scratch").as_deref(), Some("tmpfs"));
    }
}
