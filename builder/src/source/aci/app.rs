//! The `app` section of an App Container image (specification 0.8): how the image wants to be run, as an
//! [`ImageConfig`].
//!
//! Pure. What Coracle has no counterpart for is told in words; what would change what the app sees when it starts,
//! the event handlers, is refused.

use serde::Deserialize;

use super::isolator::{self, Isolator};
use super::manifest::Pair;
use crate::source::image::ImageConfig;

/// The section as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written {
    exec: Option<Vec<String>>,
    user: String,
    group: String,
    #[serde(rename = "supplementaryGIDs")]
    supplementary_gids: Option<Vec<u32>>,
    event_handlers: Option<Vec<EventHandler>>,
    working_directory: Option<String>,
    environment: Option<Vec<Pair>>,
    mount_points: Option<Vec<MountPoint>>,
    ports: Option<Vec<Port>>,
    isolators: Option<Vec<Isolator>>,
}

#[derive(Debug, Deserialize)]
struct EventHandler {
    name: String,
}

#[derive(Debug, Deserialize)]
struct MountPoint {
    path: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    name: String,
    protocol: String,
    port: u32,
    count: Option<u32>,
    #[serde(default)]
    socket_activated: bool,
}

/// How an image wants to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct App {
    /// All but the user.
    pub(super) config: ImageConfig,
    /// A user's name or number, or the path of a file whose owner it is.
    pub(super) user: String,
    /// The same of the group.
    pub(super) group: String,
    /// What is not as the image has it.
    pub(super) notes: Vec<String>,
}

impl App {
    /// Reads the section; the error says what does not hold.
    pub(super) fn new(written: Written) -> Result<Self, String> {
        if let Some(handler) = written.event_handlers.iter().flatten().next() {
            return Err(format!(
                "its {:?} handler is not run: let a job workload before it do that, or the command itself",
                handler.name
            ));
        }
        let mut notes = Vec::new();
        let limits = isolator::limits(written.isolators.unwrap_or_default(), &mut notes)?;
        let entrypoint = written.exec.unwrap_or_default();
        if entrypoint
            .first()
            .is_some_and(|exec| !exec.starts_with('/'))
        {
            return Err(format!("its exec {:?} is no absolute path", entrypoint[0]));
        }
        let working_dir = written.working_directory.filter(|dir| !dir.is_empty());
        if let Some(dir) = working_dir.as_ref().filter(|dir| !dir.starts_with('/')) {
            return Err(format!("its workingDirectory {dir:?} is no absolute path"));
        }
        let environment = written.environment.unwrap_or_default();
        let ports = written.ports.unwrap_or_default();
        for port in ports.iter().filter(|port| port.socket_activated) {
            notes.push(format!(
                "port {} wants socket activation: give it a [socket.NAME]",
                port.name
            ));
        }
        let config = ImageConfig {
            entrypoint,
            env: environment
                .into_iter()
                .map(variable)
                .collect::<Result<_, _>>()?,
            working_dir,
            volumes: written
                .mount_points
                .unwrap_or_default()
                .into_iter()
                .map(|point| point.path)
                .collect(),
            exposed_ports: ports.iter().map(exposed).collect::<Result<_, _>>()?,
            additional_gids: written.supplementary_gids.unwrap_or_default(),
            limits,
            ..ImageConfig::default()
        };
        Ok(Self {
            config,
            user: filled("user", written.user)?,
            group: filled("group", written.group)?,
            notes,
        })
    }
}

fn filled(what: &str, text: String) -> Result<String, String> {
    if text.is_empty() || text.contains([':', '\0']) {
        return Err(format!("its {what} {text:?} is none"));
    }
    Ok(text)
}

/// `NAME=value`, with a name as POSIX has it.
fn variable(Pair { name, value }: Pair) -> Result<String, String> {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let begins = name.starts_with(|c: char| !c.is_ascii_digit());
    if !begins || !name.chars().all(letter) {
        return Err(format!("{name:?} is no name of an environment variable"));
    }
    if value.contains('\0') {
        return Err(format!("a NUL byte is in the environment variable {name}"));
    }
    Ok(format!("{name}={value}"))
}

/// `PORT/PROTOCOL` or `FIRST-LAST/PROTOCOL`.
fn exposed(port: &Port) -> Result<String, String> {
    let count = port.count.filter(|count| *count > 0).unwrap_or(1);
    let last = port.port.saturating_add(count - 1);
    if port.port == 0 || last > 65_535 {
        return Err(format!("its port {} is out of range", port.name));
    }
    let range = if count == 1 {
        port.port.to_string()
    } else {
        format!("{}-{last}", port.port)
    };
    Ok(format!("{range}/{}", port.protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(extra: &str) -> Result<App, String> {
        let text = format!(r#"{{"exec":["/bin/x","-v"],"user":"0","group":"0"{extra}}}"#);
        App::new(serde_json::from_str(&text).map_err(|e| e.to_string())?)
    }

    #[test]
    fn the_section_becomes_the_configuration_of_an_image() {
        let app = app(r#","supplementaryGIDs":[29,26],"workingDirectory":"/d",
            "environment":[{"name":"A_1","value":"b c"}],
            "mountPoints":[{"name":"work","path":"/var/lib/work","readOnly":true}],
            "ports":[{"name":"http","port":80,"protocol":"tcp"},
              {"name":"data","port":20000,"count":1000,"protocol":"udp","socketActivated":true}]"#)
        .unwrap();
        let config = &app.config;
        assert_eq!(config.entrypoint, ["/bin/x", "-v"]);
        assert_eq!(config.env, ["A_1=b c"]);
        assert_eq!(config.working_dir.as_deref(), Some("/d"));
        assert_eq!(config.additional_gids, [29, 26]);
        assert!(config.volumes.contains("/var/lib/work"));
        let ports: Vec<&str> = config.exposed_ports.iter().map(String::as_str).collect();
        assert_eq!(ports, ["20000-20999/udp", "80/tcp"]);
        assert_eq!(app.notes.len(), 1);
        assert!(app.notes[0].contains("port data wants socket activation"));
    }

    #[test]
    fn what_cannot_be_as_the_image_has_it_is_refused() {
        for (extra, says) in [
            (
                r#","eventHandlers":[{"name":"pre-start","exec":["/x"]}]"#,
                "\"pre-start\" handler is not run",
            ),
            (r#","workingDirectory":"d""#, "no absolute path"),
            (
                r#","environment":[{"name":"A=B","value":""}]"#,
                "no name of an environment variable",
            ),
            (
                r#","environment":[{"name":"A","value":"\u0000"}]"#,
                "NUL byte",
            ),
            (
                r#","ports":[{"name":"p","port":65535,"count":2,"protocol":"tcp"}]"#,
                "out of range",
            ),
            (
                r#","ports":[{"name":"p","port":4294967295,"count":4294967295,"protocol":"tcp"}]"#,
                "out of range",
            ),
            (r#","supplementaryGIDs":[-1]"#, "invalid value"),
        ] {
            let error = app(extra).unwrap_err();
            assert!(error.contains(says), "{extra}: {error}");
        }
        for text in [
            r#"{"exec":["x"],"user":"0","group":"0"}"#,
            r#"{"user":"","group":"0"}"#,
            r#"{"user":"a:b","group":"0"}"#,
        ] {
            assert!(
                App::new(serde_json::from_str(text).unwrap()).is_err(),
                "{text}"
            );
        }
    }
}
