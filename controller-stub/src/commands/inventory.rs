//! Added nodes as an Ansible inventory in YAML, with the variables of the role in
//! `packaging/ansible`. It holds tokens. Where it goes, and who may read it there, is for whoever
//! redirects the output to decide.

use super::Added;

/// The inventory. Strings are written as JSON writes them, which is YAML too, so that no name or
/// token is read as something else.
pub fn inventory(added: &Added) -> Result<String, serde_json::Error> {
    let mut text = String::from(
        "# Secret: the nodes' tokens stand in this file. Keep it with mode 0600, or encrypt it (ansible-vault encrypt FILE).\n\
         aio_workers:\n",
    );
    if let Some(authority) = &added.authority {
        text.push_str("  vars:\n    # Whom to trust on the controller; no secret.\n");
        text.push_str(&format!("    aio_worker_authority: {}\n", serde_json::to_string(authority)?));
    }
    text.push_str("  hosts:\n");
    for node in &added.nodes {
        text.push_str(&format!(
            "    {}:\n      aio_worker_node_id: {}\n      aio_worker_token: {}\n",
            serde_json::to_string(&node.name)?,
            serde_json::to_string(&node.node_id)?,
            serde_json::to_string(&node.token)?,
        ));
    }
    Ok(text)
}
