//! Variables of a container.

use std::collections::BTreeMap;

use super::context::{Context, From};
use super::downward::Myself;
use super::expansion::{expand, names};
use super::fields::{
    ENV_FROM_SOURCE, ENV_VAR, ENV_VAR_SOURCE, KEY_SELECTOR, OBJECT_FIELD_SELECTOR, OPTIONAL_REFERENCE,
    RESOURCE_FIELD_SELECTOR,
};
use super::names::is_variable;
use super::reading::{Fields, shortened};
use crate::desired::EnvVar;

/// Variables in the order in which they were first named; one that is given again has its last value.
#[derive(Default)]
pub(super) struct Environment {
    variables: Vec<EnvVar>,
    places: BTreeMap<String, usize>,
}

impl Environment {
    pub(super) fn read(container: &Fields<'_>, name: &str, myself: &Myself<'_>) -> Self {
        let mut environment = Self::default();
        for source in container.each("envFrom", &ENV_FROM_SOURCE) {
            environment.take_all(&source, myself);
        }
        for variable in container.each("env", &ENV_VAR) {
            environment.take(&variable, name, myself);
        }
        environment
    }

    /// `$(NAME)` in a text, and whether what was put in is a secret.
    pub(super) fn expand(&self, text: &str) -> (String, bool) {
        let found = |name: &str| self.places.get(name).map(|place| &self.variables[*place]);
        let is_secret = names(text).iter().any(|name| found(name).is_some_and(|variable| variable.is_secret));
        (expand(text, |name| found(name).map(|variable| variable.value.as_str())), is_secret)
    }

    pub(super) fn into_variables(self) -> Vec<EnvVar> {
        self.variables
    }

    fn set(&mut self, name: &str, value: String, is_secret: bool) {
        let variable = EnvVar { name: name.to_owned(), value, is_secret };
        if let Some(place) = self.places.get(name) {
            self.variables[*place] = variable;
        } else {
            self.places.insert(name.to_owned(), self.variables.len());
            self.variables.push(variable);
        }
    }

    fn take_all(&mut self, source: &Fields<'_>, myself: &Myself<'_>) {
        let prefix = source.string("prefix").unwrap_or_default();
        let of = |name, from| source.fields(name, &OPTIONAL_REFERENCE).map(|reference| (reference, from));
        let ((Some((reference, from)), None) | (None, Some((reference, from)))) =
            (of("configMapRef", From::ConfigMap), of("secretRef", From::Secret))
        else {
            return source.at.refuse("needs one of configMapRef and secretRef");
        };
        let optional = reference.boolean("optional").unwrap_or(false);
        let Some(name) = reference.needed("name") else { return };
        let namespace = &myself.metadata.namespace;
        let Some(data) = myself.context.data(from, namespace, name, optional, &reference.at.below("name")) else {
            return;
        };
        for (key, bytes) in &data.entries {
            let variable = format!("{prefix}{key}");
            match std::str::from_utf8(bytes) {
                Ok(text) if is_variable(&variable) && !text.contains('\0') => {
                    self.set(&variable, text.to_owned(), from == From::Secret);
                }
                Ok(_) | Err(_) => source.at.refuse(format!(
                    "key {key} of {name} cannot be a variable: variables have no NUL bytes, and are UTF-8; use a volume"
                )),
            }
        }
    }

    fn take(&mut self, variable: &Fields<'_>, container: &str, myself: &Myself<'_>) {
        let Some(name) = variable.needed("name") else { return };
        if !is_variable(name) {
            return variable.refuse("name", "is made of printable ASCII without =");
        }
        let given = variable.string("value");
        let Some(source) = variable.fields("valueFrom", &ENV_VAR_SOURCE) else {
            let (value, is_secret) = self.expand(given.unwrap_or_default());
            return self.set(name, value, is_secret);
        };
        if given.is_some() {
            return variable.refuse("valueFrom", "there is a value already");
        }
        let values: Vec<Option<(String, bool)>> = [
            source.fields("fieldRef", &OBJECT_FIELD_SELECTOR).map(|reference| plain(myself.variable(&reference))),
            source
                .fields("resourceFieldRef", &RESOURCE_FIELD_SELECTOR)
                .map(|reference| plain(myself.resource(&reference, Some(container)))),
            source
                .fields("configMapKeyRef", &KEY_SELECTOR)
                .map(|reference| key_of(&reference, From::ConfigMap, myself)),
            source.fields("secretKeyRef", &KEY_SELECTOR).map(|reference| key_of(&reference, From::Secret, myself)),
        ]
        .into_iter()
        .flatten()
        .collect();
        match <[Option<(String, bool)>; 1]>::try_from(values) {
            Ok([Some((value, is_secret))]) => self.set(name, value, is_secret),
            // An optional one that is missing: the variable is not there. Or its problem was told.
            Ok([None]) => {}
            Err(_) => source.at.refuse("needs one of configMapKeyRef, fieldRef, resourceFieldRef and secretKeyRef"),
        }
    }
}

fn plain(value: Option<String>) -> Option<(String, bool)> {
    value.map(|value| (value, false))
}

/// The text of a key; none if it is missing, which is a problem unless it is optional.
fn key_of(reference: &Fields<'_>, from: From, myself: &Myself<'_>) -> Option<(String, bool)> {
    let optional = reference.boolean("optional").unwrap_or(false);
    let (name, key) = (reference.needed("name")?, reference.needed("key")?);
    let context: &Context<'_> = myself.context;
    let data = context.data(from, &myself.metadata.namespace, name, optional, &reference.at.below("name"))?;
    let Some(bytes) = data.entries.get(key) else {
        if !optional {
            reference.refuse("key", format!("{name} has no key {:?}", shortened(key)));
        }
        return None;
    };
    match String::from_utf8(bytes.clone()) {
        Ok(text) if !text.contains('\0') => Some((text, from == From::Secret)),
        Ok(_) | Err(_) => {
            reference.refuse("key", "is no text without NUL bytes, which a variable needs: use a volume");
            None
        }
    }
}
