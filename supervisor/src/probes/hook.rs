//! What is done at a moment of a container's life.

use std::time::Duration;

use super::{Answer, Exec, NotRun, Target, ask};
use crate::desired::{Check, Hook};

/// Runs a hook to its end, for no longer than `limit`: what is left of the grace period for preStop; for postStart, which
/// Kubernetes gives all the time there is, what the caller thinks right. A pause ends at the limit, and that is no failure.
///
/// # Errors
///
/// A postStart hook that fails kills the container, and one that was lost is run again; a preStop hook that fails or was lost is
/// told, and the stop goes on.
pub async fn run_hook(hook: &Hook, target: &Target, limit: Duration, exec: &dyn Exec) -> Result<(), NotRun> {
    let check = match hook {
        Hook::Exec(argv) => Check::Exec(argv.clone()),
        Hook::Http(check) => Check::Http(check.clone()),
        Hook::Sleep(pause) => {
            tokio::time::sleep(limit.min(*pause)).await;
            return Ok(());
        }
    };
    match ask(&check, target, limit, exec).await {
        Answer::Yes => Ok(()),
        Answer::No(why) => Err(NotRun::Failed(why)),
        Answer::Lost(why) => Err(NotRun::Lost(why)),
    }
}
