//! A package: its descriptor, its disks, its manifest.

use super::{Archive, Checked, Descriptor, Entry, VirtualDisk, gzip, manifest, verify_manifest};
use crate::{Format, probe::probe};
use disk_io::{Disk, DiskError, ErrorKind, Locate, Opened, Purpose, Result, pieces};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// An OVF package, opened.
#[derive(Clone, Debug)]
pub struct Package {
    /// Where its files are looked up: the archive, or the descriptor's directory.
    pub place: Arc<dyn Locate>,
    /// The descriptor's name in it.
    pub descriptor_name: PathBuf,
    /// The descriptor.
    pub descriptor: Descriptor,
    path: PathBuf,
}

impl Package {
    /// Opens an archive ([`Format::Ova`]) or a descriptor ([`Format::Ovf`]).
    pub fn open(source: &Opened, format: Format) -> Result<Self> {
        let (place, descriptor): (Arc<dyn Locate>, Opened) = match format {
            Format::Ova => {
                let archive = Archive::open(source)?;
                let descriptor = descriptor_of(&archive)?;
                (Arc::new(archive), descriptor)
            }
            _ => (source.dir.clone(), source.clone()),
        };
        let name = match format {
            // The member's whole name, since it may be in a directory of the archive.
            Format::Ova => descriptor
                .path
                .strip_prefix(&source.path)
                .unwrap_or(&descriptor.path),
            _ => descriptor.base_name(),
        };
        Ok(Self {
            descriptor: Descriptor::read(&*descriptor.disk)
                .map_err(|e| e.file(descriptor.path.display()))?,
            descriptor_name: name.to_path_buf(),
            place,
            path: source.path.clone(),
        })
    }

    /// A file beside the descriptor, by its name in the place.
    pub fn beside(&self, name: &str) -> PathBuf {
        match self.descriptor_name.parent() {
            Some(dir) if dir != Path::new("") => dir.join(name),
            _ => PathBuf::from(name),
        }
    }

    /// The disk that `wanted` means: a disk's id, a file's name, a place such as `scsi0:0`
    /// or `scsi0-0`, or the only one there is.
    pub fn choose(&self, wanted: Option<&str>) -> Result<&VirtualDisk> {
        let all = &self.descriptor.disks;
        let matches: Vec<&VirtualDisk> = match wanted {
            None => all.iter().collect(),
            Some(wanted) => all.iter().filter(|d| self.is_called(d, wanted)).collect(),
        };
        match matches.as_slice() {
            [one] => Ok(one),
            [] => Err(DiskError::not_found("choosing a disk of the package")
                .file(self.path.display())
                .expected(wanted.unwrap_or("a disk").to_string())
                .found(self.list(&all.iter().collect::<Vec<_>>()))),
            several => Err(
                DiskError::new(ErrorKind::Ambiguous, "choosing a disk of the package")
                    .file(self.path.display())
                    .expected("one disk")
                    .found(self.list(several))
                    .hint("say which with --disk"),
            ),
        }
    }

    fn is_called(&self, disk: &VirtualDisk, wanted: &str) -> bool {
        let href = self.descriptor.file_of(disk).map(|f| f.href.as_str());
        disk.id == wanted
            || href == Some(wanted)
            || self
                .places(disk)
                .any(|p| p == wanted || p.replace(':', "-") == wanted)
    }

    /// Where a disk is, in every machine that has it: `scsi0:1`.
    fn places<'a>(&'a self, disk: &'a VirtualDisk) -> impl Iterator<Item = String> + 'a {
        let drives = self.descriptor.drives();
        drives.filter(|d| d.disk == disk.id).filter_map(|d| {
            let (bus, controller, unit) = (d.bus?, d.controller?, d.unit?);
            Some(format!("{bus}{controller}:{unit}"))
        })
    }

    fn list(&self, disks: &[&VirtualDisk]) -> String {
        if disks.is_empty() {
            return "no disk".into();
        }
        let some = disks.iter().take(32).map(|d| {
            let href = self.descriptor.file_of(d).map_or("blank", |f| &f.href);
            match self.places(d).next() {
                Some(place) => format!("{place} ({href})"),
                None => format!("{} ({href})", d.id),
            }
        });
        some.collect::<Vec<_>>().join(", ")
    }

