//! The options that say which image format to write.

use crate::exit::Failure;
use clap::{Args, ValueEnum};
use convert::ImageFormat;
use disk_image::write::{Compress, WriteOptions, new_id};
use vmdk::writer::{Identity, Options, StreamLayout, Subformat};

/// Formats that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The bytes of the disk
    Raw,
    /// VMware, ESXi
    Vmdk,
    /// QEMU, KVM, Proxmox
    Qcow2,
    /// Virtual PC, Hyper-V generation 1, Azure
    #[value(alias = "vpc")]
    Vhd,
    /// Hyper-V
    Vhdx,
    /// VirtualBox
    Vdi,
}

impl Format {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Vmdk => "vmdk",
            Self::Qcow2 => "qcow2",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vdi => "vdi",
        }
    }
}

/// Where a streamOptimized VMDK has its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Layout {
    /// In the header: what most readers take, OpenStack's inspector among them
    Header,
    /// In a footer, as VMware and VirtualBox write it; can go through a pipe
    Footer,
}

/// How qcow2 clusters are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// Every reader of qcow2 takes it
    #[default]
    Zlib,
    /// Faster and smaller; QEMU from 5.1 on
    Zstd,
}

/// The options.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct FormatArgs {
    /// Kind of the format. vmdk: monolithicSparse, monolithicFlat, twoGbMaxExtentSparse,
    /// twoGbMaxExtentFlat, streamOptimized, vmfs, vmfsSparse, seSparse; vhd, vhdx, vdi:
    /// dynamic, fixed
    #[arg(help_heading = "What is written", long, value_name = "KIND")]
    pub(crate) subformat: Option<String>,
    /// Where a streamOptimized VMDK has its directory (header; to standard output footer)
    #[arg(help_heading = "What is written", long, value_name = "WHERE")]
    pub(crate) stream_layout: Option<Layout>,
    /// Compress: qcow2, or vmdk as streamOptimized. Levels: zlib 1 to 9 (vmdk 12), zstd 1 to 19
    #[arg(
        help_heading = "What is written",
        long,
        value_name = "LEVEL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "default"
    )]
    pub(crate) compress: Option<String>,
    /// How qcow2 clusters are compressed
    #[arg(help_heading = "What is written", long, value_name = "METHOD")]
    pub(crate) compression: Option<Method>,
    /// Largest piece of a split VMDK (2047M)
    #[arg(help_heading = "What is written", long, value_name = "SIZE", value_parser = size)]
    pub(crate) split_size: Option<u64>,
    /// Adapter that a VMDK's descriptor names: lsilogic, buslogic, ide, pvscsi, legacyESX
    #[arg(help_heading = "What is written", long, value_name = "TYPE")]
    pub(crate) adapter: Option<String>,
    /// Virtual hardware version that a VMDK's descriptor names
    #[arg(help_heading = "What is written", long, value_name = "N")]
    pub(crate) hw_version: Option<u32>,
    /// Content id of a VMDK, 8 hexadecimal digits (random)
    #[arg(help_heading = "What is written", long, value_name = "HEX", value_parser = cid)]
    pub(crate) cid: Option<u32>,
    /// UUID of a VMDK, 32 hexadecimal digits (none)
    #[arg(help_heading = "What is written", long, value_name = "HEX", value_parser = uuid)]
    pub(crate) uuid: Option<Uuid>,
}

/// 16 bytes.
pub(crate) type Uuid = [u8; 16];

const ADAPTERS: [&str; 5] = ["lsilogic", "buslogic", "ide", "pvscsi", "legacyESX"];

