//! Clients that speak to servers over a host port.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use integration_tests::{Command, Output};

/// A server that hangs is a failure, and no test that hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection over which HTTP/1.1 is spoken.
pub(super) struct Http {
    stream: BufReader<TcpStream>,
    /// Whether a request was answered on it.
    pub(super) is_used: bool,
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// A status and a body; whether the server keeps the connection open.
    Full(u16, String, bool),
    /// The connection ended before the first byte of an answer: one that was idle may (RFC 9112, section 9.5), and a GET is
    /// sent again.
    Closed,
}

impl Http {
    pub(super) fn connect(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), is_used: false })
    }

    pub(super) fn get(&mut self, path: &str, keep: bool) -> std::io::Result<Answer> {
        let connection = if keep { "keep-alive" } else { "close" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n");
        let gone = |error: &std::io::Error| {
            matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe)
        };
        match self.stream.get_mut().write_all(request.as_bytes()) {
            Err(error) if gone(&error) => return Ok(Answer::Closed),
            written => written?,
        }
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => return Ok(Answer::Closed),
            Err(error) if gone(&error) && line.is_empty() => return Ok(Answer::Closed),
            read => drop(read?),
        }
        self.is_used = true;
        let wrong = || std::io::Error::other(format!("no status line: {line:?}"));
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(wrong)?;
        let (mut length, mut stays) = (0, keep);
        loop {
            let mut header = String::new();
            self.stream.read_line(&mut header)?;
            let header = header.trim_end().to_ascii_lowercase();
            match header.split_once(": ") {
                None if header.is_empty() => break,
                Some(("content-length", value)) => length = value.parse().map_err(std::io::Error::other)?,
                Some(("connection", "close")) => stays = false,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Answer::Full(status, String::from_utf8_lossy(&body).into_owned(), stays))
    }
}

/// One GET on a connection of its own: status and body.
pub(super) fn http(port: u16, path: &str) -> std::io::Result<(u16, String)> {
    match Http::connect(port)?.get(path, false)? {
        Answer::Full(status, body, _) => Ok((status, body)),
        Answer::Closed => Err(std::io::Error::other("the connection was closed without an answer")),
    }
}

/// One command in Redis' protocol (RESP 2); the first line of the answer, or the string that it announces.
pub(super) fn redis(port: u16, words: &[&str]) -> std::io::Result<String> {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port))?);
    stream.get_ref().set_read_timeout(Some(PATIENCE))?;
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        let _ = write!(request, "${}\r\n{word}\r\n", word.len());
    }
    stream.get_mut().write_all(request.as_bytes())?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let line = line.trim_end();
    let Some(length) = line.strip_prefix('$').and_then(|length| length.parse::<usize>().ok()) else {
        return Ok(line.to_owned());
    };
    let mut text = vec![0; length];
    stream.read_exact(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A statement of SQL by PostgreSQL's own client, which runs on the host with the files of an image.
pub(super) fn psql(rootfs: &Path, port: u16, password: &str, statement: &str) -> Output {
    let port = port.to_string();
    Command::new("chroot")
        .env("PGPASSWORD", password)
        .args([rootfs])
        .args(["/usr/lib/postgresql/15/bin/psql", "-h", "127.0.0.1", "-p", &port, "-U", "postgres"])
        .args(["-v", "ON_ERROR_STOP=1", "-qAtc", statement])
        .output()
}
