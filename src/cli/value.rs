//! Parsers of values for clap: the `parse` of a value's own type, with its hint.

use std::ffi::OsStr;

use clap::builder::{OsStringValueParser, TypedValueParser};
use vmtest::fields::{BadValue, UnknownWord};
use vmtest::options::ParseQemuCommandError;
use vmtest::qemu::{ParseDriveError, ParseNetError};
use vmtest::results::UnknownFormat;
use vmtest::suite::PartitionError;
use vmtest::{accel, arch, duration, size};

/// An error that says how to fix it.
pub(crate) trait Hinted: std::fmt::Display {
    /// How.
    fn advice(&self) -> Option<String>;

    /// What is wrong, where the value itself is shown already.
    fn what(&self) -> String {
        self.to_string()
    }
}

impl Hinted for BadValue {
    fn advice(&self) -> Option<String> {
        Some(self.hint())
    }

    fn what(&self) -> String {
        format!("it {}", self.what)
    }
}

macro_rules! hinted {
    ($($error:ty)*) => {
        $(impl Hinted for $error {
            fn advice(&self) -> Option<String> {
                Some(self.hint())
            }
        })*
    };
}
hinted! { accel::UnknownAccel arch::UnsupportedArch duration::Error size::Error ParseQemuCommandError UnknownFormat PartitionError }

macro_rules! says_it_itself {
    ($($error:ty)*) => {
        $(impl Hinted for $error {
            fn advice(&self) -> Option<String> {
                None
            }
        })*
    };
}
says_it_itself! { UnknownWord ParseDriveError ParseNetError }

fn told(error: &impl Hinted) -> String {
    match error.advice() {
        Some(hint) => format!("{}\nhint: {hint}", error.what()),
        None => error.what(),
    }
}

/// A value that may be any bytes.
pub(crate) fn value<T, E>(parse: fn(&OsStr) -> Result<T, E>) -> impl TypedValueParser<Value = T>
where
    T: Clone + Send + Sync + 'static,
    E: Hinted + 'static,
{
    OsStringValueParser::new().try_map(move |text| parse(&text).map_err(|error| told(&error)))
}

/// A value that is text.
pub(crate) fn text<T, E>(parse: fn(&str) -> Result<T, E>) -> impl TypedValueParser<Value = T>
where
    T: Clone + Send + Sync + 'static,
    E: Hinted + 'static,
{
    clap::builder::StringValueParser::new()
        .try_map(move |text| parse(&text).map_err(|error| told(&error)))
}
