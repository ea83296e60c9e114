//! OVF packages: a descriptor beside its disks, or all of them in one tar archive (OVA).

mod archive;
mod gzip;
pub mod hardware;
mod manifest;
mod ovf;
mod package;
mod tar;
#[cfg(test)]
mod tests;

pub use archive::Archive;
pub use gzip::UNPACK_LIMIT;
pub use hardware::{Drive, System};
pub use manifest::{Algorithm, Checked, Entry, verify_manifest};
pub use ovf::{Descriptor, File, VirtualDisk};
pub use package::Package;
pub use tar::Member;
