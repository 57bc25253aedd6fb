//! One question, and its answer.

use std::net::IpAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use super::{Exec, NotRun, Target, grpc, http};
use crate::desired::Check;

/// So much of what a program wrote is told with its failure.
const TOLD: usize = 512;

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was yes.
    Yes,
    /// It was no; why.
    No(String),
    /// Nobody knows it, through no fault of the container; why.
    Lost(String),
}

/// Puts one question; no answer within `timeout` is a no.
pub async fn ask(check: &Check, target: &Target, timeout: Duration, exec: &dyn Exec) -> Answer {
    let question = async {
        match check {
            // The program is killed after its timeout by the one who runs it: a future that is dropped would leave it running.
            Check::Exec(argv) => run(argv, target, timeout, exec).await,
            Check::Http(check) => http::get(check, target).await.map_or_else(Answer::No, |()| Answer::Yes),
            Check::Tcp { host, port } => connect(host.as_deref(), *port, target).await,
            Check::Grpc { port, service } => match address(None, target) {
                Ok(host) => grpc::check(&host, *port, service).await.map_or_else(Answer::No, |()| Answer::Yes),
                Err(text) => Answer::No(text),
            },
        }
    };
    let patience = if matches!(check, Check::Exec(_)) { timeout + Duration::from_secs(5) } else { timeout };
    match tokio::time::timeout(patience, question).await {
        Ok(answer) => answer,
        Err(_) => Answer::No(format!("{}: no answer within {} s", words(check), timeout.as_secs_f32())),
    }
}

/// The question in a few words.
fn words(check: &Check) -> String {
    match check {
        Check::Exec(argv) => format!("exec {:?}", argv.first().map_or("", String::as_str)),
        Check::Http(check) => format!("GET of {} at port {}", check.path, check.port),
        Check::Tcp { port, .. } => format!("connection to port {port}"),
        Check::Grpc { port, .. } => format!("gRPC health check at port {port}"),
    }
}

async fn run(argv: &[String], target: &Target, timeout: Duration, exec: &dyn Exec) -> Answer {
    match exec.exec(target, argv, timeout).await {
        Ok(exited) if exited.status == 0 => Answer::Yes,
        Ok(exited) => {
            let told: String = exited.output.trim().chars().take(TOLD).collect();
            let program = argv.first().map_or("", String::as_str);
            Answer::No(format!("{program} ended with status {}: {told}", exited.status))
        }
        Err(NotRun::Failed(text)) => Answer::No(text),
        Err(NotRun::Lost(text)) => Answer::Lost(text),
    }
}

async fn connect(host: Option<&str>, port: u16, target: &Target) -> Answer {
    let host = match address(host, target) {
        Ok(host) => host,
        Err(text) => return Answer::No(text),
    };
    match TcpStream::connect((host.as_str(), port)).await {
        Ok(_closed) => Answer::Yes,
        Err(error) => Answer::No(format!("connection to {host} port {port}: {error}")),
    }
}

/// The host to ask: the one of the check, or the pod's address.
pub(super) fn address(host: Option<&str>, target: &Target) -> Result<String, String> {
    match (host, target.address) {
        (Some(host), _) => Ok(host.trim_start_matches('[').trim_end_matches(']').to_owned()),
        (None, Some(address)) => Ok(address.to_string()),
        (None, None) => Err(format!("pod {} has no network and so no address to connect to", target.pod)),
    }
}

/// A host as it stands in a URL.
pub(super) fn in_url(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => host.to_owned(),
    }
}
