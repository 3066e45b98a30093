//! Which variables of the host's a program gets in a guest.
//!
//! Those that tests read, by name ([`NAMES`]) and by how the name begins ([`PREFIXES`]); never one that looks
//! like a secret: by its name ([`SECRETS`]), or because its value is an address with a password in it. What
//! speaks of the host alone (`PATH`, `HOME`, `USER`, jobserver and runner of cargo) stays there.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::request::variable;

/// How names begin that are passed.
pub const PREFIXES: [&str; 26] = [
    "AM_",
    "ASAN_",
    "CARGO_",
    "CMAKE_",
    "CRITERION_",
    "CTEST_",
    "EXPECT_",
    "GO",
    "GTEST_",
    "INSTA_",
    "KSELFTEST_",
    "LC_",
    "LSAN_",
    "MALLOC_",
    "MESON_",
    "MSAN_",
    "NEXTEST_",
    "PROPTEST_",
    "QUICKCHECK_",
    "RUST_",
    "TEST",
    "TRYBUILD",
    "TSAN_",
    "UBSAN_",
    "UPDATE_",
    "abs_",
];

/// Names that are passed.
pub const NAMES: [&str; 27] = [
    "BLESS",
    "CARGO",
    "CI",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "COLORTERM",
    "COLUMNS",
    "FORCE_COLOR",
    "GITHUB_ACTIONS",
    "GITLAB_CI",
    "LANG",
    "LANGUAGE",
    "LINES",
    "NEXTEST",
    "NO_COLOR",
    "OUT_DIR",
    "PWD",
    "SOURCE_DATE_EPOCH",
    "TERM",
    "TZ",
    "UPDATE",
    "V",
    "VERBOSE",
    "builddir",
    "srcdir",
    "top_builddir",
    "top_srcdir",
];

/// Parts of names, in any case, that are of secrets.
pub const SECRETS: [&str; 9] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "CREDENTIAL",
    "KEY",
    "COOKIE",
    "SESSION",
];

/// What the rest would pass and is of no use in a guest, or of harm.
fn is_hosts(name: &str) -> bool {
    // Descriptors of cargo's jobserver are not there. Whoever finds a runner runs programs by it, and it is
    // not there either.
    let runner = name.starts_with("CARGO_TARGET_") && name.ends_with("_RUNNER");
    // Commands and files with passwords, and another company's.
    let others = name == "GOAUTH" || name.starts_with("GOOGLE_");
    name == "CARGO_MAKEFLAGS" || runner || others
}

/// Says which variables are passed.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// What was asked for: whole names, and beginnings.
    exact: Vec<String>,
    prefixes: Vec<String>,
}

impl Rule {
    /// The rule, and what else is asked for: `NAME` is passed whatever it looks like, `NAME*` passes all names
    /// that begin so and look like no secret.
    pub fn new(asked: &[String]) -> Rule {
        let mut rule = Rule::default();
        for pattern in asked {
            match pattern.strip_suffix('*') {
                Some(prefix) => rule.prefixes.push(prefix.to_owned()),
                None => rule.exact.push(pattern.clone()),
            }
        }
        rule
    }

    /// Whether a variable is passed.
    pub fn passes(&self, name: &OsStr, value: &OsStr) -> bool {
        let Some(name) = name.to_str() else { return false };
        if self.exact.iter().any(|asked| asked == name) {
            return true;
        }
        let upper = name.to_ascii_uppercase();
        let secret = SECRETS.iter().any(|part| upper.contains(part));
        if secret || has_password(&value.to_string_lossy()) {
            return false;
        }
        let begins = |prefix: &str| name.starts_with(prefix);
        if self.prefixes.iter().any(|prefix| begins(prefix)) {
            return true;
        }
        !is_hosts(name) && (NAMES.contains(&name) || PREFIXES.into_iter().any(begins))
    }
}

