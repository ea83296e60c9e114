//! NTFS: real volumes, volumes made by mkntfs and ntfs-3g, and damaged ones.

mod damage;
mod images;
mod made;
mod support;
mod tools;
mod wof;
