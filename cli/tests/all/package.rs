//! Packages (OVA, OVF) as machines.

use crate::common::Fixture;
use std::fs;

/// A machine with two disks and some of everything that a package can say.
fn machine(f: &Fixture) {
    let dir = f.path("src");
    fs::create_dir_all(&dir).unwrap();
    for name in ["disk.vmdk", "disk-flat.vmdk"] {
        fs::copy(f.path(name), dir.join(name)).unwrap();
    }
    f.run(&["-q", "create", "src/data.vmdk", "3M"]).code(0);
    fs::write(
        dir.join("web.vmx"),
        ".encoding = \"UTF-8\"\nconfig.version = \"8\"\nvirtualHW.version = \"14\"\n\
         displayName = \"web & <01>\"\nguestOS = \"windows9srv-64\"\nmemsize = \"2048\"\n\
         annotation = \"first|0Asecond\"\nnumvcpus = \"4\"\ncpuid.coresPerSocket = \"2\"\n\
         firmware = \"efi\"\nuefi.secureBoot.enabled = \"TRUE\"\n\
         scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\n\
         scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"disk.vmdk\"\n\
         sata0.present = \"TRUE\"\nsata0:2.present = \"TRUE\"\nsata0:2.fileName = \"data.vmdk\"\n\
         ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"vmxnet3\"\n\
         ethernet0.networkName = \"Prod\"\n",
    )
    .unwrap();
}

#[test]
fn a_machine_goes_into_a_package_and_comes_back() {
    let f = Fixture::new();
    machine(&f);
    fs::create_dir(f.path("all")).unwrap();
    f.run(&["export", "src", "all/web.ova", "--to", "ova"])
        .code(0);
    let vm = f.run(&["vm", "--json", "all/web.ova"]).code(0).json();
    let vm = &vm["places"][0]["vms"][0];
    assert_eq!(vm["name"], "web & <01>");
    assert_eq!(vm["guest_os"], "windows9srv-64");
    assert_eq!(vm["firmware"], "efi");
    let disks = vm["points"][0]["disks"].as_array().unwrap();
    let disks: Vec<_> = disks
        .iter()
        .map(|d| (d["place"].as_str().unwrap(), d["size"].as_u64().unwrap()))
        .collect();
    assert_eq!(disks, [("scsi0:0", 8 << 20), ("sata0:2", 3 << 20)]);
    // Files, by place; the only volume that has the path, without.
    for path in ["/current/scsi0-0/p0/a.txt", "/scsi0-0/p0/a.txt", "/a.txt"] {
        let cat = f.run(&["cat", "all/web.ova", path]).code(0);
        assert_eq!(cat.out, b"hello\n");
    }
    // Among others in a directory: no machine of that, and its disks are nobody's.
    let vm = f.run(&["vm", "all"]).code(0);
    assert!(vm.text().contains("web & <01>: "), "{}", vm.text());
    assert!(
        vm.text().contains("web.ova web & <01>.vmx"),
        "{}",
        vm.text()
    );
    assert!(!vm.text().contains("unused"), "{}", vm.text());

    let restored = f.run(&["restore", "all/web.ova", "back"]).code(0);
    assert!(
        restored.text().contains("as the manifest says"),
        "{}",
        restored.text()
    );
    let config = fs::read_to_string(f.path("back/web & <01>.vmx")).unwrap();
    let original = fs::read_to_string(f.path("src/web.vmx")).unwrap();
    for line in original.lines().filter(|l| !l.contains(".fileName")) {
        assert!(config.contains(line), "{line} in {config}");
    }
    f.run(&["diff", "--blocks", "back", "src", "--disk", "scsi0:0"])
        .code(0);
    f.run(&["diff", "--blocks", "back", "src", "--disk", "sata0:2"])
        .code(0);
    // A backup of a package is one of a machine.
    f.run(&["export", "all/web.ova", "backup"]).code(0);
    f.run(&["check", "backup"]).code(0);
    let several = f.run(&["export", "--select", "any:", "all", "backups"]);
    several.code(0);
    assert!(f.path("backups/web & <01>/catalog").exists());

    // One that was changed is not restored.
    let mut bytes = fs::read(f.path("all/web.ova")).unwrap();
    let at = bytes.windows(5).position(|w| w == b"2048<").unwrap();
    bytes[at] = b'1';
    fs::write(f.path("all/web.ova"), bytes).unwrap();
    f.run(&["restore", "all/web.ova", "again"])
        .code(1)
        .says("--ignore-manifest");
    assert!(!f.path("again").exists());
    f.run(&["restore", "--ignore-manifest", "all/web.ova", "again"])
        .code(0);
}

