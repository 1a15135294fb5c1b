//! A lab that systemd runs: the host's own systemd and dbus-daemon with a few units, and nothing else of a
//! distribution. The steps are a service.

use anyhow::Result;

use super::Lab;

/// Programs, each at its place, which is the same on the host.
const PROGRAMS: [&str; 3] = [
    "/usr/lib/systemd/systemd",
    "/usr/bin/systemctl",
    "/usr/bin/dbus-daemon",
];

/// Unit or other file, and text.
const FILES: &[(&str, &str)] = &[
    (
        "/etc/systemd/system/default.target",
        "[Unit]\nDefaultDependencies=no\nRequires=lab.service\n",
    ),
    (
        "/etc/systemd/system/lab.service",
        "[Unit]\nDefaultDependencies=no\nRequires=dbus.service\nAfter=dbus.service\n\
         [Service]\nType=oneshot\nTimeoutStartSec=infinity\nExecStart=/bin/busybox sh /lab/init steps\n\
         StandardOutput=tty\nStandardError=tty\nTTYPath=/dev/ttyS0\n",
    ),
    (
        "/etc/systemd/system/dbus.socket",
        "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
    ),
    (
        "/etc/systemd/system/dbus.service",
        "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\nAfter=dbus.socket\n\
         [Service]\nType=notify\nNotifyAccess=main\nExecStart=/usr/bin/dbus-daemon --config-file=/lab/bus.conf \
         --address=systemd: --nofork --nopidfile --systemd-activation\n",
    ),
    (
        "/lab/bus.conf",
        "<busconfig>\n<type>system</type>\n<listen>systemd:</listen>\n<auth>EXTERNAL</auth>\n<policy context=\"default\">\n\
         <allow user=\"*\"/><allow own=\"*\"/><allow send_destination=\"*\"/><allow receive_sender=\"*\"/>\n\
         </policy>\n</busconfig>\n",
    ),
    // What the lab's init looks for.
    ("/lab/systemd", ""),
    ("/etc/machine-id", ""),
    ("/etc/os-release", "ID=lab\n"),
];

impl Lab<'_> {
    /// Has systemd as the first process.
    ///
    /// # Errors
    /// If the host has not systemd and dbus-daemon.
    pub fn systemd(&mut self) -> Result<&mut Self> {
        for program in PROGRAMS {
            self.program(program, program)?;
        }
        for (place, text) in FILES {
            self.text(place, text)?;
        }
        Ok(self)
    }
}
