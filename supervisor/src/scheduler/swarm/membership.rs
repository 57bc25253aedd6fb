//! `flintd join` and `flintd leave`: the folder of the scheduler, before and after.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::identity::{self, Identity, Token};
use super::managers::Managers;
use super::wire::ca::Availability;

/// What a swarm's node starts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JoinOptions {
    /// It gets tasks.
    #[default]
    Active,
    /// It gets no new ones.
    Pause,
    /// It gets none, until a manager says otherwise.
    Drain,
}

/// Joins the swarm of a manager; the node's id. A running flintd sees it by itself.
///
/// # Errors
///
/// A node that is a member already, a token that is none, a manager that does not let it join.
pub async fn join(folder: &Path, token: &str, manager: &str, options: JoinOptions) -> anyhow::Result<String> {
    let token = Token::parse(token)?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("make {}", folder.display()))?;
    if let Some(identity) = Identity::load(folder)? {
        let node = &identity.chain().node_id;
        bail!("this node is a member of a swarm already, as {node}: `flintd leave` first");
    }
    let availability = match options {
        JoinOptions::Active => Availability::Active,
        JoinOptions::Pause => Availability::Pause,
        JoinOptions::Drain => Availability::Drain,
    };
    let identity = identity::join(&token, manager, availability).await?;
    // The identity comes last: it is what makes the node a member.
    Managers::new([manager.to_owned()]).save(folder)?;
    identity.save(folder)?;
    Ok(identity.chain().node_id.clone())
}

/// Leaves the swarm; the node's id. A running flintd sees it by itself, and removes the swarm's pods. The managers see a node that is
/// down: `docker node rm` removes it there.
///
/// # Errors
///
/// A node that is no member, or files that cannot be removed.
pub fn leave(folder: &Path) -> anyhow::Result<String> {
    let node = match Identity::load(folder) {
        Ok(None) => bail!("this node is no member of a swarm"),
        Ok(Some(identity)) => identity.chain().node_id.clone(),
        // A damaged identity is a reason to leave, not one that hinders it.
        Err(_) => String::new(),
    };
    Identity::remove(folder)?;
    Managers::remove(folder)?;
    Ok(node)
}
