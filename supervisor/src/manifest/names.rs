//! What may be a name (RFC 1123, and Kubernetes' own rules).

use super::reading::At;

/// A label of a domain name: `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, at most 63.
pub(super) fn is_label(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(is_inner) && !name.starts_with('-') && !name.ends_with('-')
}

/// Labels with dots between, at most 253.
pub(super) fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

/// A name of a key of a ConfigMap or Secret.
pub(super) fn is_key(name: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=253).contains(&name.len()) && name.bytes().all(is_good) && name != "." && !name.starts_with("..")
}

/// A name of a variable: printable, without `=`.
pub(super) fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=')
}

/// A name of a port: a label of at most 15 with a letter in it, and no two hyphens in a row.
pub(super) fn is_port(name: &str) -> bool {
    name.len() <= 15 && is_label(name) && name.bytes().any(|byte| byte.is_ascii_lowercase()) && !name.contains("--")
}

/// `PREFIX/NAME` or `NAME`, as labels and annotations are called.
fn is_qualified(name: &str) -> bool {
    let (prefix, name) = match name.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, name),
    };
    prefix.is_none_or(is_subdomain) && !name.is_empty() && is_label_value(name)
}

fn is_label_value(value: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_edge = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    value.len() <= 63 && value.bytes().all(is_inner) && is_edge(value.bytes().next()) && is_edge(value.bytes().last())
}

pub(super) fn check_label(at: &At<'_>, name: &str) {
    if !is_label(name) {
        at.refuse("must be at most 63 of a-z, 0-9 and -, with a letter or digit at both ends");
    }
}

pub(super) fn check_subdomain(at: &At<'_>, name: &str) {
    if !is_subdomain(name) {
        at.refuse("must be at most 253 of a-z, 0-9, - and ., with a letter or digit at both ends of each part");
    }
}

pub(super) fn check_labels(at: &At<'_>, labels: &std::collections::BTreeMap<String, String>) {
    for (name, value) in labels {
        check_qualified(at, name);
        if !is_label_value(value) {
            at.below(name).refuse(
                "a label's value is at most 63 letters, digits, -, _ and ., with a letter or digit at both ends",
            );
        }
    }
}

pub(super) fn check_qualified(at: &At<'_>, name: &str) {
    if !is_qualified(name) {
        at.refuse(format!("{:?} is no name of a label or annotation: [DOMAIN/]NAME", super::reading::shortened(name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "web-1", "0"] {
            assert!(is_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(64)] {
            assert!(!is_label(bad), "{bad}");
        }
        assert!(is_subdomain("a.b-c.d") && !is_subdomain("a..b") && !is_subdomain(""));
        assert!(
            is_qualified("app.kubernetes.io/name")
                && is_qualified("App_1")
                && !is_qualified("/name")
                && !is_qualified("a/b/c")
        );
        assert!(is_port("http") && !is_port("80") && !is_port("a--b") && !is_port("abcdefghijklmnop"));
        assert!(is_key("game.properties") && is_key(".hidden") && !is_key("..data") && !is_key("a/b"));
        assert!(is_variable("MY-VAR.x") && !is_variable("A=B") && !is_variable(""));
    }
}
