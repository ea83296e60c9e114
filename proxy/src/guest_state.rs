//! What a guest says of itself, for whoever is about to put it back: its name, its system, its
//! addresses, and databases that were most likely open when the disk was copied.

mod adapters;

pub use adapters::Adapter;

use crate::{Tree, tree::Node};
use disk_io::{Disk, guarded::guarded};
use guest_fs::{Name, NodeKind};
use regf::{RegistryHive, hive::RegistryKey};
use std::ops::ControlFlow;

/// Longest hive or text that is read into memory.
const MOST: u64 = 256 << 20;
const TEXT: u64 = 1 << 20;
/// Names of a directory that are looked through.
const NAMES: usize = 5000;

/// What was found on the disks of one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestState {
    /// What the guest calls itself.
    pub host: Option<String>,
    /// Its operating system.
    pub system: Option<String>,
    /// Addresses that do not come from DHCP, each with its adapter.
    pub addresses: Vec<String>,
    /// The adapters of these addresses, where a registry tells more of them.
    pub adapters: Vec<Adapter>,
    /// Databases, by path.
    pub databases: Vec<Database>,
    /// Volumes that were not closed.
    pub dirty: Vec<String>,
}

/// Files of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// What it is.
    pub what: &'static str,
    /// Its file.
    pub path: String,
    /// Whether it looks open: a lock file is there.
    pub open: Option<bool>,
}

/// Files that tell of a database; the last part may begin or end with an asterisk, as may one
/// directory.
const KNOWN: &[(&str, &str)] = &[
    (ACTIVE_DIRECTORY, "Windows/NTDS/ntds.dit"),
    (
        "Exchange mailboxes",
        "Program Files/Microsoft/Exchange Server/V*/Mailbox",
    ),
    (
        "SQL Server",
        "Program Files/Microsoft SQL Server/MSSQL*/MSSQL/DATA/master.mdf",
    ),
    (
        "SQL Server",
        "Program Files/Microsoft SQL Server/MSSQL/Data/master.mdf",
    ),
    (
        "Exchange mailboxes",
        "Program Files/Exchsrvr/mdbdata/priv1.edb",
    ),
    ("MySQL or MariaDB", "var/lib/mysql/ibdata1"),
    ("PostgreSQL", "var/lib/postgresql/*/main/PG_VERSION"),
    ("PostgreSQL", "var/lib/pgsql/data/PG_VERSION"),
    ("MongoDB", "var/lib/mongodb/WiredTiger"),
    ("Oracle", "u01/app/oracle/oradata"),
];
const ACTIVE_DIRECTORY: &str = "Active Directory";

/// Files beside that are only there while a database runs.
const LOCKS: &[(&str, &str)] = &[
    ("PostgreSQL", "postmaster.pid"),
    ("MongoDB", "mongod.lock"),
    ("MySQL or MariaDB", "aria_log_control"),
];

impl GuestState {
    /// Looks at the volumes of a tree. What cannot be read is left out: this is for people, and
    /// whoever needs a file gets its own error.
    pub fn of(tree: &Tree) -> Self {
        let mut state = Self::default();
        for volume in tree.volumes().iter().filter(|v| v.why_not.is_none()) {
            let base = volume.path.to_string();
            if volume.info.as_ref().is_some_and(|i| i.dirty == Some(true)) {
                state.dirty.push(base.clone());
            }
            state.windows(tree, &base);
            state.linux(tree, &base);
            for (what, path) in KNOWN {
                state.database(tree, what, &base, path);
            }
        }
        state
    }

    /// Only what must be warned of before the disk is put back, at the cost of a few lookups: a domain
    /// controller's database.
    pub fn of_domain_controller(tree: &Tree) -> Self {
        let mut state = Self::default();
        for volume in tree.volumes().iter().filter(|v| v.why_not.is_none()) {
            let known = KNOWN.iter().filter(|(what, _)| *what == ACTIVE_DIRECTORY);
            for (what, path) in known {
                state.database(tree, what, &volume.path.to_string(), path);
            }
        }
        state
    }

    /// Adds what another disk of the same machine says.
    pub fn add(&mut self, other: Self) {
        self.host = self.host.take().or(other.host);
        self.system = self.system.take().or(other.system);
        self.addresses.extend(other.addresses);
        self.adapters.extend(other.adapters);
        self.databases.extend(other.databases);
        self.dirty.extend(other.dirty);
    }

