//! Areas on the simulated machine: several processes in one test, any of which can be killed.
#![cfg(not(loom))]

mod basic;
mod comes_back;
mod confusion;
mod faults;
mod images;
mod limits;
mod model;
mod moving;
mod peers;
mod publish;
mod races;
mod steady;
mod support;
mod threads;
