//! Files that a compiler made, and damaged ones.

use std::process::Command;
use std::sync::Arc;

use super::super::frame;
use super::*;

const SOURCE: &str = "\
static volatile int sink;
static inline __attribute__((always_inline)) void inner(int x) {
    sink = x / sink;
}
__attribute__((noinline)) void middle(int x) {
    inner(x);
    sink++;
}
__attribute__((noinline)) int outer(int x) {
    middle(x);
    return sink;
}
";

/// An object file or, with `linked`, a shared one, with debug information in one of its forms.
fn built(args: &[&str]) -> Arc<[u8]> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("probe.c"), SOURCE).unwrap();
    let output = dir.path().join("out");
    let status = Command::new("gcc")
        .args(["-g", "-O1", "-ffunction-sections", "-o"])
        .arg(&output)
        .args(args)
        .arg("probe.c")
        .current_dir(dir.path())
        .status()
        .expect("gcc is needed to build this test's file");
    assert!(status.success(), "{args:?}");
    std::fs::read(output).unwrap().into()
}

const LINKED: &[&str] = &["-shared", "-fPIC", "-Wl,--build-id=sha1"];

fn lines(decoder: &mut Decoder, line: &str) -> Vec<String> {
    decoder.decode_line(line)
}

#[test]
fn a_linked_file_s_functions_have_lines_and_inlines() {
    for compression in ["none", "zlib"] {
        let compression = format!("-gz={compression}");
        let mut args = LINKED.to_vec();
        args.push(&compression);
        let image = Image::parse(&built(&args)).unwrap();
        assert!(image.has_lines());
        assert_eq!(image.build_id().unwrap().len(), 40);
        let mut decoder = Decoder::new(image);
        // The instruction at the beginning is the inlined function's.
        let frame = frame::parse("RIP: 0010:middle+0x4/0x1000").unwrap();
        let found = decoder.locate(&frame);
        let names: Vec<_> = found.iter().filter_map(|place| place.function.as_deref()).collect();
        assert_eq!(names.last(), Some(&"middle"), "{compression}: {found:?}");
        assert!(found[0].file.as_deref().unwrap().ends_with("probe.c"));
        let all: Vec<String> = (0..24)
            .flat_map(|at| lines(&mut decoder, &format!(" outer+0x{at:x}/0x1000")))
            .collect();
        assert!(all.iter().any(|line| line.contains("probe.c:10)")), "{all:?}");
    }
}

#[test]
fn inlined_functions_come_on_lines_of_their_own() {
    let mut decoder = Decoder::new(Image::parse(&built(LINKED)).unwrap());
    let all: Vec<String> =
        (0..24).flat_map(|at| lines(&mut decoder, &format!("  middle+0x{at:x}/0x1000"))).collect();
    let inlined = all.iter().find(|line| line.ends_with("[inline]")).unwrap();
    assert!(inlined.starts_with("  inner (") && inlined.contains("probe.c:3)"), "{inlined}");
}

#[test]
fn a_module_s_sections_are_completed() {
    let kernel = Image::parse(&built(LINKED)).unwrap();
    let mut decoder = Decoder::new(kernel);
    assert_eq!(Decoder::modules_of(" outer+0x9/0x20 [my-mod]"), ["my-mod"]);
    assert!(decoder.lacks("my_mod"));
    decoder.add_module("my-mod", Some(Image::parse(&built(&["-c"])).unwrap()));
    assert!(!decoder.lacks("my_mod"));
    let all: Vec<String> = (0..16)
        .flat_map(|at| lines(&mut decoder, &format!(" outer+0x{at:x}/0x1000 [my_mod]")))
        .collect();
    assert!(
        all.iter().any(|line| line.contains("[my_mod] (") && line.contains("probe.c:10)")),
        "{all:?}"
    );
    let text = lines(&mut decoder, " middle+0x4/0x1000 [my_mod]");
    assert!(text.last().unwrap().contains("probe.c:"), "{text:?}");
}

#[test]
fn what_is_not_known_stays_as_it_is() {
    let mut decoder = Decoder::new(Image::parse(&built(LINKED)).unwrap());
    for line in [
        " nothing+0x1/0x2",
        " outer+0x1/0x1000 [absent]",
        "no frame",
        "",
        " outer+0xffffffffffffffff/0x1000",
    ] {
        assert_eq!(lines(&mut decoder, line), [line]);
    }
}

#[test]
fn several_functions_on_a_line_are_decoded() {
    let mut decoder = Decoder::new(Image::parse(&built(LINKED)).unwrap());
    let text = lines(&mut decoder, "BUG: KCSAN: data-race in outer+0x9/0x1000 / middle+0x9/0x1000");
    assert_eq!(text.len(), 1);
    assert_eq!(text[0].matches("probe.c:").count(), 2, "{text:?}");
}

#[test]
fn damaged_files_are_errors_and_never_panics() {
    assert!(matches!(Image::parse(&Arc::from(*b"MZ no elf")), Err(ImageError::Elf(_))));
    let whole = built(&["-c", "-gz=zlib"]);
    let mut seed = 1u32;
    for round in 0..400 {
        let mut bytes = whole.to_vec();
        if round % 4 == 0 {
            bytes.truncate(bytes.len() * round / 400);
        }
        for _ in 0..8 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let length = bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(seed as usize % length) {
                *byte = (seed >> 24) as u8;
            }
        }
        if let Ok(image) = Image::parse(&bytes.into()) {
            let mut decoder = Decoder::new(image);
            for at in 0..16 {
                lines(&mut decoder, &format!(" outer+0x{at:x}/0x40"));
            }
        }
    }
}
