//! Staying with a machine: the thin loop that feeds [`Course`] and does what it says.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::Error;
use super::answer::{Answer, Question};
use super::console::{Console, Line, Reader, sanitize};
use super::course::{Action, Course, Goal, Input};
use super::host::without_program;
use super::machine::{Machine, Output};
use super::qmp::Message;
use super::timeline::Timeline;

/// How long a workload that says it is ready may take to answer through its forward.
const PATIENCE: Duration = Duration::from_secs(10);
/// QEMU's last messages that an error quotes.
const QUOTED_COMPLAINTS: usize = 10;

#[derive(Debug)]
enum Event {
    Output(Output),
    Interrupt,
    Asked(Vec<Result<Answer, Error>>),
}

/// Starts QEMU and stays with it until it has ended.
pub(super) fn watch(
    qemu: &Path,
    arguments: &[OsString],
    goal: Goal,
    questions: Vec<Question>,
    console: &mut dyn Console,
) -> Result<(Timeline, Vec<Answer>), Error> {
    let (sender, events) = channel();
    let _signals = Interrupts::pass_on(sender.clone())?;
    let machine = Machine::start(qemu, arguments, &sender, Event::Output)?;
    let watch = Watch {
        machine,
        sender,
        course: Course::new(goal),
        reader: Reader::default(),
        questions,
        answers: Vec::new(),
        complaints: VecDeque::new(),
        console,
    };
    watch.run(&events)
}

struct Watch<'a> {
    machine: Machine,
    sender: Sender<Event>,
    course: Course,
    reader: Reader,
    questions: Vec<Question>,
    answers: Vec<Answer>,
    complaints: VecDeque<String>,
    console: &'a mut dyn Console,
}

impl Watch<'_> {
    fn run(mut self, events: &Receiver<Event>) -> Result<(Timeline, Vec<Answer>), Error> {
        let mut open = Machine::STREAMS;
        while open > 0 {
            match self.next(events) {
                None => self.step(Input::Tick),
                Some(Event::Output(Output::Closed)) => open -= 1,
                Some(event) => self.take(event),
            }
        }
        if let Some(line) = self.reader.finish() {
            self.hear(line);
        }
        let qemu = self.end_of_qemu();
        self.course
            .finish(qemu)
            .map(|timeline| (timeline, self.answers))
    }

    /// The next event, or `None` when it is time for a tick.
    fn next(&self, events: &Receiver<Event>) -> Option<Event> {
        let received = match self.course.wake() {
            Some(wake) => events.recv_timeout(wake.saturating_sub(self.now())),
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                unreachable!("the watch itself holds a sender")
            }
        }
    }

    fn now(&self) -> Duration {
        self.machine.started.elapsed()
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Output(Output::Console(bytes)) => {
                for line in self.reader.push(&bytes) {
                    self.hear(line);
                }
            }
            Event::Output(Output::Qmp(Message::Shutdown(reason))) => {
                self.step(Input::Shutdown(reason));
            }
            Event::Output(Output::Qmp(Message::PowerButton)) | Event::Output(Output::Closed) => {}
            Event::Output(Output::Qmp(Message::Failed(reason))) => {
                self.console
                    .note(&format!("QEMU: {}", sanitize(reason.as_bytes())));
            }
            Event::Output(Output::Complaint(line)) => self.complain(&line),
            Event::Interrupt => self.step(Input::Interrupt),
            Event::Asked(results) => self.asked(results),
        }
    }

    fn hear(&mut self, line: Line) {
        self.console.guest(&line.text);
        self.step(Input::Line(line));
    }

    fn complain(&mut self, line: &str) {
        let line = sanitize(line.as_bytes());
        self.console
            .note(&format!("QEMU: {}", without_program(&line)));
        if self.complaints.len() == QUOTED_COMPLAINTS {
            self.complaints.pop_front();
        }
        self.complaints.push_back(without_program(&line).to_owned());
    }

    fn step(&mut self, input: Input) {
        for action in self.course.step(self.now(), input) {
            match action {
                Action::Ask => self.ask(),
                Action::PowerDown => self.machine.power_down(),
                Action::Kill => self.machine.kill(),
                Action::Note(text) => self.console.note(&text),
            }
        }
    }

    /// Asks in a thread: the console goes on meanwhile.
    fn ask(&mut self) {
        let questions = std::mem::take(&mut self.questions);
        let sender = self.sender.clone();
        thread::spawn(move || {
            let results = questions.iter().map(ask_one).collect();
            // Nobody listens any more if the machine has ended meanwhile.
            let _ = sender.send(Event::Asked(results));
        });
    }

    fn asked(&mut self, results: Vec<Result<Answer, Error>>) {
        let mut failure = None;
        for result in results {
            match result {
                Ok(answer) => {
                    let what = format!("answer {}", answer.workload);
                    self.course.timeline.note_host(what, self.now());
                    self.console.result(&answer.to_string());
                    self.answers.push(answer);
                }
                Err(error) => {
                    self.console.note(&error.to_string());
                    failure.get_or_insert(error);
                }
            }
        }
        if self.course.stays() {
            let timeline = self.course.timeline.to_string();
            self.console.note(timeline.trim_end());
        }
        self.step(Input::Asked(failure));
    }

    /// QEMU's own failure, if it had one. A killed QEMU was killed by us or by someone who knew why.
    fn end_of_qemu(&mut self) -> Option<Error> {
        let status = match self.machine.wait() {
            Ok(status) if status.success() => return None,
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        Some(Error::Qemu {
            status,
            messages: self.complaints.drain(..).collect(),
        })
    }
}

