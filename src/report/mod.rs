//! Results for people: plain text tables, numbers with units, figures. Everything is a function of its input, without times or
//! hosts, so that equal runs make equal files.

mod caption;
mod compare;
mod confusion;
mod curves;
mod heatmap;
mod letters;
pub mod page;
mod rates;
mod reliability;
mod svg;
mod table;
mod units;

pub use compare::{Trained, compare, duration};
pub use confusion::confusion;
pub use curves::{Epoch, curves, panels};
pub use heatmap::{Heatmap, captioned, colour, picture};
pub use letters::drawable;
pub use page::Report;
pub use rates::{Mark, Trial, rates, short};
pub use reliability::reliability;
pub use table::{Align, Table, columns};
pub use units::{bytes, flops, grouped};
