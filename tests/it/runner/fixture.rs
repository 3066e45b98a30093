//! A crate with tests of every kind.

/// Its files.
pub(super) const FILES: [(&str, &str); 6] = [
    (
        "Cargo.toml",
        "[package]\nname = \"fixture\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n",
    ),
    (
        "build.rs",
        "fn main() {
            println!(\"cargo:rerun-if-changed=build.rs\");
            std::fs::write(std::env::var(\"OUT_DIR\").unwrap() + \"/built\", \"built\").unwrap();
        }\n",
    ),
    (
        "src/lib.rs",
        "/// ```\n/// fixture::in_guest();\n/// assert_eq!(fixture::DATA, \"data\");\n/// ```
        pub fn in_guest() {
            assert_eq!(std::env::var(\"VMTEST_IN_GUEST\").as_deref(), Ok(\"1\"), \"not in a guest\");
        }
        pub const DATA: &str = \"data\";
        #[test] fn unit() {
            in_guest();
            assert_eq!(std::fs::read_to_string(\"data.txt\").unwrap(), \"data\");
            std::fs::write(\"data.txt\", \"spoilt\").unwrap();
        }
        #[test] fn same_paths() {
            assert_eq!(std::env::var(\"CARGO_MANIFEST_DIR\").unwrap(), env!(\"CARGO_MANIFEST_DIR\"));
            assert_eq!(std::env::current_dir().unwrap().to_str(), Some(env!(\"CARGO_MANIFEST_DIR\")));
        }
        #[test] #[ignore] fn fails() { in_guest(); panic!(\"on purpose\"); }\n",
    ),
    ("src/main.rs", "fn main() { fixture::in_guest(); println!(\"{}\", std::env::consts::ARCH); }\n"),
    (
        "tests/outer.rs",
        "#[test] fn starts_the_program() {
            let program = std::process::Command::new(env!(\"CARGO_BIN_EXE_fixture\"));
            let output = { program }.output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), std::env::consts::ARCH);
        }
        #[test] fn comes_home() {
            fixture::in_guest();
            let arch = std::env::consts::ARCH;
            std::fs::write(format!(\"{}/home-{arch}\", env!(\"CARGO_TARGET_TMPDIR\")), arch).unwrap();
            assert_eq!(std::fs::read_to_string(format!(\"{}/built\", std::env::var(\"OUT_DIR\").unwrap())).unwrap(), \"built\");
        }
        #[test] #[ignore] fn aborts() { std::process::abort(); }
        #[test] #[ignore] fn sleeps() { std::thread::sleep(std::time::Duration::from_secs(600)); }
        #[test] #[ignore] fn panics_the_guest() {
            println!(\"before\");
            std::fs::write(\"/proc/sysrq-trigger\", \"c\").unwrap();
        }\n",
    ),
    ("data.txt", "data"),
];
