//! What `start` reads and answers: four dialects of containerd (1.6, 1.7, 2.0 to 2.2, 2.3 and later).

use anyhow::{Context as _, Result};
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use protobuf::Message as _;
use protobuf::well_known_types::any::Any;
use serde::Serialize;

use crate::address::Address;
use crate::arguments::Arguments;

/// The newest task API that is served here.
const NEWEST: i32 = 3;
/// 1.7 and later say by it which one they speak at most.
const MAXIMUM: &str = "MAX_SHIM_VERSION";

/// How containerd wants its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// The address and nothing else (1.6).
    Bare,
    /// JSON with at most this version of the task API.
    Json(i32),
    /// `BootstrapResult` (2.3).
    Protobuf,
}

/// What came by standard input.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) dialect: Dialect,
    /// The options of the first container, undecoded.
    pub(crate) options: Option<Any>,
    /// Where containerd takes events, if it said so here.
    pub(crate) events: Option<String>,
    pub(crate) socket_folder: Option<String>,
    pub(crate) debug: bool,
}

#[derive(Serialize)]
struct Parameters<'a> {
    version: i32,
    address: &'a str,
    protocol: &'a str,
}

impl Input {
    /// Both `Any` and `BootstrapParams` begin with two strings: it is the latter if these are the container's id and
    /// namespace, which are no type's name.
    ///
    /// # Errors
    ///
    /// Bytes that are neither.
    pub(crate) fn decode(bytes: &[u8], arguments: &Arguments, maximum: Option<&str>) -> Result<Self> {
        if let Ok(params) = BootstrapParams::parse_from_bytes(bytes)
            && !params.instance_id.is_empty()
            && params.instance_id == arguments.id
            && params.namespace == arguments.namespace
        {
            let options = params.extensions.iter().find_map(|extension| extension.value.as_ref());
            return Ok(Self {
                dialect: Dialect::Protobuf,
                options: options.cloned(),
                events: Some(params.containerd_ttrpc_address).filter(|address| !address.is_empty()),
                socket_folder: params.socket_dir.filter(|folder| !folder.is_empty()),
                debug: params.log_level.value() < 0,
            });
        }
        let options = if bytes.is_empty() {
            None
        } else {
            Some(Any::parse_from_bytes(bytes).context("standard input is no google.protobuf.Any")?)
        };
        let dialect = match maximum {
            None => Dialect::Bare,
            Some(maximum) => Dialect::Json(maximum.parse().unwrap_or(2).clamp(2, NEWEST)),
        };
        Ok(Self { dialect, options, events: None, socket_folder: None, debug: false })
    }

    /// From the standard input and environment of this process.
    ///
    /// # Errors
    ///
    /// As [`Input::decode`].
    pub(crate) fn read(arguments: &Arguments) -> Result<Self> {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes).context("read standard input")?;
        Self::decode(&bytes, arguments, std::env::var(MAXIMUM).ok().as_deref())
    }
}

impl Dialect {
    /// The answer that names the shim's address.
    ///
    /// # Errors
    ///
    /// None in practice.
    pub(crate) fn answer(self, address: &Address) -> Result<Vec<u8>> {
        let url = address.url();
        match self {
            Self::Bare => Ok(url.into_bytes()),
            Self::Json(version) => Ok(serde_json::to_vec(&Parameters { version, address: &url, protocol: "ttrpc" })?),
            Self::Protobuf => {
                let result = BootstrapResult {
                    version: NEWEST,
                    address: url,
                    protocol: "ttrpc".to_owned(),
                    ..BootstrapResult::default()
                };
                Ok(result.write_to_bytes()?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
    use protobuf::Message as _;
    use protobuf::well_known_types::any::Any;

    use super::{Dialect, Input};
    use crate::address::Address;
    use crate::arguments::Arguments;

    fn arguments() -> Arguments {
        Arguments { id: "c1".to_owned(), namespace: "k8s.io".to_owned(), ..Arguments::default() }
    }

    fn decode(bytes: &[u8], maximum: Option<&str>) -> Input {
        Input::decode(bytes, &arguments(), maximum).unwrap()
    }

    #[test]
    fn dialects() {
        let any = Any { type_url: "containerd.runc.v1.Options".to_owned(), value: vec![8, 1], ..Any::default() };
        let bytes = any.write_to_bytes().unwrap();
        for (maximum, dialect) in [
            (None, Dialect::Bare),
            (Some("2"), Dialect::Json(2)),
            (Some("3"), Dialect::Json(3)),
            (Some("9"), Dialect::Json(3)),
            (Some("x"), Dialect::Json(2)),
        ] {
            let input = decode(&bytes, maximum);
            assert_eq!((input.dialect, input.options), (dialect, Some(any.clone())));
            assert_eq!(decode(&[], maximum).options, None);
        }
        let params = BootstrapParams {
            instance_id: "c1".to_owned(),
            namespace: "k8s.io".to_owned(),
            containerd_ttrpc_address: "unix:///t".to_owned(),
            socket_dir: Some("/s".to_owned()),
            ..BootstrapParams::default()
        };
        let input = decode(&params.write_to_bytes().unwrap(), Some("3"));
        assert_eq!(input.dialect, Dialect::Protobuf);
        assert_eq!((input.events.as_deref(), input.socket_folder.as_deref()), (Some("unix:///t"), Some("/s")));
        // Another container's: not meant for us, so it is read as an Any, as older ones write it.
        let other = BootstrapParams { instance_id: "c2".to_owned(), ..params };
        assert_eq!(decode(&other.write_to_bytes().unwrap(), None).dialect, Dialect::Bare);
        assert!(Input::decode(&[0xff, 0xff], &arguments(), None).is_err());
    }

    #[test]
    fn answers() {
        let address = Address::parse("unix:///run/s/x");
        let text = |dialect: Dialect| String::from_utf8(dialect.answer(&address).unwrap()).unwrap();
        assert_eq!(text(Dialect::Bare), "unix:///run/s/x");
        assert_eq!(text(Dialect::Json(2)), r#"{"version":2,"address":"unix:///run/s/x","protocol":"ttrpc"}"#);
        let result = BootstrapResult::parse_from_bytes(&Dialect::Protobuf.answer(&address).unwrap()).unwrap();
        assert_eq!(
            (result.version, result.address.as_str(), result.protocol.as_str()),
            (3, "unix:///run/s/x", "ttrpc")
        );
    }
}
