//! Go templates of a service's environment, mounts and hostname: plain fields, and no more of that language.

use std::collections::BTreeMap;

use super::Unmappable;

/// What a template may name.
#[derive(Debug, Default)]
pub(super) struct Values {
    fields: BTreeMap<&'static str, String>,
    labels: BTreeMap<String, String>,
}

impl Values {
    pub(super) fn new(fields: [(&'static str, String); 9], labels: BTreeMap<String, String>) -> Self {
        Self { fields: fields.into(), labels }
    }

    /// `text` with each `{{...}}` replaced. `field` is where it stands.
    pub(super) fn expand(&self, field: &str, text: &str) -> Result<String, Unmappable> {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((action, after)) = after.split_once("}}") else {
                return Err(Unmappable::new(field, format!("the template {text:?} has no end")));
            };
            // `{{-` and `-}}` take the white space beside them.
            let (action, trims_left) = action.strip_prefix("- ").map_or((action, false), |action| (action, true));
            let (action, trims_right) = action.strip_suffix(" -").map_or((action, false), |action| (action, true));
            expanded.push_str(before);
            if trims_left {
                expanded.truncate(expanded.trim_end().len());
            }
            let value = self.value(action.trim());
            let advice = "flintd knows plain fields ({{.Service.Name}}, {{.Task.Slot}}, {{.Node.Hostname}}, ...) alone";
            let value = value.ok_or_else(|| Unmappable::new(field, format!("the template {text:?}: {advice}")))?;
            expanded.push_str(value);
            rest = if trims_right { after.trim_start() } else { after };
        }
        expanded.push_str(rest);
        Ok(expanded)
    }

    fn value(&self, action: &str) -> Option<&str> {
        if let Some(value) = self.fields.get(action) {
            return Some(value);
        }
        // A label that is not there is the empty string, as in Go.
        let label = |name: &str| self.labels.get(name).map_or("", String::as_str);
        let by_index = action.strip_prefix("index .Service.Labels ").map(str::trim);
        if let Some(name) = by_index.and_then(|name| name.strip_prefix('"')).and_then(|name| name.strip_suffix('"')) {
            return (!name.contains(['"', '\\'])).then(|| label(name));
        }
        let name = action.strip_prefix(".Service.Labels.")?;
        let is_name = !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        is_name.then(|| label(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        let fields = [(".Service.Name", "web".to_owned()), (".Task.Slot", "3".to_owned())];
        Values { fields: fields.into(), labels: [("tier".to_owned(), "front".to_owned())].into() }
    }

    #[test]
    fn fields_are_put_in() {
        let expand = |text: &str| values().expand("env", text).unwrap();
        assert_eq!(expand("A=b"), "A=b");
        assert_eq!(expand("{{.Service.Name}}-{{ .Task.Slot }}"), "web-3");
        assert_eq!(expand("a {{- .Task.Slot -}} b"), "a3b");
        assert_eq!(
            expand(r#"{{.Service.Labels.tier}}{{index .Service.Labels "tier"}}{{.Service.Labels.no}}"#),
            "frontfront"
        );
        assert_eq!(expand("}} {"), "}} {");
    }

    #[test]
    fn more_of_the_language_is_refused_with_the_fields_name() {
        for text in
            ["{{.Task", "{{if .Task.Slot}}", "{{.Task.Labels}}", "{{}}", "{{.Service.Name | upper}}", "{{/* c */}}"]
        {
            let refused = values().expand("env", text).unwrap_err();
            assert_eq!(refused.field, "env", "{text}");
        }
    }
}