fn ask_one(question: &Question) -> Result<Answer, Error> {
    question.ask(PATIENCE).map_err(|source| Error::NoAnswer {
        workload: question.workload.clone(),
        url: question.url(),
        source,
    })
}

/// Signals that end a run, as events for as long as the value lives.
struct Interrupts {
    handle: Handle,
}

impl Interrupts {
    fn pass_on(sender: Sender<Event>) -> Result<Self, Error> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|source| Error::Io {
            operation: "install the signal handlers",
            path: "SIGINT, SIGTERM, SIGHUP".into(),
            source,
        })?;
        let handle = signals.handle();
        thread::spawn(move || {
            for _signal in signals.forever() {
                if sender.send(Event::Interrupt).is_err() {
                    return;
                }
            }
        });
        Ok(Self { handle })
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.handle.close();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
    use std::time::Instant;

    use super::*;
    use crate::vm::course::POWER_OFF_TIME;

    /// Keeps all that it is told.
    #[derive(Default)]
    struct Recorder {
        guest: Vec<String>,
        notes: Vec<String>,
        results: Vec<String>,
    }

    impl Console for Recorder {
        fn guest(&mut self, line: &str) {
            self.guest.push(line.to_owned());
        }

        fn note(&mut self, text: &str) {
            self.notes.push(text.to_owned());
        }

        fn result(&mut self, text: &str) {
            self.results.push(text.to_owned());
        }
    }

    /// Stays with a shell script in QEMU's place: QMP on its standard input, the console on its standard output.
    fn watch_script(
        script: &str,
        timeout: u64,
        questions: Vec<Question>,
    ) -> (Result<(Timeline, Vec<Answer>), Error>, Recorder) {
        let goal = Goal {
            exit_when_ready: true,
            timeout: Some(Duration::from_secs(timeout)),
            power_off_time: POWER_OFF_TIME,
        };
        let mut recorder = Recorder::default();
        let arguments = ["-c".into(), script.into()];
        let shell = Path::new("/bin/sh");
        let result = watch(shell, &arguments, goal, questions, &mut recorder);
        (result, recorder)
    }

    /// A guest that is ready at once and stops when its power button is pressed.
    const GOOD_GUEST: &str = r#"
        echo 'coracle: [0.500] stage initramfs'
        echo 'coracle: [0.900] stage ready'
        while read -r command; do
            case "$command" in *system_powerdown*) break ;; esac
        done
        echo 'coracle: [1.500] stage stopping'
        echo '{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}' >&0
        echo 'coracle: [1.700] stage poweroff'
    "#;

    #[test]
    fn a_good_guest_is_asked_and_powered_off() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port());
        thread::spawn(move || {
            use std::io::Write as _;
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
            thread::sleep(Duration::from_secs(5));
        });
        let question = Question {
            workload: "web".into(),
            address,
            path: "/".into(),
            host: "x".into(),
        };
        let (result, recorder) = watch_script(GOOD_GUEST, 30, vec![question]);
        let (timeline, answers) = result.unwrap();
        assert!(timeline.at("answer web") < timeline.at("poweroff"));
        assert_eq!(answers[0].status, "HTTP/1.1 200 OK");
        assert!(recorder.results[0].starts_with("web answers on http://127.0.0.1:"));
        assert_eq!(recorder.guest[0], "coracle: [0.500] stage initramfs");
        assert!(recorder.notes.is_empty(), "{:?}", recorder.notes);
    }

    #[test]
    fn a_qemu_that_fails_is_quoted() {
        let script = "echo \"qemu-system-x86_64: no such option\" >&2; exit 3";
        let (result, recorder) = watch_script(script, 30, Vec::new());
        let text = result.unwrap_err().to_string();
        assert!(
            text.contains("exit status: 3") && text.contains("no such option"),
            "{text}"
        );
        assert_eq!(recorder.notes, ["QEMU: no such option"]);
    }

    #[test]
    fn a_guest_that_hangs_is_killed_in_time() {
        let begun = Instant::now();
        let script = "echo 'coracle: [0.500] stage root'; exec sleep 60";
        let (result, _) = watch_script(script, 1, Vec::new());
        let text = result.unwrap_err().to_string();
        assert!(
            text.contains("not ready within 1 s") && text.contains("root"),
            "{text}"
        );
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