    /// Compares the adapters that the guest knows with those of the machine (`vmxnet3`, `e1000` and
    /// so on): one of a model that the machine does not have is absent.
    pub fn compare_adapters(&mut self, models: &[String]) {
        for adapter in &mut self.adapters {
            if let Some(model) = adapter.model()
                && !models.iter().any(|m| m.eq_ignore_ascii_case(model))
            {
                adapter.absent = Some(true);
            }
        }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it is a domain controller.
    pub fn is_domain_controller(&self) -> bool {
        self.databases.iter().any(|d| d.what == ACTIVE_DIRECTORY)
    }

    /// What should be known before it is put back, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut told = Vec::new();
        if self.is_domain_controller() {
            told.push(
                "it is a domain controller: put back as it is, the others may refuse what it \
                 says from then on (USN rollback), unless its hypervisor gives it a new generation \
                 id; start it in Directory Services Restore Mode, or restore a backup of its \
                 system state"
                    .to_owned(),
            );
        }
        for database in &self.databases {
            let Database { what, path, open } = database;
            if *what == ACTIVE_DIRECTORY {
                continue;
            }
            told.push(match open {
                Some(true) => format!("{path}: {what} was running when the disk was copied: its own logs are replayed when it starts"),
                _ => format!("{path}: {what} may have been open when the disk was copied: check it when it starts"),
            });
        }
        if !self.addresses.is_empty() {
            told.push(format!(
                "it has fixed addresses: {}; two machines must not have the same",
                self.addresses.join(", ")
            ));
        }
        for adapter in self.adapters.iter().filter(|a| a.absent == Some(true)) {
            told.push(format!(
                "{} belongs to {}{}, an adapter that is not there any more: the machine starts \
                 without that address, and Windows keeps it from the adapter that it has",
                adapter.addresses.join(", "),
                adapter.called(),
                match &adapter.device {
                    Some(device) => format!(" ({device})"),
                    None => String::new(),
                }
            ));
        }
        told
    }

    fn database(&mut self, tree: &Tree, what: &'static str, base: &str, path: &str) {
        let Some((found, dir)) = glob(tree, base, path) else {
            return;
        };
        let lock = LOCKS.iter().find(|(of, _)| *of == what);
        let open = lock.map(|(_, name)| tree.resolve(format!("{dir}/{name}")).is_ok());
        self.databases.push(Database {
            what,
            path: found,
            open,
        });
    }

    fn windows(&mut self, tree: &Tree, base: &str) {
        let config = format!("{base}/Windows/System32/config");
        if let Some(bytes) = read(tree, &format!("{config}/SYSTEM"), MOST) {
            let found = of_system(bytes);
            if let Some((host, adapters)) = found {
                self.host = self.host.take().or(host);
                for adapter in &adapters {
                    let called = adapter.called();
                    let all = adapter.addresses.iter();
                    self.addresses
                        .extend(all.map(|a| format!("{a} ({called})")));
                }
                self.adapters.extend(adapters);
            }
        }
        if self.system.is_none()
            && let Some(bytes) = read(tree, &format!("{config}/SOFTWARE"), MOST)
        {
            self.system = of_software(bytes);
        }
    }

    fn linux(&mut self, tree: &Tree, base: &str) {
        if self.host.is_none() {
            let name = read(tree, &format!("{base}/etc/hostname"), TEXT);
            let name = name.and_then(|t| first_line(&t));
            self.host = name.filter(|n| !n.is_empty());
        }
        if self.system.is_none()
            && let Some(release) = read(tree, &format!("{base}/etc/os-release"), TEXT)
                .or_else(|| read(tree, &format!("{base}/usr/lib/os-release"), TEXT))
        {
            let text = String::from_utf8_lossy(&release).into_owned();
            let line = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
            self.system = line.map(|l| l.trim().trim_matches('"').to_owned());
        }
        // Debian's own file; others keep theirs in files of many kinds.
        if let Some(file) = read(tree, &format!("{base}/etc/network/interfaces"), TEXT) {
            let text = String::from_utf8_lossy(&file).into_owned();
            let mut adapter = String::new();
            for line in text.lines() {
                let mut words = line.split_whitespace();
                match (words.next(), words.next()) {
                    (Some("iface"), Some(name)) => adapter = name.to_owned(),
                    (Some("address"), Some(address)) => {
                        self.addresses.push(format!("{address} ({adapter})"));
                    }
                    _ => {}
                }
            }
        }
    }
}

fn first_line(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text).into_owned();
    text.lines().next().map(|l| l.trim().to_owned())
}

