//! What an image limits itself to, where the machine's file says nothing of it.

use config::spec::Workload;

use crate::bundle;
use crate::source::image::ImageLimits;

/// The least that the kernel takes: below it no process starts, or none gets on.
const LEAST_MEMORY: u64 = 1 << 20;
const LEAST_CPU_MILLIS: u64 = 10;

/// The workload with its image's limits, and what the image asks for and does not get, in words.
pub(super) fn limited(
    workload: &Workload,
    limits: &ImageLimits,
    uid: u32,
) -> (Workload, Option<String>) {
    let mut limited = workload.clone();
    let memory = limits.memory.map(|bytes| bytes.max(LEAST_MEMORY));
    limited.memory = limited.memory.or(memory);
    let cpu = limits.cpu_millis.map(|millis| millis.max(LEAST_CPU_MILLIS));
    limited.cpu_millis = limited.cpu_millis.or(cpu);
    let Some(limit) = limits
        .capabilities
        .as_ref()
        .filter(|_| workload.capabilities.is_none())
    else {
        return (limited, None);
    };
    let (left, beyond) = limit.narrow(bundle::capabilities(workload, uid));
    limited.capabilities = Some(left);
    let note = (!beyond.is_empty()).then(|| {
        format!(
            "note: the image of workload {} asks for {}, and only `capabilities` in the file grants it",
            workload.name,
            beyond.join(" ")
        )
    });
    (limited, note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::image::CapabilityLimit;

    fn workload(extra: &str) -> Workload {
        let text = format!("name = \"m\"\n[workload.w]\nimage = \"aci:x\"\n{extra}");
        config::parse(&text).unwrap().workloads.remove(0)
    }

    fn limits(capabilities: CapabilityLimit) -> ImageLimits {
        ImageLimits {
            memory: Some(5 << 20),
            cpu_millis: Some(1),
            capabilities: Some(capabilities),
        }
    }

    #[test]
    fn an_image_narrows_what_the_file_leaves_open() {
        let retain = CapabilityLimit::Retain(vec!["CAP_KILL".into(), "CAP_SYS_ADMIN".into()]);
        let (limited, note) = super::limited(&workload(""), &limits(retain.clone()), 0);
        assert_eq!(limited.memory, Some(5 << 20));
        assert_eq!(limited.cpu_millis, Some(LEAST_CPU_MILLIS));
        assert_eq!(limited.capabilities, Some(vec!["CAP_KILL".to_owned()]));
        assert!(note.unwrap().contains("asks for CAP_SYS_ADMIN"));
        let (limited, note) = super::limited(&workload(""), &limits(retain), 5);
        assert_eq!(limited.capabilities, Some(vec![]));
        assert!(note.unwrap().contains("asks for CAP_KILL CAP_SYS_ADMIN"));
        let remove = CapabilityLimit::Remove(vec!["CAP_KILL".into(), "CAP_MKNOD".into()]);
        let (limited, note) = super::limited(&workload(""), &limits(remove), 0);
        let left = limited.capabilities.unwrap();
        assert_eq!(left.len(), bundle::ROOT_CAPABILITIES.len() - 1);
        assert!(!left.contains(&"CAP_KILL".to_owned()) && note.is_none());
    }

    #[test]
    fn what_the_file_says_goes_first() {
        let own = workload("memory = \"1GiB\"\ncpus = 2\ncapabilities = [\"SYS_ADMIN\"]");
        let (limited, note) = super::limited(&own, &limits(CapabilityLimit::Retain(vec![])), 0);
        assert_eq!(limited.memory, Some(1 << 30));
        assert_eq!(limited.cpu_millis, Some(2000));
        assert_eq!(limited.capabilities, Some(vec!["CAP_SYS_ADMIN".to_owned()]));
        assert_eq!(note, None);
    }
}
