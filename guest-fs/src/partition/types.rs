//! What partition types are called.

/// A GUID as text in lower case, from its mixed-endian bytes.
pub fn guid(bytes: &[u8]) -> String {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut out = String::with_capacity(36);
    for (n, at) in ORDER.iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        let byte = bytes.get(*at).copied().unwrap_or_default();
        out.push_str(&format!("{byte:02x}"));
    }
    out
}

/// The common name of a type in an MBR.
pub fn mbr(kind: u8) -> &'static str {
    match kind {
        0x00 => "empty",
        0x01 => "FAT12",
        0x04 => "FAT16, under 32 MiB",
        0x05 => "extended",
        0x06 => "FAT16",
        0x07 => "NTFS, exFAT or HPFS",
        0x08 => "AIX",
        0x0b => "FAT32",
        0x0c => "FAT32 (LBA)",
        0x0e => "FAT16 (LBA)",
        0x0f => "extended (LBA)",
        0x11 => "hidden FAT12",
        0x12 => "OEM diagnostics",
        0x14 => "hidden FAT16, under 32 MiB",
        0x16 => "hidden FAT16",
        0x17 => "hidden NTFS",
        0x1b => "hidden FAT32",
        0x1c => "hidden FAT32 (LBA)",
        0x1e => "hidden FAT16 (LBA)",
        0x27 => "Windows recovery environment",
        0x39 => "Plan 9",
        0x3c => "PartitionMagic recovery",
        0x42 => "Windows dynamic disk (LDM)",
        0x4d..=0x4f => "QNX4",
        0x63 => "UNIX System V",
        0x64 | 0x65 => "NetWare",
        0x80 | 0x81 => "Minix",
        0x82 => "Linux swap or Solaris",
        0x83 => "Linux",
        0x84 => "hibernation",
        0x85 => "Linux extended",
        0x86 | 0x87 => "NTFS volume set",
        0x88 => "Linux plaintext",
        0x8e => "Linux LVM",
        0xa0 => "hibernation",
        0xa5 => "FreeBSD",
        0xa6 => "OpenBSD",
        0xa8 => "Darwin UFS",
        0xa9 => "NetBSD",
        0xab => "Darwin boot",
        0xaf => "HFS or HFS+",
        0xb7 => "BSDI",
        0xbe => "Solaris boot",
        0xbf => "Solaris",
        0xda => "not a file system",
        0xde => "Dell utility",
        0xe8 => "LUKS",
        0xeb => "BeOS",
        0xee => "GPT protective",
        0xef => "EFI system",
        0xfb => "VMware VMFS",
        0xfc => "VMware swap or VMKCORE",
        0xfd => "Linux RAID autodetect",
        _ => "unknown",
    }
}

/// The common name of a type in a GPT, given as text in lower case.
pub fn gpt(guid: &str) -> &'static str {
    match guid {
        "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" => "EFI system",
        "024dee41-33e7-11d3-9d69-0008c781f39f" => "MBR scheme",
        "21686148-6449-6e6f-744e-656564454649" => "BIOS boot",
        "e3c9e316-0b5c-4db8-817d-f92df00215ae" => "Microsoft reserved",
        "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7" => "Microsoft basic data",
        "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3" => "Windows dynamic disk (LDM) metadata",
        "af9b60a0-1431-4f62-bc68-3311714a69ad" => "Windows dynamic disk (LDM) data",
        "de94bba4-06d1-4d40-a16a-bfd50179d6ac" => "Windows recovery environment",
        "37affc90-ef7d-4e96-91c3-2d7ae055b174" => "IBM GPFS",
        "e75caf8f-f680-4cee-afa3-b001e56efc2d" => "Windows Storage Spaces",
        "558d43c5-a1ac-43c0-aac8-d1472b2923d1" => "Windows Storage Replica",
        "0fc63daf-8483-4772-8e79-3d69d8477de4" => "Linux file system",
        "a19d880f-05fc-4d3b-a006-743f0f84911e" => "Linux RAID",
        "44479540-f297-41b2-9af7-d131d5f0458a" => "Linux root (x86)",
        "4f68bce3-e8cd-4db1-96e7-fbcaf984b709" => "Linux root (x86-64)",
        "b921b045-1df0-41c3-af44-4c6f280d3fae" => "Linux root (ARM 64)",
        "bc13c2ff-59e6-4262-a352-b275fd6f7172" => "Linux extended boot",
        "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f" => "Linux swap",
        "e6d6d379-f507-44c2-a23c-238f2a3df928" => "Linux LVM",
        "933ac7e1-2eb4-4f13-b844-0e14e2aef915" => "Linux /home",
        "3b8f8425-20e0-4f3b-907f-1a25a76f98e8" => "Linux /srv",
        "4d21b016-b534-45c2-a9fb-5c16e091fd2d" => "Linux /var",
        "7ffec5c9-2d00-49b7-8941-3ea10a5586b7" => "Linux dm-crypt",
        "ca7d7ccb-63ed-4c53-861c-1742536059cc" => "LUKS",
        "8da63339-0007-60c0-c436-083ac8230908" => "Linux reserved",
        "83bd6b9d-7f41-11dc-be0b-001560b84f0f" => "FreeBSD boot",
        "516e7cb4-6ecf-11d6-8ff8-00022d09712b" => "FreeBSD data",
        "516e7cb5-6ecf-11d6-8ff8-00022d09712b" => "FreeBSD swap",
        "516e7cb6-6ecf-11d6-8ff8-00022d09712b" => "FreeBSD UFS",
        "516e7cb8-6ecf-11d6-8ff8-00022d09712b" => "FreeBSD Vinum",
        "516e7cba-6ecf-11d6-8ff8-00022d09712b" => "FreeBSD ZFS",
        "824cc7a0-36a8-11e3-890a-952519ad3f61" => "OpenBSD data",
        "49f48d5a-b10e-11dc-b99b-0019d1879648" => "NetBSD FFS",
        "48465300-0000-11aa-aa11-00306543ecac" => "Apple HFS+",
        "7c3457ef-0000-11aa-aa11-00306543ecac" => "Apple APFS",
        "55465300-0000-11aa-aa11-00306543ecac" => "Apple UFS",
        "53746f72-6167-11aa-aa11-00306543ecac" => "Apple Core Storage",
        "426f6f74-0000-11aa-aa11-00306543ecac" => "Apple boot",
        "6a82cb45-1dd2-11b2-99a6-080020736631" => "Solaris boot",
        "6a85cf4d-1dd2-11b2-99a6-080020736631" => "Solaris root",
        "6a898cc3-1dd2-11b2-99a6-080020736631" => "ZFS or Solaris /usr",
        "aa31e02a-400f-11db-9590-000c2911d1b8" => "VMware VMFS",
        "9d275380-40ad-11db-bf97-000c2911d1b8" => "VMware VMKCORE",
        "9198effc-31c0-11db-8f78-000c2911d1b8" => "VMware reserved",
        "381cfccc-7288-11e0-92ee-000c2911d0b2" => "VMware Virtual SAN",
        "4eb2ea39-7855-4790-a79e-fae495e21f8d" => "VMware VMFS-L (OSDATA)",
        "4778ed65-bf42-45fa-9c5b-287a1dc4aab1" => "bare boot",
        _ => "unknown",
    }
}
