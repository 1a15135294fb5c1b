//! The start order: each workload behind all that it comes after. Ties keep the order of the file.

use std::collections::BTreeMap;

/// Orders the names so that each stands behind the ones it depends on.
///
/// Names in `after` that are not in `names` are ignored; they are reported elsewhere.
///
/// # Errors
/// A cycle: its names in order, the first one again at the end.
pub(crate) fn start_order(
    names: &[&str],
    after: &BTreeMap<&str, Vec<&str>>,
) -> Result<Vec<usize>, Vec<String>> {
    let index: BTreeMap<&str, usize> = names
        .iter()
        .enumerate()
        .map(|(i, name)| (*name, i))
        .collect();
    let mut visit = Visit {
        names,
        after,
        index: &index,
        state: vec![State::New; names.len()],
        path: Vec::new(),
        order: Vec::new(),
    };
    for at in 0..names.len() {
        visit.enter(at)?;
    }
    Ok(visit.order)
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    New,
    Open,
    Done,
}

struct Visit<'a> {
    names: &'a [&'a str],
    after: &'a BTreeMap<&'a str, Vec<&'a str>>,
    index: &'a BTreeMap<&'a str, usize>,
    state: Vec<State>,
    path: Vec<usize>,
    order: Vec<usize>,
}

impl Visit<'_> {
    fn enter(&mut self, at: usize) -> Result<(), Vec<String>> {
        match self.state[at] {
            State::Done => return Ok(()),
            State::Open => return Err(self.cycle(at)),
            State::New => self.state[at] = State::Open,
        }
        self.path.push(at);
        for dependency in self.after.get(self.names[at]).into_iter().flatten() {
            if let Some(&next) = self.index.get(dependency) {
                self.enter(next)?;
            }
        }
        self.path.pop();
        self.state[at] = State::Done;
        self.order.push(at);
        Ok(())
    }

    fn cycle(&self, at: usize) -> Vec<String> {
        let begin = self.path.iter().position(|&p| p == at).unwrap_or(0);
        self.path[begin..]
            .iter()
            .chain([&at])
            .map(|&i| self.names[i].to_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(edges: &[(&'static str, &[&'static str])]) -> Result<Vec<usize>, Vec<String>> {
        let names: Vec<_> = edges.iter().map(|(name, _)| *name).collect();
        start_order(
            &names,
            &edges
                .iter()
                .map(|(name, after)| (*name, after.to_vec()))
                .collect(),
        )
    }

    #[test]
    fn dependencies_come_first_and_ties_keep_the_files_order() {
        assert_eq!(
            order(&[("web", &["db"]), ("z", &[]), ("db", &[]), ("a", &[])]),
            Ok(vec![2, 0, 1, 3])
        );
    }

    #[test]
    fn a_cycle_is_told_whole() {
        let cycle =
            order(&[("x", &["a"]), ("a", &["b"]), ("b", &["c"]), ("c", &["a"])]).unwrap_err();
        assert_eq!(cycle, ["a", "b", "c", "a"]);
        assert_eq!(order(&[("a", &["a"])]).unwrap_err(), ["a", "a"]);
    }
}