fn read(tree: &Tree, path: &str, most: u64) -> Option<Vec<u8>> {
    let found = tree.resolve(path).ok()?;
    let file = tree.open(found.node, None).ok()?;
    let len = file.len();
    if len > most {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    file.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes)
}

/// A path in which a part may have an asterisk: what it leads to, and the directory of that.
fn glob(tree: &Tree, base: &str, path: &str) -> Option<(String, String)> {
    let mut at = base.to_owned();
    let mut dir = at.clone();
    for part in path.split('/') {
        dir.clone_from(&at);
        let next = match part.split_once('*') {
            None => part.to_owned(),
            Some((before, after)) => {
                let node = tree.resolve(&at).ok()?.node;
                child(tree, node, before, after)?
            }
        };
        at = format!("{at}/{next}");
        tree.resolve(&at).ok()?;
    }
    Some((at, dir))
}

/// The first directory whose name begins and ends so.
fn child(tree: &Tree, dir: Node, before: &str, after: &str) -> Option<String> {
    let mut found: Option<Name> = None;
    let mut seen = 0;
    let fits = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.starts_with(&before.to_ascii_lowercase())
            && name.ends_with(&after.to_ascii_lowercase())
    };
    let listed = tree.read_dir(dir, &mut |entry| {
        seen += 1;
        if let Ok(entry) = entry
            && entry.kind == NodeKind::Directory
            && fits(&entry.name.to_string())
        {
            found = Some(entry.name);
            return ControlFlow::Break(());
        }
        match seen < NAMES {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    });
    listed.ok()?;
    found.map(|n| n.to_string())
}

/// What `look` finds in a hive.
fn in_hive<T>(bytes: Vec<u8>, look: impl FnOnce(&RegistryHive) -> T) -> Option<T> {
    guarded(|| {
        let hive = RegistryHive::from_bytes(bytes).ok()?;
        Some(look(&hive))
    })
    .flatten()
}

/// The host's name and its adapters with fixed addresses, as a SYSTEM hive has them.
fn of_system(bytes: Vec<u8>) -> Option<(Option<String>, Vec<Adapter>)> {
    in_hive(bytes, |hive| {
        let control = current(hive);
        let name = hive.open_key(&format!("{control}\\Control\\ComputerName\\ComputerName"));
        let host = name.ok().and_then(|key| text(&key, "ComputerName"));
        (host, adapters::of(hive, &control))
    })
}

/// The product, as a SOFTWARE hive has it.
fn of_software(bytes: Vec<u8>) -> Option<String> {
    in_hive(bytes, |hive| {
        let key = hive
            .open_key("Microsoft\\Windows NT\\CurrentVersion")
            .ok()?;
        let product = text(&key, "ProductName")?;
        let build = text(&key, "CurrentBuild");
        Some(match build {
            Some(build) => format!("{product}, build {build}"),
            None => product,
        })
    })
    .flatten()
}

/// Everything that is asked of a hive, as text: for whoever feeds it hostile ones.
#[doc(hidden)]
pub fn all_of_hive(bytes: &[u8]) -> String {
    let letters = crate::letters::devices_of(bytes.to_vec());
    let (system, software) = (of_system(bytes.to_vec()), of_software(bytes.to_vec()));
    format!("{letters:?} {system:?} {software:?}")
}

/// The control set that the system starts from.
fn current(hive: &RegistryHive) -> String {
    let select = hive.open_key("Select").ok();
    let value = select.and_then(|key| key.value("Current").ok()?.raw_data().ok());
    let number = value.and_then(|v| v.first_chunk().map(|b| u32::from_le_bytes(*b)));
    format!("ControlSet{:03}", number.unwrap_or(1).min(999))
}

