//! OVF packages: a descriptor beside its disks, or all of them in one tar archive (OVA).

mod archive;
mod gzip;
mod manifest;
mod ovf;
mod package;
mod tar;
#[cfg(test)]
mod tests;

pub use archive::Archive;
pub use gzip::UNPACK_LIMIT;
pub use manifest::{Algorithm, Checked, Entry, verify_manifest};
pub use ovf::{Descriptor, Drive, File, VirtualDisk};
pub use package::Package;
pub use tar::Member;
