//! Secrets and configs as files in memory: `/run/secrets/NAME`, `/NAME`, or where an absolute name says.

use std::collections::BTreeMap;

use super::{Unmappable, none};
use crate::desired::{Container, Item, Mount, Pod, Propagation, Volume, VolumeSource};
use crate::scheduler::swarm::assignments::Payloads;
use crate::scheduler::swarm::wire::container::{ContainerSpec, Reference};
use crate::scheduler::swarm::wire::task::PayloadSpec;

const SECRETS: &str = "/run/secrets";

pub(super) fn add(
    spec: &ContainerSpec,
    payloads: &Payloads,
    pod: &mut Pod,
    container: &mut Container,
) -> Result<(), Unmappable> {
    let secrets = Kind { field: "secrets", of: &payloads.secrets, default_folder: SECRETS };
    let configs = Kind { field: "configs", of: &payloads.configs, default_folder: "" };
    secrets.add(&spec.secrets, pod, container)?;
    configs.add(&spec.configs, pod, container)
}

struct Kind<'a> {
    field: &'static str,
    of: &'a BTreeMap<String, PayloadSpec>,
    default_folder: &'static str,
}

impl Kind<'_> {
    /// One volume for all, each file mounted by itself: it may be anywhere, and hides nothing beside it.
    fn add(&self, references: &[Reference], pod: &mut Pod, container: &mut Container) -> Result<(), Unmappable> {
        if references.is_empty() {
            return Ok(());
        }
        let mut items = Vec::new();
        for (index, reference) in references.iter().enumerate() {
            let (path, item) = self.file(reference, index)?;
            container.mounts.push(Mount {
                volume: self.field.to_owned(),
                path,
                sub_path: Some(item.path.clone()),
                read_only: true,
                propagation: Propagation::Private,
            });
            items.push(item);
        }
        pod.volumes.push(Volume { name: self.field.to_owned(), source: VolumeSource::Secret(items) });
        Ok(())
    }

    fn file(&self, reference: &Reference, index: usize) -> Result<(String, Item), Unmappable> {
        let field = |name: &str| format!("{}.{name}", self.field);
        let name = &reference.name;
        none(reference.runtime.is_none(), &field("runtime"), "it is of Windows")?;
        let Some(file) = &reference.file else {
            return Err(Unmappable::new(field("file"), format!("{name} says no file")));
        };
        let Some(payload) = self.of.get(&reference.id) else {
            return Err(Unmappable::new(self.field, format!("{name} was not sent by the manager")));
        };
        let templating = payload.templating.as_ref().is_none_or(|driver| driver.name.is_empty());
        none(templating, &field("templating"), "flintd expands no templates in their contents")?;
        let number = |text: &str, which: &str| match text {
            "" => Ok(0),
            text => text.parse().map_err(|_| Unmappable::new(field(which), format!("{text:?} is no number"))),
        };
        let path = if file.name.starts_with('/') {
            file.name.clone()
        } else {
            format!("{}/{}", self.default_folder, file.name)
        };
        none(!path.split('/').any(|part| part == ".."), &field("file.name"), "it goes up")?;
        let item = Item {
            path: index.to_string(),
            content: payload.data.clone(),
            mode: file.mode & 0o777,
            uid: number(&file.uid, "file.uid")?,
            gid: number(&file.gid, "file.gid")?,
        };
        Ok((path, item))
    }
}
