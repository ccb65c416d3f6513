//! The flat file.

use parador_translate::Format;

use crate::come_back;
use crate::generate::Subset;

#[test]
fn every_tree_comes_back_from_a_flat_file() {
    // Its lines are sorted: devices whose order matters say where they sit.
    come_back(Format::Flat, &Subset { ordered: false, ..Subset::ALL });
}
