//! WWW-Authenticate (RFC 9110, 11.6.1): what a registry wants to see.

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A name and a password.
    Basic,
    /// A token, which somebody else gives.
    Bearer {
        /// Where: an address.
        realm: String,
        /// For whom.
        service: Option<String>,
        /// For what.
        scope: Option<String>,
    },
}

/// Reads a header; the first challenge of a known kind counts. None: there is none.
pub(super) fn parse(header: &str) -> Option<Challenge> {
    let mut challenges: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for part in parts(header) {
        let part = part.trim();
        let (first, rest) = part.split_once(char::is_whitespace).unwrap_or((part, ""));
        // `Bearer realm=...`, or a further `key=value` of the same challenge.
        let parameter = if first.contains('=') {
            part
        } else {
            challenges.push((first.to_ascii_lowercase(), Vec::new()));
            rest.trim()
        };
        if let (Some((key, value)), Some((_, parameters))) = (parameter.split_once('='), challenges.last_mut()) {
            parameters.push((key.trim().to_ascii_lowercase(), unquoted(value.trim())));
        }
    }
    let known = |(scheme, parameters): &(String, Vec<(String, String)>)| {
        let value = |key: &str| parameters.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        match scheme.as_str() {
            "basic" => Some(Challenge::Basic),
            "bearer" => {
                Some(Challenge::Bearer { realm: value("realm")?, service: value("service"), scope: value("scope") })
            }
            _ => None,
        }
    };
    challenges.iter().find_map(known)
}

/// Cuts at commas that are in no quotes.
fn parts(header: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, letter) in header.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.extend(header.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(header.get(start..));
    parts
}

fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').map(|rest| rest.strip_suffix('"').unwrap_or(rest)) else {
        return value.to_owned();
    };
    let mut text = String::new();
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        text.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.to_owned(), service: owned(service), scope: owned(scope) }
    }

    #[test]
    fn challenges_of_real_registries_are_read() {
        let hub =
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        let scope = Some("repository:a/b:pull,push");
        assert_eq!(parse(hub), Some(bearer("https://auth.example/token", Some("registry.example"), scope)));
        assert_eq!(parse(r#"Basic realm="Registry, of \"us\"""#), Some(Challenge::Basic));
        assert_eq!(parse("bearer Realm=https://x/y"), Some(bearer("https://x/y", None, None)));
        assert_eq!(parse(r#"Negotiate abc==, Bearer realm="r" , service=s"#), Some(bearer("r", Some("s"), None)));
    }

    #[test]
    fn what_says_nothing_is_nothing() {
        for header in ["", ",,,", "Digest realm=\"x\"", "Bearer", "Bearer service=\"s\"", "\"", "=", "Bearer realm"] {
            assert_eq!(parse(header), None, "{header}");
        }
    }
}