fn text(key: &RegistryKey<'_>, name: &str) -> Option<String> {
    let value = key.value(name).ok()?.string_data().ok()?;
    let value = value.trim_end_matches('\0').trim().to_owned();
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use regf::{DataType, HiveBuilder};

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn what_a_hive_says() {
        let mut hive = HiveBuilder::new().unwrap();
        let root = hive.root_offset();
        let select = hive.add_key(root, "Select").unwrap();
        hive.add_value(select, "Current", DataType::Dword, &2u32.to_le_bytes())
            .unwrap();
        let mut at = hive.add_key(root, "ControlSet002").unwrap();
        let set = at;
        for part in ["Services", "Tcpip", "Parameters", "Interfaces"] {
            at = hive.add_key(at, part).unwrap();
        }
        for (name, dhcp, address) in [("{a}", 0u32, "10.0.0.5\0\0"), ("{b}", 1, "10.0.0.6\0\0")] {
            let key = hive.add_key(at, name).unwrap();
            hive.add_value(key, "EnableDHCP", DataType::Dword, &dhcp.to_le_bytes())
                .unwrap();
            hive.add_value(key, "IPAddress", DataType::MultiString, &utf16(address))
                .unwrap();
        }
        let control = hive.add_key(set, "Control").unwrap();
        let name = hive.add_key(control, "ComputerName").unwrap();
        let name = hive.add_key(name, "ComputerName").unwrap();
        hive.add_value(name, "ComputerName", DataType::String, &utf16("WEB01\0"))
            .unwrap();
        // {a} is an adapter that was taken out; {c} one that nothing else is known of; {d} is there.
        for (name, address) in [("{c}", "10.0.0.7\0\0"), ("{d}", "10.0.0.8\0")] {
            let key = hive
                .create_key(&format!(
                    "ControlSet002\\Services\\Tcpip\\Parameters\\Interfaces\\{name}"
                ))
                .unwrap();
            hive.add_value(key, "IPAddress", DataType::MultiString, &utf16(address))
                .unwrap();
        }
        let class = "{4d36e972-e325-11ce-bfc1-08002be10318}";
        let times = "Properties\\{83da6326-97a6-4088-9453-a1923f573b29}";
        for (n, id, pci, removed) in [
            (3, "{a}", "VEN_15AD&DEV_07B0", 9u64),
            (4, "{d}", "VEN_8086&DEV_100F", 1),
        ] {
            let driver = format!("ControlSet002\\Control\\Class\\{class}\\{n:04}");
            hive.create_key(&driver).unwrap();
            hive.add_value_string(&driver, Some("NetCfgInstanceId"), id)
                .unwrap();
            hive.add_value_string(&driver, Some("DriverDesc"), "an adapter")
                .unwrap();
            let device = format!("ControlSet002\\Enum\\PCI\\{pci}&SUBSYS_1\\4&{n}");
            hive.create_key(&device).unwrap();
            hive.add_value_string(&device, Some("Driver"), &format!("{class}\\{n:04}"))
                .unwrap();
            for (property, time) in [("0066", 5u64), ("0067", removed)] {
                let key = format!("{device}\\{times}\\{property}");
                hive.create_key(&key).unwrap();
                hive.add_value_binary(&key, None, &time.to_le_bytes())
                    .unwrap();
            }
        }
        let name = format!("ControlSet002\\Control\\Network\\{class}\\{{a}}\\Connection");
        hive.create_key(&name).unwrap();
        hive.add_value_string(&name, Some("Name"), "Ethernet 2")
            .unwrap();
        let bytes = hive.to_bytes().unwrap();
        let (host, adapters) = of_system(bytes).unwrap();
        assert_eq!(host.as_deref(), Some("WEB01"));
        let told: Vec<_> = adapters
            .iter()
            .map(|a| (a.called(), a.addresses[0].as_str(), a.model(), a.absent))
            .collect();
        assert_eq!(
            told,
            [
                ("Ethernet 2", "10.0.0.5", Some("vmxnet3"), Some(true)),
                ("{c}", "10.0.0.7", None, Some(true)),
                ("{d}", "10.0.0.8", Some("e1000"), Some(false)),
            ]
        );
        let mut state = GuestState {
            adapters,
            ..GuestState::default()
        };
        assert!(state.warnings()[0].contains("Ethernet 2 (an adapter)"));
        // The machine that it is put back as has another model.
        state.compare_adapters(&["vmxnet3".into()]);
        assert_eq!(state.adapters[2].absent, Some(true));
        assert_eq!(in_hive(vec![0; 5000], |_| ()), None);
    }

    #[test]
    fn what_is_told() {
        let mut state = GuestState {
            databases: vec![Database {
                what: ACTIVE_DIRECTORY,
                path: "/p2/Windows/NTDS/ntds.dit".into(),
                open: None,
            }],
            ..GuestState::default()
        };
        assert!(state.is_domain_controller());
        assert!(state.warnings()[0].contains("USN rollback"));
        state.add(GuestState {
            addresses: vec!["10.0.0.5 (eth0)".into()],
            ..GuestState::default()
        });
        assert!(state.warnings()[1].contains("10.0.0.5"));
        assert!(GuestState::default().is_empty());
    }
}
