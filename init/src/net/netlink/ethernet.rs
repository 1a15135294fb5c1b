//! Ethernet interfaces as sysfs shows them: for who wants to know what is there without asking by netlink.

use std::fs;

/// An Ethernet interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ethernet {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its Ethernet address.
    pub hardware_address: [u8; 6],
}

impl Ethernet {
    /// The interface with this name; without one, the first Ethernet interface by index.
    #[must_use]
    pub fn find(name: Option<&str>) -> Option<Self> {
        if let Some(name) = name {
            return Self::read(name);
        }
        let names = fs::read_dir("/sys/class/net").ok()?;
        let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names
            .filter_map(|name| Self::read(&name))
            .min_by_key(|found| found.index)
    }

    /// `None` for what is not Ethernet (the loopback interface is not).
    fn read(name: &str) -> Option<Self> {
        let file = |file: &str| fs::read_to_string(format!("/sys/class/net/{name}/{file}")).ok();
        let is_ethernet = file("type")?.trim() == "1";
        let index = file("ifindex")?.trim().parse().ok()?;
        let hardware_address = parse_hardware_address(file("address")?.trim())?;
        is_ethernet.then(|| Self {
            name: name.to_owned(),
            index,
            hardware_address,
        })
    }

    /// The link is up and has a carrier.
    #[must_use]
    pub fn has_carrier(&self) -> bool {
        let path = format!("/sys/class/net/{}/carrier", self.name);
        fs::read_to_string(path).is_ok_and(|carrier| carrier.trim() == "1")
    }
}

fn parse_hardware_address(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()
        .ok()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_six_bytes() {
        assert_eq!(
            parse_hardware_address("52:54:00:12:34:56"),
            Some([0x52, 0x54, 0, 0x12, 0x34, 0x56])
        );
        for bad in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "zz:54:00:12:34:56",
        ] {
            assert_eq!(parse_hardware_address(bad), None);
        }
    }
}
