//! What a guest says of itself, for whoever is about to put it back: its name, its system, its
//! addresses, and databases that were most likely open when the disk was copied.

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

    /// Adds what another disk of the same machine says.
    pub fn add(&mut self, other: Self) {
        self.host = self.host.take().or(other.host);
        self.system = self.system.take().or(other.system);
        self.addresses.extend(other.addresses);
        self.databases.extend(other.databases);
        self.dirty.extend(other.dirty);
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
            if let Some((host, addresses)) = found {
                self.host = self.host.take().or(host);
                self.addresses.extend(addresses);
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

/// The host's name and addresses, as a SYSTEM hive has them.
fn of_system(bytes: Vec<u8>) -> Option<(Option<String>, Vec<String>)> {
    in_hive(bytes, |hive| {
        let control = current(hive);
        let name = hive.open_key(&format!("{control}\\Control\\ComputerName\\ComputerName"));
        let host = name.ok().and_then(|key| text(&key, "ComputerName"));
        (host, addresses(hive, &control))
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

/// Addresses of adapters that do not ask DHCP, with the number of the adapter's key.
fn addresses(hive: &RegistryHive, control: &str) -> Vec<String> {
    let place = format!("{control}\\Services\\Tcpip\\Parameters\\Interfaces");
    let Some(adapters) = hive.open_key(&place).ok().and_then(|k| k.subkeys().ok()) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for adapter in adapters {
        let dhcp = adapter
            .value("EnableDHCP")
            .ok()
            .and_then(|v| v.raw_data().ok());
        let dhcp = dhcp.and_then(|v| v.first_chunk().map(|b| u32::from_le_bytes(*b)));
        if dhcp == Some(1) {
            continue;
        }
        let Some(data) = adapter
            .value("IPAddress")
            .ok()
            .and_then(|v| v.raw_data().ok())
        else {
            continue;
        };
        // UTF-16, several with a zero after each.
        let units: Vec<u16> = data
            .chunks_exact(2)
            .filter_map(|p| Some(u16::from_le_bytes(p.try_into().ok()?)))
            .collect();
        let text = String::from_utf16_lossy(&units);
        let some = text.split('\0').map(str::trim);
        let some = some.filter(|a| !a.is_empty() && *a != "0.0.0.0");
        all.extend(some.map(|a| format!("{a} ({})", adapter.name())));
    }
    all
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
        let bytes = hive.to_bytes().unwrap();
        let found = of_system(bytes);
        let (host, addresses) = found.unwrap();
        assert_eq!(host.as_deref(), Some("WEB01"));
        assert_eq!(addresses, ["10.0.0.5 ({a})"]);
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