/// Two machines beside a descriptor that would have the host's files in their configurations.
#[test]
fn several_machines_and_a_descriptor_that_is_not_meant_well() {
    let f = Fixture::new();
    f.run(&["-q", "convert", "disk.vmdk", "one.vmdk", "--to", "vmdk"])
        .code(0);
    let system = |id: &str, host: &str| {
        format!(
            "<VirtualSystem ovf:id=\"{id}\"><Info/><Name>{id}</Name><VirtualHardwareSection><Info/>\
             <System><vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType></System>\
             <Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>6</rasd:ResourceType></Item>\
             <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:HostResource>{host}</rasd:HostResource>\
             <rasd:InstanceID>2</rasd:InstanceID><rasd:Parent>1</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>\
             <vmw:ExtraConfig vmw:key=\"serial0.fileName\" vmw:value=\"/etc/shadow\"/>\
             <vmw:ExtraConfig vmw:key=\"guestinfo.role\" vmw:value=\"a&quot;&#10;scsi0:1.fileName = &quot;/etc/shadow\"/>\
             </VirtualHardwareSection></VirtualSystem>"
        )
    };
    let ovf = format!(
        "<?xml version=\"1.0\"?><Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" \
         xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\" xmlns:rasd=\"r\" xmlns:vssd=\"v\" xmlns:vmw=\"w\">\
         <References><File ovf:id=\"f1\" ovf:href=\"one.vmdk\"/><File ovf:id=\"f2\" ovf:href=\"../../etc/passwd\"/></References>\
         <DiskSection><Info/><Disk ovf:diskId=\"d1\" ovf:fileRef=\"f1\" ovf:capacity=\"8\" ovf:capacityAllocationUnits=\"byte * 2^20\"/>\
         <Disk ovf:diskId=\"d2\" ovf:fileRef=\"f2\" ovf:capacity=\"1\"/></DiskSection>\
         <VirtualSystemCollection ovf:id=\"c\"><Info/>{}{}</VirtualSystemCollection></Envelope>",
        system("a/../../x", "ovf:/disk/d1"),
        system("bad", "ovf:/disk/d2"),
    );
    fs::write(f.path("set.ovf"), ovf).unwrap();
    let vm = f.run(&["vm", "set.ovf"]).code(3);
    assert!(vm.text().contains("a_.._.._x.vmx"), "{}", vm.text());
    assert!(vm.text().contains("CANNOT BE OPENED"), "{}", vm.text());
    assert!(!vm.text().contains("shadow"), "{}", vm.text());
    f.run(&["restore", "set.ovf", "out"])
        .code(2)
        .says("bad.vmx");
    f.run(&["restore", "-D", "set.ovf", "bad.vmx", "out"])
        .code(1);
    f.run(&["restore", "-D", "set.ovf", "a_.._.._x.vmx", "out"])
        .code(0);
    let names = crate::common::names(&f.path("out"));
    assert_eq!(names, ["a_.._.._x.vmdk", "a_.._.._x.vmx"]);
    let config = fs::read_to_string(f.path("out/a_.._.._x.vmx")).unwrap();
    assert!(!config.contains("\nserial0"), "{config}");
    assert!(!config.contains("\nscsi0:1"), "{config}");
    assert!(
        config.contains("guestinfo.role = \"a|22|0Ascsi0:1"),
        "{config}"
    );
    // Beside the descriptor: its disk belongs to it.
    let vm = f.run(&["vm", "."]).code(3);
    assert!(!vm.text().contains("unused: one.vmdk"), "{}", vm.text());
}

