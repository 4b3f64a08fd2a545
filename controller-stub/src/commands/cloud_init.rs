//! cloud-init's user-data for one added node: `packaging/cloud-init/user-data.yaml` with the node's
//! install script in it. It holds the node's token. What the machine does with it stands in that
//! file.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::AddedNode;

const SAMPLE: &str = include_str!("../../../packaging/cloud-init/user-data.yaml");

/// What stands in the sample in place of the script.
const PLACE: &str = "INSTALL_SCRIPT";

/// The user-data; none without an install script. The script is in base64, so that nothing in it is YAML.
pub fn user_data(node: &AddedNode) -> Option<String> {
    let script = node.install_script.as_ref()?;
    Some(SAMPLE.replace(&format!("content: {PLACE}"), &format!("content: {}", STANDARD.encode(script))))
}
