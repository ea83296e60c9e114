//! Images and volumes with some of their bytes changed, read by `vmdkit` and by the tools that
//! others use, and what became of each.
//!
//! | module | holds |
//! |---|---|
//! | [`images`] | the sound images and volumes |
//! | [`mutate`] | how they are changed |
//! | [`outcome`] | what a program made of one |
//! | [`tried`] | one mutant through every program |
//! | [`unguarded`] | structures whose bytes nothing vouches for |
//! | [`account`] | why an outcome is what it is |

pub mod account;
pub mod images;
pub mod mutate;
pub mod outcome;
pub mod tried;
pub mod unguarded;
