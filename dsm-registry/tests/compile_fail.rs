//! What the types must refuse: see each file under `tests/ui` for the mistake it makes.

#[test]
fn mistakes_do_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
