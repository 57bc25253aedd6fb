//! Programs: input, output, sizes, ends.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Node, soon, target};
use crate::api::client::{Attached, Client, Error, Outcome, Output, Typist};
use crate::api::fake::pod;
use crate::api::{Attach, Exec};

async fn exec(client: &Client, command: &[&str]) -> (Attached, Typist) {
    let command = command.iter().map(ToString::to_string).collect();
    client.exec(&target("web"), &Exec { command, stdin: true, ..Exec::default() }).await.unwrap()
}

async fn node() -> (Node, Client) {
    let node = Node::serve();
    node.fake.change(|pods| pods.push(pod("web")));
    let client = node.client().await;
    (node, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_comes_in_order_and_whole_and_the_status_behind_the_output() {
    let (_node, client) = node().await;
    let (mut attached, mut typist) = exec(&client, &["cat"]).await;
    let input: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let sent = input.clone();
    let typing = tokio::spawn(async move {
        for piece in sent.chunks(1000) {
            assert!(typist.send(piece).await);
        }
        typist.end().await;
    });
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(output) = soon(attached.next()).await.unwrap() {
        match output {
            Output::Stdout(bytes) => stdout.extend(bytes),
            Output::Stderr(bytes) => stderr.extend(bytes),
        }
    }
    soon(typing).await.unwrap();
    assert_eq!(attached.outcome(), Outcome::Exited(3));
    assert!(stdout == input, "{} of {} bytes", stdout.len(), input.len());
    assert_eq!(stderr, b"reading\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn big_outputs_wait_for_their_reader() {
    let (_node, client) = node().await;
    let (mut attached, _typist) = exec(&client, &["zeros", "100000000"]).await;
    // A second session on the same connection is served while the first stalls.
    let (mut other, _other_typist) = exec(&client, &["zeros", "1000"]).await;
    soon(other.next()).await.unwrap();
    let mut count = 0;
    while let Some(Output::Stdout(bytes)) = soon(attached.next()).await.unwrap() {
        count += bytes.len();
    }
    assert_eq!(count, 100_000_000);
    assert_eq!(attached.outcome(), Outcome::Exited(0));
}

#[tokio::test]
async fn sizes_reach_the_terminal() {
    let (_node, client) = node().await;
    let (mut attached, typist) = exec(&client, &["size"]).await;
    typist.resize(33, 77).await;
    assert_eq!(soon(attached.next()).await.unwrap(), Some(Output::Stdout(b"33 77\n".to_vec())));
}

#[tokio::test]
async fn a_program_that_does_not_read_is_no_trap() {
    let (_node, client) = node().await;
    let (mut attached, mut typist) = exec(&client, &["deaf"]).await;
    let typing = tokio::spawn(async move { typist.send(&vec![0; 1 << 20]).await });
    assert_eq!(soon(attached.next()).await.unwrap(), None);
    assert_eq!(attached.outcome(), Outcome::Exited(7));
    drop(attached);
    assert!(!soon(typing).await.unwrap());
}

#[tokio::test]
async fn an_attached_client_says_what_it_wants() {
    let (node, client) = node().await;
    let wanted = Attach { stdin: true, from_start: true };
    let (mut attached, mut typist) = client.attach(&target("web"), wanted).await.unwrap();
    assert_eq!(soon(attached.next()).await.unwrap(), Some(Output::Stderr(b"reading\n".to_vec())));
    let typing = tokio::spawn(async move {
        assert!(typist.send(b"typed").await);
        typist.end().await;
    });
    assert_eq!(soon(attached.next()).await.unwrap(), Some(Output::Stdout(b"typed".to_vec())));
    assert_eq!(soon(attached.next()).await.unwrap(), None, "its input has ended");
    assert_eq!(attached.outcome(), Outcome::Exited(3));
    soon(typing).await.unwrap();
    assert_eq!(*node.fake.calls.lock().unwrap(), [format!("attach {wanted:?}")]);
    // Without an input what is typed is nobody's, and that is told.
    let (mut attached, mut typist) = client.attach(&target("web"), Attach::default()).await.unwrap();
    let reading = tokio::spawn(async move { while let Ok(Some(_)) = attached.next().await {} });
    assert!(!soon(typist.send(b"typed")).await);
    reading.abort();
}

#[tokio::test]
async fn who_goes_is_noticed_and_what_cannot_be_is_told() {
    let (node, client) = node().await;
    for (command, words) in [(&["missing"][..], "no such program"), (&[], "which program")] {
        let (mut attached, _typist) = exec(&client, command).await;
        assert!(matches!(soon(attached.next()).await, Err(Error::Refused(text)) if text.contains(words)));
    }
    let sleeping = exec(&client, &["sleep"]).await;
    let attached = client.attach(&target("web"), Attach { stdin: true, from_start: false }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(node.fake.abandoned.load(Ordering::SeqCst), 0);
    drop((sleeping, attached, client));
    soon(async {
        while node.fake.abandoned.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
