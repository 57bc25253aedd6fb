//! `events`: what happened.

use anyhow::Result;
use clap::Args;
use flintd::logs::rfc3339;
use flintd::observed::Event;

use crate::command::{Session, print, shown};
use crate::values::plain;

/// Print what happened lately
#[derive(Args)]
pub(crate) struct EventsVerb {
    /// Of this pod alone
    pod: Option<String>,
    /// Go on with what happens
    #[arg(long, short)]
    follow: bool,
    /// Print JSON, an event on a line
    #[arg(long)]
    json: bool,
}

impl EventsVerb {
    pub(crate) async fn run(self, session: &Session) -> Result<u8> {
        let client = session.client().await?;
        let wanted = self.pod.as_ref().map(|name| session.key(name));
        let mut events = client.events(self.follow).await?;
        while let Some(event) = events.next().await? {
            if wanted.is_some() && event.pod != wanted {
                continue;
            }
            let line = if self.json { serde_json::to_string(&event)? } else { line(&event) };
            print(&(line + "\n"))?;
        }
        Ok(0)
    }
}

/// The time, whether to look at it, the word, whose, and the sentence.
fn line(event: &Event) -> String {
    let at = rfc3339(event.at);
    let at = at.get(..19).unwrap_or_default();
    let kind = if event.is_warning { "Warning" } else { "Normal" };
    let whose = match (&event.pod, &event.container) {
        (Some(pod), Some(container)) => format!("{}/{container}", shown(pod)),
        (Some(pod), None) => shown(pod),
        (None, _) => "node".to_owned(),
    };
    plain(&format!("{at}Z  {kind:7}  {:20}  {whose}: {}", event.reason.word, event.reason.sentence))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use flintd::desired::Key;
    use flintd::observed::Reason;

    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let event = Event {
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_881_600),
            pod: Some(Key::new("default", "web")),
            container: Some("main".to_owned()),
            is_warning: true,
            reason: Reason { word: "BackOff".to_owned(), sentence: "it ended\nagain".to_owned() },
        };
        assert_eq!(
            line(&event),
            "2026-11-28T16:00:00Z  Warning  BackOff               web/main: it ended\u{fffd}again"
        );
    }
}
