//! A workload's process: what the file says, else what the image says.

use config::linux;
use config::manifest::Text;
use config::spec::{IDS, SECRETS_PATH, Workload};

use crate::bundle::{self, Process};
use crate::failure::Failure;
use crate::source::image::Image;
use crate::source::user::User;

/// The search path of a workload whose image names none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// SIGTERM, the signal that asks a process to stop.
const SIGTERM: i32 = 15;

/// The process of a workload.
///
/// # Errors
/// It has no command, or its ids do not fit its user namespace.
pub(super) fn process(workload: &Workload, image: &Image, user: &User) -> Result<Process, Failure> {
    let args = arguments(workload, image);
    if args.is_empty() {
        return Err(Failure::Input(format!(
            "error: workload {} has no command, and its image names none\nhint: add command = [\"PROGRAM\", …] to [workload.{}]",
            workload.name, workload.name
        )));
    }
    let ids = user.additional_gids.iter().chain([&user.uid, &user.gid]);
    if let (Some(_), Some(id)) = (workload.first_id, ids.copied().find(|&id| id >= IDS)) {
        return Err(Failure::Input(format!(
            "error: workload {} is to run as id {id}, and its user namespace ends at {}\nhint: choose another user, or add user_namespace = \"host\" to [workload.{}]",
            workload.name,
            IDS - 1,
            workload.name
        )));
    }
    Ok(Process {
        args,
        env: environment(workload, image, user),
        cwd: workload
            .working_dir
            .clone()
            .or_else(|| {
                image
                    .config
                    .working_dir
                    .clone()
                    .filter(|dir| dir.starts_with('/'))
            })
            .unwrap_or_else(|| "/".to_owned()),
        uid: user.uid,
        gid: user.gid,
        additional_gids: user.additional_gids.clone(),
        capabilities: bundle::capabilities(workload, user.uid),
    })
}

/// The command, or the image's entrypoint with the arguments or the image's own command behind it.
fn arguments(workload: &Workload, image: &Image) -> Vec<String> {
    match &workload.command {
        Some(command) => command.clone(),
        None => {
            let behind = workload.args.as_ref().unwrap_or(&image.config.command);
            image
                .config
                .entrypoint
                .iter()
                .chain(behind)
                .cloned()
                .collect()
        }
    }
}

/// The image's variables, then the file's in their place; `PATH` and `HOME` are always there.
fn environment(workload: &Workload, image: &Image, user: &User) -> Vec<String> {
    let mut env = vec![
        DEFAULT_PATH.to_owned(),
        format!("HOME={}", user.home.as_deref().unwrap_or("/")),
    ];
    if !workload.secrets.is_empty() {
        env.push(format!("CREDENTIALS_DIRECTORY={SECRETS_PATH}"));
    }
    let own = workload
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    for pair in image.config.env.iter().cloned().chain(own) {
        let name = pair.split('=').next().unwrap_or_default().to_owned();
        env.retain(|other| other.split('=').next() != Some(&name));
        env.push(pair);
    }
    env
}

/// The signal that asks it to stop.
pub(super) fn stop_signal(workload: &Workload, image: &Image) -> i32 {
    let of_image = || {
        let text = Text::new(0..0, image.config.stop_signal.clone()?);
        linux::signal(&text).ok()
    };
    workload.stop_signal.or_else(of_image).unwrap_or(SIGTERM)
}
