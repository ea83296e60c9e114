//! Guest systems by the names that configurations and packages have for them.

/// VMware's name of a guest system in packages, from that in configurations:
/// `rhel7-64` is `rhel7_64Guest`.
pub fn in_package(os: Option<&str>) -> String {
    let os = os.unwrap_or_default();
    let (base, wide) = match os.strip_suffix("-64") {
        Some(base) => (base, true),
        None => (os, false),
    };
    let base = match base.to_ascii_lowercase().as_str() {
        "" | "other" if wide => return "otherGuest64".into(),
        "" | "other" => return "otherGuest".into(),
        "otherlinux" => "otherLinux".to_owned(),
        lower => match lower.strip_suffix("srv") {
            Some(windows) => format!("{windows}Server"),
            None => base.to_owned(),
        },
    };
    match (wide, base.ends_with(|c: char| c.is_ascii_digit())) {
        (false, _) => format!("{base}Guest"),
        (true, true) => format!("{base}_64Guest"),
        (true, false) => format!("{base}64Guest"),
    }
}

/// The name in configurations of what a package calls `os`: the reverse of [`in_package`].
pub fn in_config(os: &str) -> Option<String> {
    if os.eq_ignore_ascii_case("otherGuest64") {
        return Some("other-64".into());
    }
    let base = os.strip_suffix("Guest")?;
    let (base, wide) = match base.strip_suffix("64") {
        // `vmkernel65Guest` and its like have no mark of their own, and end in other digits.
        Some(base) => (base.strip_suffix('_').unwrap_or(base), "-64"),
        None => (base, ""),
    };
    let base = match base.strip_suffix("Server") {
        Some(windows) if windows.starts_with("windows") => format!("{windows}srv"),
        _ => base.replace("Linux", "linux"),
    };
    (!base.is_empty()).then(|| format!("{base}{wide}"))
}

/// The nearest name in configurations of a guest system of which a package gives CIM's number and
/// a description only.
pub fn nearest(number: Option<u32>, description: Option<&str>) -> &'static str {
    let said = description.unwrap_or_default().to_ascii_lowercase();
    let linux = matches!(number, Some(36 | 79 | 80 | 82..=86 | 89..=101 | 106..=109))
        || said.contains("linux");
    let wide = [80, 83, 85, 90, 92, 94, 96, 98, 100, 101, 102, 107, 109];
    let wide = number.is_some_and(|n| wide.contains(&n)) || said.contains("64");
    match (linux, wide) {
        (true, true) => "otherlinux-64",
        (true, false) => "otherlinux",
        (false, true) => "other-64",
        (false, false) => "other",
    }
}

/// CIM's number: Linux, Linux of 64 bits, another of 64 bits, another.
pub fn number(os: Option<&str>) -> u32 {
    let os = os.unwrap_or_default().to_ascii_lowercase();
    let wide = os.contains("64");
    let linux = [
        "linux", "ubuntu", "debian", "centos", "rhel", "sles", "suse", "fedora", "oracle", "photon",
    ];
    match (linux.iter().any(|l| os.contains(l)), wide) {
        (true, true) => 101,
        (true, false) => 36,
        (false, true) => 102,
        (false, false) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_guest_systems() {
        for (config, package) in [
            ("ubuntu-64", "ubuntu64Guest"),
            ("rhel7-64", "rhel7_64Guest"),
            ("windows9srv-64", "windows9Server64Guest"),
            ("windows9-64", "windows9_64Guest"),
            ("winNetStandard", "winNetStandardGuest"),
            ("otherlinux-64", "otherLinux64Guest"),
            ("other", "otherGuest"),
            ("other-64", "otherGuest64"),
        ] {
            assert_eq!(in_package(Some(config)), package);
            assert_eq!(in_config(package).as_deref(), Some(config));
        }
        assert_eq!(in_package(None), "otherGuest");
        assert_eq!(
            in_config("other3xLinux64Guest").as_deref(),
            Some("other3xlinux-64")
        );
        assert_eq!(in_config("Windows2019_64"), None);
        assert_eq!(nearest(Some(101), None), "otherlinux-64");
        assert_eq!(
            nearest(None, Some("Microsoft Windows Server 2003 (32-bit)")),
            "other"
        );
    }
}
