//! Tests that are lists of scenarios.

/// A test of each name, which hands its scenario to `$with`; that opens what the scenario needs, or skips.
#[macro_export]
macro_rules! scenarios {
    ($with:path; $($(#[$about:meta])* $name:ident: $scenario:expr),* $(,)?) => {$(
        $(#[$about])*
        #[test]
        fn $name() {
            $with($scenario);
        }
    )*};
}