impl FormatArgs {
    /// Takes over what qemu-img's `-o key=value,…` says.
    pub(crate) fn qemu_options(&mut self, all: &[String]) -> Result<(), Failure> {
        let known = "subformat, adapter_type, hwversion, compression_type";
        for option in all.iter().flat_map(|o| o.split(',')) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            match key {
                "subformat" => self.subformat = Some(value.to_owned()),
                "adapter_type" => self.adapter = Some(value.to_owned()),
                "hwversion" => {
                    self.hw_version =
                        Some(value.parse().map_err(|_| {
                            Failure::usage(format!("-o {option}: expected a number"))
                        })?);
                }
                "compression_type" => {
                    self.compression = Some(Method::from_str(value, true).map_err(|_| {
                        Failure::usage(format!("-o {option}: expected zlib or zstd"))
                    })?);
                }
                _ => {
                    return Err(Failure::usage(format!(
                        "-o {option}: not known here; known are {known}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// What to write as `format`, for a disk with sectors of `sector_size` bytes.
    pub(crate) fn format(
        &self,
        format: Format,
        sector_size: u32,
        to_stream: bool,
    ) -> Result<ImageFormat, Failure> {
        self.check_fits(format)?;
        match format {
            Format::Raw => Ok(ImageFormat::Raw),
            Format::Vmdk => Ok(ImageFormat::Vmdk(self.vmdk(to_stream)?)),
            Format::Qcow2 => self.portable(disk_image::Format::Qcow2, 512),
            Format::Vhd => self.portable(disk_image::Format::Vhd, 512),
            Format::Vhdx => self.portable(disk_image::Format::Vhdx, sector_size),
            Format::Vdi => self.portable(disk_image::Format::Vdi, 512),
        }
    }

    /// Options of one format given for another are mistakes.
    fn check_fits(&self, format: Format) -> Result<(), Failure> {
        let name = format.name();
        let wrong = |option: &str, fits: &str| {
            Err(Failure::usage(format!(
                "{option} is for {fits}, not for {name}"
            )))
        };
        if format != Format::Vmdk {
            for (given, option) in [
                (self.stream_layout.is_some(), "--stream-layout"),
                (self.split_size.is_some(), "--split-size"),
                (self.adapter.is_some(), "--adapter"),
                (self.hw_version.is_some(), "--hw-version"),
                (self.cid.is_some(), "--cid"),
                (self.uuid.is_some(), "--uuid"),
            ] {
                if given {
                    return wrong(option, "vmdk");
                }
            }
        }
        if self.compress.is_some() && !matches!(format, Format::Vmdk | Format::Qcow2) {
            return wrong("--compress", "qcow2 and vmdk");
        }
        if self.compression.is_some() && format != Format::Qcow2 {
            return wrong("--compression", "qcow2");
        }
        if self.subformat.is_some() && matches!(format, Format::Raw | Format::Qcow2) {
            return wrong("--subformat", "vmdk, vhd, vhdx and vdi");
        }
        Ok(())
    }

    fn level(&self, most: i32, usual: i32) -> Result<i32, Failure> {
        match self.compress.as_deref() {
            None | Some("default") => Ok(usual),
            Some(text) => match text.parse() {
                Ok(level) if (1..=most).contains(&level) => Ok(level),
                _ => Err(Failure::usage(format!(
                    "--compress={text}: expected a level of 1 to {most}"
                ))),
            },
        }
    }

    /// The options of a VMDK.
    pub(crate) fn vmdk(&self, to_stream: bool) -> Result<Options, Failure> {
        let subformat = match (&self.subformat, &self.compress) {
            (Some(text), _) => text.parse().map_err(Failure::usage)?,
            (None, Some(_)) => Subformat::StreamOptimized,
            (None, None) if to_stream => Subformat::StreamOptimized,
            (None, None) => Subformat::default(),
        };
        let stream = subformat == Subformat::StreamOptimized;
        if self.compress.is_some() && !stream {
            return Err(Failure::usage(format!(
                "--compress is for --subformat streamOptimized, not for {subformat}"
            )));
        }
        if self.stream_layout.is_some() && !stream {
            return Err(Failure::usage(format!(
                "--stream-layout is for --subformat streamOptimized, not for {subformat}"
            )));
        }
        let [a, b, c, d, ..] = new_id();
        let mut identity = Identity::new(self.cid.unwrap_or(u32::from_le_bytes([a, b, c, d])));
        if let Some(adapter) = &self.adapter {
            if !ADAPTERS.contains(&adapter.as_str()) {
                return Err(Failure::usage(format!(
                    "--adapter {adapter}: expected one of {}",
                    ADAPTERS.join(", ")
                )));
            }
            identity.adapter = adapter.clone();
        }
        if let Some(hardware) = self.hw_version {
            identity.hardware = hardware;
        }
        identity.uuid = self.uuid;
        let mut options = Options::new(subformat, identity);
        options.level = self.level(12, 6)?;
        options.layout = match (self.stream_layout, to_stream) {
            (Some(Layout::Header), _) | (None, false) => StreamLayout::Header,
            (Some(Layout::Footer), _) | (None, true) => StreamLayout::Footer,
        };
        if let Some(split) = self.split_size {
            options.split = split;
        }
        Ok(options)
    }

    fn portable(
        &self,
        format: disk_image::Format,
        sector_size: u32,
    ) -> Result<ImageFormat, Failure> {
        let fixed = match self.subformat.as_deref() {
            None | Some("dynamic") => false,
            Some("fixed" | "static") => true,
            Some(other) => {
                return Err(Failure::usage(format!(
                    "--subformat {other}: {} has dynamic and fixed",
                    format.name()
                )));
            }
        };
        let compress = match (&self.compress, self.compression) {
            (None, None) => None,
            (_, Some(Method::Zstd)) => Some(Compress::Zstd(self.level(19, 3)?)),
            _ => Some(Compress::Zlib(self.level(9, 6)?.unsigned_abs())),
        };
        Ok(ImageFormat::Portable(WriteOptions {
            format,
            fixed,
            compress,
            sector_size,
        }))
    }
}

/// The subformat that is most like another's and can be written in place of it.
pub(crate) fn subformat_like(create_type: Option<&str>, is_child: bool) -> Subformat {
    match create_type.and_then(|t| t.parse().ok()) {
        Some(s @ (Subformat::TwoGbMaxExtentSparse | Subformat::VmfsSparse)) => s,
        Some(Subformat::SeSparse) => Subformat::SeSparse,
        Some(s) if !is_child && s.is_flat() => s,
        _ => Subformat::MonolithicSparse,
    }
}

/// `2047M`, `10G`, `512`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let shift = match unit
        .to_ascii_uppercase()
        .trim_end_matches("IB")
        .trim_end_matches('B')
    {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => {
            return Err(format!(
                "{text:?}: expected a number of bytes, or with K, M, G, T"
            ));
        }
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
        .ok_or_else(|| format!("{text:?}: expected a number of bytes, or with K, M, G, T"))
}

fn cid(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 16) {
        Ok(cid) if text.len() <= 8 && cid < 0xffff_fffe => Ok(cid),
        _ => Err("expected 8 hexadecimal digits below fffffffe".into()),
    }
}

fn uuid(text: &str) -> Result<Uuid, String> {
    let digits: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    match (digits.len(), u128::from_str_radix(&digits, 16)) {
        (32, Ok(number)) => Ok(number.to_be_bytes()),
        _ => Err("expected 32 hexadecimal digits; blanks and dashes may stand between".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let all = ["0", "512", "2k", "2047M", "1GiB", "3tb"].map(|t| size(t).unwrap());
        assert_eq!(all, [0, 512, 2048, 2047 << 20, 1 << 30, 3 << 40]);
        for bad in ["", "M", "1X", "-1", "99999999999T", "1.5G"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn identities() {
        assert_eq!(cid("0badf00d").unwrap(), 0x0bad_f00d);
        assert!(cid("ffffffff").is_err() && cid("fffffffe").is_err() && cid("x").is_err());
        let bytes = uuid("60 00 c2 9a 00 01 02 03-04 05 06 07 08 09 0a 0b").unwrap();
        assert_eq!(bytes[..4], [0x60, 0, 0xc2, 0x9a]);
        assert!(uuid("60 00").is_err());
    }
}
