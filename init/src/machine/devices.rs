//! The kernel's news and the machine's own devices: uevents, buttons, the kernel's log, interfaces.

use std::process::Stdio;
use std::time::Duration;

use super::signals::Wish;
use super::{Machine, Role, Source};
use crate::buttons::PowerButton;
use crate::console::now;
use crate::initramfs::corruption_message;
use crate::kernel_log::KernelLog;
use crate::net::netlink::Ethernet;
use crate::uevent::{Uevent, UeventSocket};
use crate::{boot_times, children, modules, readahead};

/// Uevents that are read in one turn of the loop.
const UEVENTS: usize = 256;

impl Machine {
    pub(super) fn late_modules_deadline(&self) -> Option<Duration> {
        self.late_modules.as_ref().map(|(_, deadline)| *deadline)
    }

    /// Ends the boot, once: loads what no workload waits for, and lets the kernel read ahead as it likes, and has
    /// the log written. Buttons that appear by it are told by uevents.
    pub(crate) fn end_boot(&mut self) {
        if let Some((paths, _)) = self.late_modules.take() {
            readahead::set_for_root(readahead::AFTERWARDS_KIB);
            let (efi, paths): (Vec<_>, Vec<_>) = paths
                .into_iter()
                .partition(|path| boot_times::is_module(path));
            modules::load_all(&paths, &mut self.console);
            self.ask_for_boot_times(efi.first());
            self.hotplug.want_all();
            if self.state_keeper.waits_for_boot() {
                self.start_state_keeper();
            }
        }
        self.network.end_boot(now());
        self.journal.begin(now());
    }

    /// Starts the child that asks the firmware for the times before the kernel. Without it only they are not told.
    fn ask_for_boot_times(&mut self, module: Option<&String>) {
        if self.stopping.is_some() || !boot_times::may_be_known() {
            return;
        }
        let mut command = children::command();
        command.arg("boot-times").args(module);
        if let Ok(mut child) = command.stdout(Stdio::piped()).spawn() {
            self.boot_times = child.stdout.take();
            self.children
                .insert(children::process_id(&child), Role::BootTimes);
        }
    }

    /// The child has ended, and a pipe holds more than its line: nothing is waited for.
    pub(super) fn tell_boot_times(&mut self) {
        let mut bytes = [0; 256];
        let pipe = self.boot_times.take();
        let size = pipe.map_or(0, |pipe| rustix::io::read(&pipe, &mut bytes).unwrap_or(0));
        for line in String::from_utf8_lossy(&bytes[..size]).lines() {
            self.console.say(line);
        }
    }

    /// What no workload waits for gets its drivers when the boot is over; a network is waited for.
    pub(super) fn ask_for_missing_drivers(&mut self) {
        if Ethernet::find(None).is_none() {
            self.hotplug.want_all();
        }
    }

    /// Lets a child load what devices ask for, if one does and no child is at it.
    pub(super) fn start_modprobe(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        match self.hotplug.start() {
            Ok(Some(pid)) => drop(self.children.insert(pid, Role::Modprobe)),
            Ok(None) => {}
            Err(error) => {
                self.console
                    .say(format_args!("cannot start the loading of drivers: {error}"));
                self.hotplug.forget();
            }
        }
    }

    /// Within the limit of a turn: devices may come and go faster than they are heard.
    pub(super) fn read_uevents(&mut self) {
        for _ in 0..UEVENTS {
            let Some(event) = self.uevents.as_ref().and_then(UeventSocket::next) else {
                return;
            };
            match event {
                Uevent::Corrupted(block) => self.refuse(&corruption_message(&block)),
                Uevent::InputAdded(node) => {
                    if let Some(button) = node.strip_prefix("input/").and_then(PowerButton::open) {
                        self.add_button(button);
                    }
                }
                Uevent::DeviceAdded(modalias) => self.hotplug.want(modalias),
                Uevent::BlockAdded | Uevent::Other => {}
            }
        }
    }

    /// From now on a workload may print.
    pub(super) fn take_kernel_log(&mut self) {
        self.kernel_log = KernelLog::take();
        if let Some(log) = &self.kernel_log
            && self.watch(Source::KernelLog, log).is_err()
        {
            log.give_back();
            self.kernel_log = None;
        }
    }

    /// A workload may make the kernel say much: such lines are dropped like its own when the console is slow.
    pub(crate) fn read_kernel_log(&mut self) {
        if let Some(log) = &self.kernel_log {
            log.read(|text| self.console.say_for_kernel(text));
        }
    }

    pub(super) fn add_button(&mut self, button: PowerButton) {
        let index = self.buttons.len();
        if self.watch(Source::Button(index), &button).is_ok() {
            self.buttons.push(Some(button));
        }
    }

    pub(super) fn read_button(&mut self, index: usize) {
        match self
            .buttons
            .get(index)
            .and_then(Option::as_ref)
            .map(PowerButton::was_pressed)
        {
            Some(Some(true)) => self.stop(Wish::POWER_BUTTON),
            Some(None) => self.buttons[index] = None,
            _ => {}
        }
    }
}