/// Whether there is an address with a user's password in a text: `https://user:password@host`.
fn has_password(value: &str) -> bool {
    value.match_indices("://").any(|(at, mark)| {
        let rest = &value[at + mark.len()..];
        let authority = rest.split(['/', ' ', ',', '?', '#']).next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    })
}

/// Directories with libraries: `LD_LIBRARY_PATH`, as far as they are there.
pub(super) fn library_dirs(env: &[(OsString, OsString)]) -> Vec<PathBuf> {
    let value = variable(env, "LD_LIBRARY_PATH").unwrap_or_default();
    std::env::split_paths(value).filter(|dir| dir.is_absolute() && dir.is_dir()).collect()
}

/// Programs that a test may start by their paths: `CARGO_BIN_EXE_NAME`, and what nextest calls the same.
pub(super) fn programs(env: &[(OsString, OsString)]) -> impl Iterator<Item = PathBuf> {
    let is_one = |name: &OsStr| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_BIN_EXE_") || name.starts_with("NEXTEST_BIN_EXE_")
    };
    let mut paths: Vec<PathBuf> = env
        .iter()
        .filter(|(name, _)| is_one(name))
        .map(|(_, value)| PathBuf::from(value))
        .filter(|path| path.is_absolute() && path.is_file())
        .collect();
    paths.sort();
    paths.dedup();
    paths.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(rule: &Rule, name: &str, value: &str) -> bool {
        rule.passes(OsStr::new(name), OsStr::new(value))
    }

    #[test]
    fn what_tests_read_is_passed_and_what_is_the_hosts_is_not() {
        let rule = Rule::new(&[]);
        for name in [
            "CARGO",
            "CARGO_MANIFEST_DIR",
            "CARGO_PKG_AUTHORS",
            "RUST_BACKTRACE",
            "NEXTEST",
            "NEXTEST_RUN_ID",
            "GODEBUG",
            "GOCOVERDIR",
            "TESTDIR",
            "MESON_TEST_ITERATION",
            "ASAN_OPTIONS",
            "MALLOC_PERTURB_",
            "GTEST_SHARD_INDEX",
            "LC_ALL",
            "TZ",
            "srcdir",
            "abs_top_srcdir",
            "OUT_DIR",
            "TERM",
        ] {
            assert!(passes(&rule, name, "x"), "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "USER",
            "LD_PRELOAD",
            "VMTEST_ASSETS",
            "TMPDIR",
            "SSH_AUTH_SOCK",
            "CARGO_MAKEFLAGS",
            "CARGO_TARGET_RISCV64GC_UNKNOWN_LINUX_GNU_RUNNER",
            "GOOGLE_CLOUD_PROJECT",
            "XTEST",
        ] {
            assert!(!passes(&rule, name, "x"), "{name}");
        }
    }

    #[test]
    fn secrets_are_never_passed_unless_their_whole_name_is_given() {
        let all: Vec<String> = ["MY_API_TOKEN", "MY_*", "HOME"].map(String::from).into();
        for rule in [Rule::new(&[]), Rule::new(&all)] {
            for name in [
                "CARGO_REGISTRY_TOKEN",
                "CARGO_REGISTRIES_X_CREDENTIAL_PROVIDER",
                "TEST_SECRET",
                "test_password",
                "MY_PRIVATE_KEY",
                "NEXTEST_KEY",
                "GOAUTH",
                "GOOGLE_APPLICATION_CREDENTIALS",
            ] {
                assert!(!passes(&rule, name, "x"), "{name}");
            }
            assert!(!passes(&rule, "GOPROXY", "https://me:pw@proxy,direct"));
            assert!(passes(&rule, "GOPROXY", "https://proxy/a@b:c,direct"));
        }
        let rule = Rule::new(&all);
        assert!(passes(&rule, "MY_API_TOKEN", "x") && passes(&rule, "MY_DIR", "x"));
        assert!(passes(&rule, "HOME", "/h") && !passes(&rule, "HOMEPAGE", "x"));
    }
}
