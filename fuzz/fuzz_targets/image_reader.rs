//! Any bytes as an image of segments with any compression: no panic, and what can be read as a base
//! can be written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmtest::arch::Arch;
use vmtest::initramfs::ImageSpec;
use vmtest::initramfs::archive::Source;
use vmtest::initramfs::inspect::Listing;

fuzz_target!(|data: &[u8]| {
    let source = Source::Bytes(data.into());
    let Ok(listing) = Listing::read(&source, true) else { return };
    let total: u64 = listing.items.iter().map(|item| item.size).sum();
    // Bombs are for the user's own memory; here they only cost time.
    if total > 16 << 20 {
        return;
    }
    let mut spec = ImageSpec::new(Arch::Amd64);
    spec.base_bytes(data);
    let Ok(image) = spec.finish() else { return };
    let mut bytes = Vec::new();
    image.write_to(&mut bytes).expect("what was read can be written");
    let again = Listing::read(&Source::Bytes(bytes.into()), false).expect("ours can be read");
    assert_eq!(again.items.len(), image.entries().len());
});
