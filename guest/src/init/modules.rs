//! Loads the kernel modules that the image lists.
//!
//! The host has put dependencies before what depends on them and has decompressed the files, so
//! that nothing of this needs to happen here.

use rustix::io::Errno;
use std::ffi::CString;
use std::fs::File;
use std::path::Path;

/// One line of the list.
#[derive(Debug, PartialEq, Eq)]
struct Module<'a> {
    path: &'a str,
    parameters: &'a str,
}

fn parse(list: &str) -> impl Iterator<Item = Module<'_>> {
    list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(
        |line| {
            let (path, parameters) = line.split_once([' ', '\t']).unwrap_or((line, ""));
            Module { path, parameters: parameters.trim_start() }
        },
    )
}

/// Loads what the file `list` names, in its order, and returns the names of what is now loaded. A
/// module that does not load is a notice: what needed it will say so when it is used.
pub(crate) fn load_listed(list: &Path, notices: &mut Vec<String>) -> Vec<String> {
    let text = match std::fs::read_to_string(list) {
        Ok(text) => text,
        // An image without modules.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            notices.push(format!("cannot read the list of modules {}: {error}", list.display()));
            return Vec::new();
        }
    };
    let mut loaded = Vec::new();
    for module in parse(&text) {
        match load(&module) {
            Ok(()) => loaded.push(name(module.path)),
            Err(error) => notices.push(format!("module {} did not load: {error}", module.path)),
        }
    }
    loaded
}

fn load(module: &Module<'_>) -> Result<(), String> {
    let file = File::open(module.path).map_err(|error| error.to_string())?;
    let parameters = CString::new(module.parameters).map_err(|error| error.to_string())?;
    match rustix::system::finit_module(&file, &parameters, 0) {
        // Built in or loaded before.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(match reason(errno) {
            "" => errno.to_string(),
            reason => format!("{errno} ({reason}; the kernel's log has more)"),
        }),
    }
}

fn reason(errno: Errno) -> &'static str {
    match errno {
        Errno::NOEXEC => "no module for this kernel, or compressed",
        Errno::NOENT => "a symbol it needs is missing: a module it depends on is not loaded",
        Errno::NODEV => "it found no device",
        Errno::NOSYS => "the kernel has no support for modules",
        Errno::NOKEY | Errno::KEYREJECTED => "the kernel only takes signed modules",
        Errno::INVAL => "an unknown parameter, or made for another version of the kernel",
        _ => "",
    }
}

/// The name as `lsmod` says it: without directory and suffixes, with `_` for `-`.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_paths_parameters_and_comments() {
        let list =
            "# order matters\n/m/virtio.ko\n\n  /m/virtio-pci.ko  legacy=0 a=\"b c\"  \n#/x.ko\n";
        let modules: Vec<_> = parse(list).collect();
        assert_eq!(
            modules,
            [
                Module { path: "/m/virtio.ko", parameters: "" },
                Module { path: "/m/virtio-pci.ko", parameters: "legacy=0 a=\"b c\"" },
            ]
        );
        assert_eq!(name("/m/virtio-pci.ko"), "virtio_pci");
        assert_eq!(name("/m/9p.ko.xz"), "9p");
    }

    #[test]
    fn an_image_without_a_list_has_no_modules() {
        let mut notices = Vec::new();
        assert!(load_listed(Path::new("/nonexistent/modules"), &mut notices).is_empty());
        assert!(notices.is_empty());
    }
}
