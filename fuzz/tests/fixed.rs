//! The bodies of the fuzz targets over inputs that are the same on every run.

use dsm_fuzz::seeds::inputs;

#[test]
fn control() {
    inputs(1, 4000, 120).for_each(|input| dsm_fuzz::control::run(&input));
}

#[test]
fn area() {
    inputs(2, 400, 1500).for_each(|input| dsm_fuzz::area::run(&input));
}

#[test]
fn table() {
    inputs(3, 600, 1200).for_each(|input| dsm_fuzz::table::run(&input));
}

#[test]
fn registry() {
    inputs(4, 300, 400).for_each(|input| dsm_fuzz::registry::run(&input));
}
