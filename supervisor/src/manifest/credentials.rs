//! Names and passwords for registries, from Secrets (imagePullSecrets).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flint_bundle::Reference;
use serde_json::Value;

use super::context::{Context, From};
use super::fields::LOCAL_OBJECT_REFERENCE;
use super::reading::Fields;

/// `USER:PASSWORD` by registry.
pub(super) struct Credentials(Vec<(String, String)>);

impl Credentials {
    pub(super) fn read(spec: &Fields<'_>, namespace: &str, context: &Context<'_>) -> Self {
        let mut found = Vec::new();
        for reference in spec.each("imagePullSecrets", &LOCAL_OBJECT_REFERENCE) {
            let Some(name) = reference.needed("name") else { continue };
            let Some(secret) = context.data(From::Secret, namespace, name, false, &reference.at) else { continue };
            let (key, is_new) = match secret.kind.as_str() {
                "kubernetes.io/dockerconfigjson" => (".dockerconfigjson", true),
                "kubernetes.io/dockercfg" => (".dockercfg", false),
                _ => {
                    reference.refuse("name", "is of no type that has passwords of registries");
                    continue;
                }
            };
            let json = secret.entries.get(key).and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok());
            let registries = json.as_ref().and_then(|json| if is_new { json.get("auths") } else { Some(json) });
            match registries.and_then(Value::as_object) {
                Some(registries) => found.extend(
                    registries.iter().filter_map(|(name, entry)| Some((host_of(name).to_owned(), login(entry)?))),
                ),
                None => reference.refuse("name", format!("has no {key} in the form of docker's configuration")),
            }
        }
        Self(found)
    }

    /// Those for an image's registry.
    pub(super) fn of(&self, image: &str) -> Option<String> {
        let reference: Reference = image.parse().ok()?;
        let wanted = host_of(reference.registry());
        self.0.iter().find(|(host, _)| host == wanted).map(|(_, login)| login.clone())
    }
}

/// docker writes `https://index.docker.io/v1/` for what images call docker.io.
fn host_of(registry: &str) -> &str {
    let name = registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://")).unwrap_or(registry);
    let name = name.split('/').next().unwrap_or(name);
    if matches!(name, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { name }
}

fn login(entry: &Value) -> Option<String> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str);
    if let Some(auth) = text("auth").filter(|auth| !auth.is_empty()) {
        let login = String::from_utf8(STANDARD.decode(auth).ok()?).ok()?;
        return login.contains(':').then_some(login);
    }
    Some(format!("{}:{}", text("username")?, text("password")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_has_several_names() {
        let credentials =
            Credentials(vec![("docker.io".to_owned(), "a:b".to_owned()), ("r:5000".to_owned(), "c:d".to_owned())]);
        assert_eq!(host_of("https://index.docker.io/v1/"), "docker.io");
        assert_eq!(credentials.of("nginx").as_deref(), Some("a:b"));
        assert_eq!(credentials.of("docker.io/library/nginx:1").as_deref(), Some("a:b"));
        assert_eq!(credentials.of("r:5000/x/y").as_deref(), Some("c:d"));
        assert_eq!(credentials.of("other.example/x"), None);
    }

    #[test]
    fn logins_come_in_two_forms() {
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(login(&json(r#"{"auth": "YTpi"}"#)).as_deref(), Some("a:b"));
        assert_eq!(login(&json(r#"{"username": "a", "password": "b"}"#)).as_deref(), Some("a:b"));
        assert_eq!(login(&json(r#"{"auth": "!"}"#)), None);
    }
}
