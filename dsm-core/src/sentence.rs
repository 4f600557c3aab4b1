//! What errors say when they are shown by `Debug`: their sentence.
//!
//! A program whose `main` returns an error shows it by `Debug`, and so do `unwrap` and `expect`.
//! What a derived `Debug` shows there are the names of fields; people need the sentence that
//! `Display` has. So no error type of this workspace derives `Debug`: each takes it from
//! [`debug_is_display`](crate::debug_is_display), and a test reads the sources to see that none
//! forgets to.

/// Implements `Debug` for error types that have `Display`: it shows the same sentence.
///
/// ```
/// use std::fmt;
///
/// struct NoPlace(u32);
///
/// impl fmt::Display for NoPlace {
///     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
///         write!(f, "there is no place {}; take a lower number", self.0)
///     }
/// }
///
/// dsm_core::debug_is_display!(NoPlace);
/// impl std::error::Error for NoPlace {}
///
/// assert_eq!(format!("{:?}", NoPlace(7)), "there is no place 7; take a lower number");
/// ```
#[macro_export]
macro_rules! debug_is_display {
    ($($error:ty),+ $(,)?) => {$(
        impl ::core::fmt::Debug for $error {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                // Without the flags of `f`: what `{:#?}` asks for is not what `{:#}` does.
                ::core::write!(f, "{self}")
            }
        }
    )+};
}
