//! A blob's bytes, through cut connections: the transfer goes on where it was cut.

use std::io::{self, Read};

use ureq::Body;
use ureq::http::{Response, StatusCode};

use super::client::Client;
use crate::error::{Error, Result};
use crate::image::Blob;

/// A transfer that brought as much as this was no failure.
const PROGRESS: u64 = 64 << 10;

/// Reads a blob from an offset to its end.
pub(super) struct Resuming<'a> {
    client: &'a Client<'a>,
    blob: Blob,
    position: u64,
    body: Option<Box<dyn Read + Send>>,
    /// Failures since something came.
    failed: u32,
    /// The position of the last failure.
    failed_at: u64,
}

impl<'a> Resuming<'a> {
    pub(super) fn open(client: &'a Client<'a>, blob: &Blob, offset: u64) -> Result<Self> {
        let mut opened =
            Self { client, blob: blob.clone(), position: offset, body: None, failed: 0, failed_at: offset };
        opened.connect()?;
        Ok(opened)
    }

    fn what(&self) -> String {
        format!("the blob {}", self.blob.digest)
    }

    /// Asks for the rest, until an answer comes or it was tried often enough.
    fn connect(&mut self) -> Result<()> {
        let what = self.what();
        let client = self.client;
        self.body = Some(client.tried(&what, || self.request(&what))?);
        Ok(())
    }

    fn request(&self, what: &str) -> Result<Box<dyn Read + Send>> {
        let path = format!("blobs/{}", self.blob.digest);
        let range = format!("bytes={}-", self.position);
        let headers: &[(&str, &str)] = if self.position == 0 { &[] } else { &[("range", &range)] };
        let mut response = self.client.get(&path, headers, what)?;
        // What it has of ranges is of no use (and what is here already may be more than the registry has): all of it, then.
        if self.position > 0 && is_another_part(&response, self.position) {
            response = self.client.get(&path, &[], what)?;
        }
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE || is_another_part(&response, self.position) {
            return Err(Error::refused(format!("{what}: the registry sends a part of it that it was not asked for")));
        }
        let is_part = response.status() == StatusCode::PARTIAL_CONTENT;
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        if !is_part && self.position > 0 {
            // A registry that knows no ranges sends all of it again.
            let skipped = io::copy(&mut body.by_ref().take(self.position), &mut io::sink())
                .map_err(|error| Error::unavailable(format!("{what}: its transfer was cut: {error}")))?;
            if skipped < self.position {
                return Err(Error::unavailable(format!("{what}: its transfer was cut after {skipped} bytes")));
            }
        }
        Ok(Box::new(body))
    }

    /// After a cut: waits, and asks for the rest.
    fn resume(&mut self, why: &str) -> Result<()> {
        self.body = None;
        if self.position - self.failed_at >= PROGRESS {
            self.failed = 0;
        }
        self.failed_at = self.position;
        self.failed += 1;
        let (what, position, size) = (self.what(), self.position, self.blob.size);
        let cut = Error::unavailable(format!("{what}: its transfer was cut after {position} of {size} bytes: {why}"));
        self.client.pause(&what, self.failed, cut)?;
        self.connect()
    }
}

impl Read for Resuming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.position >= self.blob.size || buffer.is_empty() {
                return Ok(0);
            }
            let read = match &mut self.body {
                Some(body) => body.read(buffer),
                None => return Err(io::Error::other(Error::unavailable("the transfer has failed"))),
            };
            let why = match read {
                Ok(0) => "the registry sent no more".to_owned(),
                Ok(count) => {
                    self.position += count as u64;
                    return Ok(count);
                }
                Err(error) => error.to_string(),
            };
            self.resume(&why).map_err(io::Error::other)?;
        }
    }
}

/// Whether an answer is none to what was asked for: another part, or that there is none from there on.
fn is_another_part(response: &Response<Body>, position: u64) -> bool {
    let range = || response.headers().get("content-range").and_then(|value| begins(value.to_str().ok()?));
    match response.status() {
        StatusCode::RANGE_NOT_SATISFIABLE => true,
        StatusCode::PARTIAL_CONTENT => range() != Some(position),
        _ => false,
    }
}

/// Where a part begins: `bytes 5-9/10`.
fn begins(range: &str) -> Option<u64> {
    range.trim().strip_prefix("bytes")?.trim_start().split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn ranges_begin_where_they_say() {
        assert_eq!(super::begins("bytes 5-9/10"), Some(5));
        assert_eq!(super::begins("bytes 0-0/*"), Some(0));
        for wrong in ["", "bytes */10", "5-9", "bytes -5"] {
            assert_eq!(super::begins(wrong), None, "{wrong}");
        }
    }
}