    /// Opens a disk's file: joined if it is in pieces, unpacked if it is compressed, at most
    /// `unpack_limit` bytes of it.
    pub fn open_disk(&self, disk: &VirtualDisk, unpack_limit: u64) -> Result<Opened> {
        let doing = || format!("opening the disk {} of the package", disk.id);
        if let Some(parent) = &disk.parent {
            return Err(DiskError::unsupported(doing())
                .file(self.path.display())
                .found(format!("a delta of the disk {parent}")));
        }
        let Some(file) = self.descriptor.file_of(disk) else {
            return Err(DiskError::not_found(doing())
                .file(self.path.display())
                .found(match &disk.file {
                    None => "a blank disk, which has no file".to_string(),
                    Some(id) => format!("no file with the id {id}"),
                }));
        };
        let opened = match file.chunk_size {
            Some(size) => {
                let name = self.beside(&file.href);
                pieces::open(&*self.place, &name.to_string_lossy(), Some(size))?
            }
            None => self.place.open(&self.beside(&file.href), Purpose::Extent)?,
        };
        if let Some(size) = file.size
            && size != opened.disk.len()
            && file.compression.is_none()
            && opened.disk.len() < size
        {
            return Err(DiskError::corrupt(doing())
                .file(opened.path.display())
                .expected(format!("{size} bytes, as the descriptor says"))
                .found(opened.disk.len().to_string()));
        }
        let mut magic = [0; 3];
        if opened.disk.len() >= 3 {
            opened.disk.read_exact_at(&mut magic, 0)?;
        }
        let opened = match file.compression.as_deref() {
            // Some writers forget to say.
            None if magic == *b"\x1f\x8b\x08" => gzip::unpack(opened, unpack_limit),
            None => Ok(opened),
            Some("gzip") => gzip::unpack(opened, unpack_limit),
            Some(other) => Err(DiskError::unsupported(doing())
                .file(opened.path.display())
                .expected("no compression, or gzip")
                .found(other.to_string())),
        }?;
        // Without this a VMDK that lost its beginning would be a raw disk.
        let vmdk = |format: &str| format.to_ascii_lowercase().contains("vmdk");
        if disk.format.as_deref().is_some_and(vmdk) && probe(&*opened.disk)?.is_none() {
            return Err(DiskError::corrupt(doing())
                .file(opened.path.display())
                .offset(0)
                .expected("a VMDK, as the descriptor says")
                .found("something else"));
        }
        Ok(opened)
    }

    /// The lines of the manifest: the one that has the descriptor's name, else the only one.
    /// `None` if there is none.
    pub fn manifest(&self) -> Result<Option<Vec<Entry>>> {
        let own = self.descriptor_name.with_extension("mf");
        let name = match self.place.open(&own, Purpose::Member) {
            Ok(opened) => Some(opened),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let names = self.place.list(65_536)?;
                let mut all = names
                    .into_iter()
                    .filter(|n| n.extension().is_some_and(|e| e.eq_ignore_ascii_case("mf")));
                match (all.next(), all.next()) {
                    (Some(one), None) => Some(self.place.open(&one, Purpose::Member)?),
                    _ => None,
                }
            }
            Err(e) => return Err(e),
        };
        let Some(opened) = name else {
            return Ok(None);
        };
        let entries = manifest::parse(&*opened.disk).map_err(|e| e.file(opened.path.display()))?;
        let dir = self.beside("");
        let whole = |mut e: Entry| {
            let name = e.name.strip_prefix("./").unwrap_or(&e.name);
            e.name = dir.join(name).to_string_lossy().into_owned();
            e
        };
        Ok(Some(entries.into_iter().map(whole).collect()))
    }

    /// Checks every file that the manifest names; `None` if there is no manifest. `step` is
    /// told how many bytes of which file were read.
    pub fn verify_manifest(&self, step: &mut dyn FnMut(&str, u64)) -> Result<Option<Vec<Checked>>> {
        let entries = self.manifest()?;
        Ok(entries.map(|entries| verify_manifest(&*self.place, &entries, step)))
    }

    /// The descriptor and the disks' files that no line of the manifest names: what they should be
    /// nothing says.
    pub fn unlisted(&self, lines: &[Checked]) -> Vec<String> {
        let listed = |name: &Path, in_pieces: bool| {
            let name = name.to_string_lossy();
            lines.iter().any(|line| {
                let rest = line.entry.name.strip_prefix(&*name);
                rest.is_some_and(|rest| rest.is_empty() || in_pieces && rest.starts_with('.'))
            })
        };
        let mut files = vec![(self.descriptor_name.clone(), false)];
        let disks = self.descriptor.disks.iter();
        let of_disks = disks.filter_map(|d| self.descriptor.file_of(d));
        files.extend(of_disks.map(|f| (self.beside(&f.href), f.chunk_size.is_some())));
        files.retain(|(name, in_pieces)| !listed(name, *in_pieces));
        files.dedup();
        let names = files.into_iter();
        names.map(|(name, _)| name.display().to_string()).collect()
    }
}

/// The descriptor of an archive, which OVF wants to be its first member.
fn descriptor_of(archive: &Archive) -> Result<Opened> {
    let mut all = archive.members().iter().filter(|m| {
        let lower = m.name.to_ascii_lowercase();
        lower.ends_with(".ovf") && m.not_a_file.is_none()
    });
    match (all.next(), all.next()) {
        (Some(one), None) => archive.open(Path::new(&one.name), Purpose::Member),
        (None, _) => Err(DiskError::unsupported("opening the archive")
            .file(archive.path().display())
            .expected("an OVF descriptor (*.ovf) among its members")
            .found(format!(
                "a tar archive with {} other members",
                archive.members().len()
            ))
            .hint("unpack it first")),
        (Some(_), Some(_)) => Err(DiskError::corrupt("opening the archive")
            .file(archive.path().display())
            .expected("one OVF descriptor")
            .found("several")),
    }
}
