//! The `coracle-init` binary; see the library for what it does.

use coracle_init::{children, initramfs, panic, pod, system};

fn main() {
    // The first process of a pod has the number 1, too, but is called by another name than the kernel's.
    let first_of_pod = std::env::args().next().as_deref() == Some(pod::PAUSE_NAME);
    if std::process::id() != 1 || first_of_pod {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let status = children::run(&arguments);
        if status == 2 {
            eprintln!(
                "coracle-init is PID 1 of a Coracle machine; as a child: fabric | attach NAME | uplink | probe until|once … | state … | log … | boot-times [MODULE]"
            );
        }
        std::process::exit(status);
    }
    panic::install_handlers();
    let (console, uevents) = initramfs::run();
    system::run(console, Some(uevents))
}