/// A package in a directory of its archive, whose machine has a disk that is blank; and another that
/// lacks one.
#[test]
fn disks_without_files_and_archives_with_directories() {
    let f = Fixture::new();
    let args = ["-q", "convert", "disk.vmdk", "one.vmdk", "--to", "vmdk"];
    f.run(&args).code(0);
    let ovf = |disk: &str| {
        let drive = |unit: u32, disk: &str| {
            format!(
                "<Item><rasd:AddressOnParent>{unit}</rasd:AddressOnParent>\
                 <rasd:HostResource>ovf:/disk/{disk}</rasd:HostResource>\
                 <rasd:InstanceID>{}</rasd:InstanceID><rasd:Parent>1</rasd:Parent>\
                 <rasd:ResourceType>17</rasd:ResourceType></Item>",
                unit + 2
            )
        };
        format!(
            "<Envelope xmlns:ovf=\"o\" xmlns:rasd=\"r\"><References>\
             <File ovf:id=\"f1\" ovf:href=\"one.vmdk\"/><File ovf:id=\"n\" ovf:href=\"vm.nvram\"/>\
             </References><DiskSection><Disk ovf:diskId=\"d1\" ovf:fileRef=\"f1\"/>\
             <Disk ovf:diskId=\"d2\" ovf:capacity=\"3\" ovf:capacityAllocationUnits=\"byte * 2^20\"/>\
             <Disk ovf:diskId=\"d3\" ovf:fileRef=\"nowhere\" ovf:capacity=\"3\"/></DiskSection>\
             <VirtualSystem ovf:id=\"vm\"><VirtualHardwareSection>\
             <Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>6</rasd:ResourceType></Item>\
             {}{}</VirtualHardwareSection></VirtualSystem></Envelope>",
            drive(0, "d1"),
            drive(1, disk)
        )
    };
    let pack = |name: &str, ovf: &str| {
        let mut tar = tar::Builder::new(fs::File::create(f.path(name)).unwrap());
        let disk = fs::read(f.path("one.vmdk")).unwrap();
        for (name, bytes) in [
            ("x/a.ovf", ovf.as_bytes()),
            ("x/one.vmdk", disk.as_slice()),
            ("x/vm.nvram", b"NV"),
        ] {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            tar.append_data(&mut header, name, bytes).unwrap();
        }
        tar.finish().unwrap();
    };
    pack("blank.ova", &ovf("d2"));
    let out = f.run(&["restore", "blank.ova", "out"]).code(0);
    assert!(out.text().contains("vm_1.vmdk  3.0 MiB"), "{}", out.text());
    assert_eq!(fs::read(f.path("out/vm.nvram")).unwrap(), b"NV");
    f.run(&[
        "-q", "convert", "--disk", "scsi0:1", "out", "raw", "--to", "raw",
    ])
    .code(0);
    assert_eq!(fs::read(f.path("raw")).unwrap(), vec![0; 3 << 20]);
    for all in [&["blank.ova"][..], &["-D", "blank.ova", "."]] {
        f.run(&[&["export"], all, &["all", "--select", "any:"]].concat())
            .code(0);
        fs::remove_dir_all(f.path("all")).unwrap();
    }
    // What a machine has and the package does not is not left out in silence.
    for (disk, said) in [
        ("d3", "no file with the id nowhere"),
        ("d4", "no disk with the id d4"),
    ] {
        pack("lost.ova", &ovf(disk));
        f.run(&["restore", "lost.ova", "lost"]).code(1).says(said);
        assert!(!f.path("lost").exists());
    }
}
