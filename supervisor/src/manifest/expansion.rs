//! `$(NAME)` in values, commands and arguments.

/// Puts variables in place: `$(NAME)` of a known one, `$$` for `$`, and all else as it is, as Kubernetes does it.
pub(super) fn expand<'a>(text: &str, value_of: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut made = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        made.push_str(&rest[..at]);
        let behind = &rest[at + 1..];
        rest = if let Some(behind) = behind.strip_prefix('$') {
            made.push('$');
            behind
        } else if let Some((name, behind)) = behind.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match value_of(name) {
                Some(value) => made.push_str(value),
                None => made.extend(["$(", name, ")"]),
            }
            behind
        } else {
            made.push('$');
            behind
        };
    }
    made.push_str(rest);
    made
}

/// The names that a text asks for.
pub(super) fn names(text: &str) -> Vec<String> {
    let found = std::cell::RefCell::new(Vec::new());
    expand(text, |name| {
        found.borrow_mut().push(name.to_owned());
        None
    });
    found.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        let known = |name: &str| (name == "A").then_some("1");
        for (text, made) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A ${A} $", "$A ${A} $"),
            ("$(A", "$(A"),
            ("$()", "$()"),
            ("äö$(A)ü", "äö1ü"),
        ] {
            assert_eq!(expand(text, known), made, "{text}");
        }
        assert_eq!(names("$(A) $$(B) $(C)"), ["A", "C"]);
    }
}
