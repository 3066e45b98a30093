//! Configurators, and how they are put together.

use super::{Config, ConfigError};
use crate::arch::Arch;

/// Something that changes a [`Config`].
///
/// It is used up by that: it may own a task, a sink or a file.
pub trait Configure {
    /// Changes the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] when it cannot be changed as wanted.
    fn configure(self, config: &mut Config) -> Result<(), ConfigError>;

    /// Boxed, for lists of configurators of different types.
    fn boxed<'a>(self) -> Boxed<'a>
    where
        Self: Sized + Send + 'a,
    {
        Box::new(|config| self.configure(config))
    }
}

/// A configurator of any type.
pub type Boxed<'a> = Box<dyn FnOnce(&mut Config) -> Result<(), ConfigError> + Send + 'a>;

impl<F: FnOnce(&mut Config) -> Result<(), ConfigError>> Configure for F {
    fn configure(self, config: &mut Config) -> Result<(), ConfigError> {
        self(config)
    }
}

impl<C: Configure> Configure for Vec<C> {
    fn configure(self, config: &mut Config) -> Result<(), ConfigError> {
        all(self).configure(config)
    }
}

impl<C: Configure> Configure for Option<C> {
    fn configure(self, config: &mut Config) -> Result<(), ConfigError> {
        all(self).configure(config)
    }
}

impl<C: Configure, const N: usize> Configure for [C; N] {
    fn configure(self, config: &mut Config) -> Result<(), ConfigError> {
        all(self).configure(config)
    }
}

macro_rules! tuples {
    ($($name:ident)*) => {
        impl<$($name: Configure),*> Configure for ($($name,)*) {
            #[expect(non_snake_case, reason = "a tuple's fields are named as their types")]
            #[allow(unused_variables, reason = "the empty tuple changes nothing")]
            fn configure(self, config: &mut Config) -> Result<(), ConfigError> {
                let ($($name,)*) = self;
                $($name.configure(config)?;)*
                Ok(())
            }
        }
    };
}
impl Configure for () {
    fn configure(self, _: &mut Config) -> Result<(), ConfigError> {
        Ok(())
    }
}
tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);
tuples!(A B C D E F G H I);
tuples!(A B C D E F G H I J);
tuples!(A B C D E F G H I J K);
tuples!(A B C D E F G H I J K L);

/// All of them, in order, up to the first error. Tuples do the same for different types.
pub fn all<C: Configure>(configurators: impl IntoIterator<Item = C>) -> impl Configure {
    move |config: &mut Config| {
        configurators.into_iter().try_for_each(|configurator| configurator.configure(config))
    }
}

/// Those that are given for the guest's architecture; for an architecture that is not in the list
/// nothing is done.
pub fn by_arch<C: Configure>(choices: impl IntoIterator<Item = (Arch, C)>) -> impl Configure {
    move |config: &mut Config| {
        let arch = config.options.arch;
        let chosen = choices.into_iter().filter(|(of, _)| *of == arch);
        all(chosen.map(|(_, configurator)| configurator)).configure(config)
    }
}

/// Only for this architecture.
pub fn if_arch(arch: Arch, configurator: impl Configure) -> impl Configure {
    move |config: &mut Config| {
        all((config.options.arch == arch).then_some(configurator)).configure(config)
    }
}

/// For all architectures but this one.
pub fn if_not_arch(arch: Arch, configurator: impl Configure) -> impl Configure {
    move |config: &mut Config| {
        all((config.options.arch != arch).then_some(configurator)).configure(config)
    }
}
