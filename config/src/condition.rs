//! What a workload waits for that no workload is: conditions of the machine, and the names that they take.

use crate::boot::{BootCondition, Network};
use crate::diagnostic::Diagnostic;
use crate::manifest::{self, Text};
use crate::mistakes::Mistakes;

/// In `after`: the network to the outside.
const NETWORK: &str = "network";

/// Whether the name in `after` is a condition's.
pub(crate) fn is_one(name: &Text) -> bool {
    name.get_ref() == NETWORK
}

/// The workloads among the names.
pub(crate) fn workloads_of(names: &[Text]) -> Vec<String> {
    let workloads = names.iter().filter(|name| !is_one(name));
    workloads.map(|name| name.get_ref().clone()).collect()
}

/// What the file asks for. A condition only orders the start: nothing is stopped when an address goes away.
pub(crate) fn asked_for(from: &manifest::Workload, mistakes: &mut Mistakes) -> Vec<BootCondition> {
    for name in from.requires.iter().filter(|name| is_one(name)) {
        let message = format!("`{NETWORK}` cannot be required");
        let hint = "write after = [\"network\"]: it starts once the machine has an address";
        mistakes.push(Diagnostic::at(name.span(), message).hint(hint));
    }
    let wants_network = from.after.iter().any(is_one);
    wants_network
        .then_some(BootCondition::Network)
        .into_iter()
        .collect()
}

/// What goes without saying: nobody is reachable before the firewall is there.
pub(crate) const fn implied(network: Network) -> Option<BootCondition> {
    match network {
        Network::None => None,
        Network::Own | Network::Host => Some(BootCondition::Firewall),
    }
}
