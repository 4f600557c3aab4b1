//! Names: `Local\dsm.<namespace>.*`, with `Global\` as an option that needs a privilege.
//!
//! Not implemented yet.
