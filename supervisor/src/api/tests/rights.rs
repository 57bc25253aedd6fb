//! Who may connect, and what those get who speak nonsense.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use super::{Node, soon};
use crate::api::client::{Client, Error};

/// What a program of another user sees that connects: whether it could, and whether it is heard.
fn as_nobody(socket: &Path) -> String {
    let script = format!(
        "import socket\ns = socket.socket(socket.AF_UNIX)\ns.settimeout(20)\n\
         try:\n  s.connect({socket:?})\n  print('closed' if s.recv(1) == b'' else 'served')\nexcept Exception as error:\n  print(type(error).__name__)\n"
    );
    let output = Command::new("python3").args(["-c", &script]).uid(65534).gid(65534).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_user_is_refused_by_the_mode_and_by_who_it_is() {
    use std::os::unix::fs::PermissionsExt as _;
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let node = Node::serve();
    let open = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    open(node.folder.path(), 0o755);
    let socket = node.socket.clone();
    assert_eq!(tokio::task::spawn_blocking(move || as_nobody(&socket)).await.unwrap(), "PermissionError");
    // Somebody has opened it to all: the peer's credentials still count.
    open(node.socket.parent().unwrap(), 0o755);
    open(&node.socket, 0o666);
    let socket = node.socket.clone();
    assert_eq!(tokio::task::spawn_blocking(move || as_nobody(&socket)).await.unwrap(), "closed");
    assert!(node.client().await.node().await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_hurts_nobody_else() {
    let node = Node::serve();
    let client = node.client().await;
    let mut garbage = Vec::new();
    let mut state = 1_u32;
    for _ in 0..65536 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        garbage.push((state >> 24) as u8);
    }
    // A frame of 4 GB, one of a stream nobody opened, one cut off, and noise.
    let frames: [&[u8]; 4] = [
        &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 1, 0],
        &[0, 0, 0, 1, 0, 0, 0, 5, 3, 0, 0],
        &[0, 0, 0, 200, 0, 0, 0, 7, 1, 0, 1],
        &garbage,
    ];
    let mut open = Vec::new();
    for frame in frames {
        let mut stream = UnixStream::connect(&node.socket).unwrap();
        let _ = stream.write_all(frame);
        open.push(stream);
        assert!(soon(client.node()).await.is_ok());
    }
    // Half a frame and no more: a stalled client.
    for _ in 0..50 {
        let mut stream = UnixStream::connect(&node.socket).unwrap();
        stream.write_all(&[0, 0, 0]).unwrap();
        open.push(stream);
    }
    assert!(soon(node.client().await.node()).await.is_ok());
    drop(open);
    let mut stream = UnixStream::connect(&node.socket).unwrap();
    stream.write_all(frames[2]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let read = tokio::task::spawn_blocking(move || stream.read(&mut [0; 16]));
    assert_eq!(soon(read).await.unwrap().unwrap(), 0, "a connection that is half there is closed");
}

#[tokio::test]
async fn where_nobody_answers_the_error_says_what_to_look_at() {
    let folder = tempfile::tempdir().unwrap();
    let error = Client::connect(&folder.path().join("no.sock")).await.unwrap_err();
    assert!(error.to_string().contains("is it running"), "{error}");
    let error = Error::Connect { path: "/x".into(), error: std::io::ErrorKind::PermissionDenied.into() };
    assert!(error.to_string().contains("usermod -aG"), "{error}");
}
