//! What a workload executes: command, arguments, environment, working directory.

use toml::Spanned;

use crate::diagnostic::Diagnostic;
use crate::manifest::{self, Text};
use crate::mistakes::Mistakes;
use crate::value::{self, Parsed};

pub(super) fn check_command(name: &Text, from: &manifest::Workload, mistakes: &mut Mistakes) {
    if from.debian.is_some() && from.command.is_none() {
        mistakes.push(
            Diagnostic::at(name.span(), format!("workload `{}` has no command", name.get_ref()))
                .hint("a root of Debian packages says nothing of what to run: add command = [\"PROGRAM\", …]"),
        );
    }
    if let (Some(_), Some(args)) = (&from.command, &from.args) {
        mistakes.push(Diagnostic::at(args.span(), "`args` beside `command`").hint(
            "`command` is the whole command line; `args` keeps the image's entrypoint: remove one",
        ));
    }
    for list in [&from.command, &from.args].into_iter().flatten() {
        let is_command = from
            .command
            .as_ref()
            .is_some_and(|c| c.span() == list.span());
        if is_command
            && list
                .get_ref()
                .first()
                .is_none_or(|program| program.get_ref().is_empty())
        {
            mistakes.push(
                Diagnostic::at(list.span(), "`command` names no program")
                    .hint("as in command = [\"nginx\", \"-g\", \"daemon off;\"]"),
            );
        }
    }
}

pub(super) fn words(
    list: Option<&Spanned<Vec<Text>>>,
    mistakes: &mut Mistakes,
) -> Option<Vec<String>> {
    list.map(|list| mistakes.take_all(list.get_ref(), without_nul))
}

pub(super) fn without_nul(text: &Text) -> Parsed<String> {
    if text.get_ref().contains('\0') {
        return Err(Diagnostic::at(
            text.span(),
            format!("`{}` contains a NUL", text.get_ref().escape_debug()),
        )
        .hint("remove it: no argument can hold one"));
    }
    Ok(text.get_ref().clone())
}

pub(super) fn environment(
    from: &manifest::Workload,
    mistakes: &mut Mistakes,
) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (name, value) in &from.env {
        if name.get_ref().is_empty() || name.get_ref().contains(['=', '\0']) {
            mistakes.push(
                Diagnostic::at(
                    name.span(),
                    format!("`{}` is no variable name", name.get_ref().escape_debug()),
                )
                .hint("a name without `=`, as in env = { LANG = \"C\" }"),
            );
        }
        if let Some(value) = mistakes.take(without_nul(value)) {
            pairs.push((name.get_ref().clone(), value));
        }
    }
    pairs
}

/// The root directory, or a plain absolute path.
pub(super) fn working_dir(text: &Text) -> Parsed<String> {
    if text.get_ref() == "/" {
        Ok("/".to_owned())
    } else {
        value::absolute_path(text)
    }
}
