//! Curves: what is drawn of a run's metrics, computed without a browser.
//!
//! A run's points are columns of numbers; one that is missing is a NaN, which ends the line before it.

pub mod axis;
pub mod drawing;
pub mod line;
pub mod series;
