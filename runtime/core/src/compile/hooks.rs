//! Hooks (runtime-spec, "POSIX-platform Hooks").

use std::path::PathBuf;

use flint_init::plan::{Hook as InitHook, HookStage, Range, Slot, Step};
use oci_spec::runtime::Hook;

use super::Compiler;
use super::annotations::Annotations;
use super::process::Program;
use crate::plan::{HostHook, HostHooks, SlotSource};
use crate::{Error, Result};

/// Checks what is common to all hooks; the timeout in seconds.
fn check(stage: &str, index: usize, hook: &Hook) -> Result<Option<u32>> {
    if !hook.path().is_absolute() {
        return Err(Error::invalid(format!(
            "hooks.{stage}[{index}]: the path {} must be absolute",
            hook.path().display()
        )));
    }
    match hook.timeout() {
        None => Ok(None),
        Some(seconds) => u32::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Some).ok_or_else(|| {
            Error::invalid(format!("hooks.{stage}[{index}]: the timeout {seconds} must be more than 0 seconds"))
        }),
    }
}

pub(super) fn host_hooks(stage: &str, hooks: Option<&Vec<Hook>>, annotations: &Annotations) -> Result<Vec<HostHook>> {
    let mut compiled = Vec::new();
    for (index, hook) in hooks.into_iter().flatten().enumerate() {
        let texts = hook.args().iter().flatten().chain(hook.env().iter().flatten()).map(String::as_bytes);
        if texts.chain([hook.path().as_os_str().as_encoded_bytes()]).any(|text| text.contains(&0)) {
            return Err(Error::invalid(format!("hooks.{stage}[{index}]: a string has a NUL byte")));
        }
        compiled.push(HostHook {
            timeout: check(stage, index, hook)?,
            path: hook.path().clone(),
            arguments: hook.args().clone().unwrap_or_default(),
            environment: hook.env().clone(),
            stdout: annotations.hooks_stdout.clone(),
            stderr: annotations.hooks_stderr.clone(),
        });
    }
    Ok(compiled)
}

impl Compiler<'_> {
    pub(super) fn host_hooks(&self) -> Result<HostHooks> {
        let Some(hooks) = self.spec.hooks() else { return Ok(HostHooks::default()) };
        #[allow(deprecated, reason = "prestart is still used")]
        let prestart = hooks.prestart().as_ref();
        Ok(HostHooks {
            prestart: host_hooks("prestart", prestart, &self.annotations)?,
            create_runtime: host_hooks("createRuntime", hooks.create_runtime().as_ref(), &self.annotations)?,
            poststart: host_hooks("poststart", hooks.poststart().as_ref(), &self.annotations)?,
            poststop: host_hooks("poststop", hooks.poststop().as_ref(), &self.annotations)?,
        })
    }

    pub(super) fn create_container_hooks(&mut self) -> Result<()> {
        let hooks = self.spec.hooks().as_ref().and_then(|hooks| hooks.create_container().as_ref());
        self.init_hooks("createContainer", HookStage::CreateContainer, hooks, None)
    }

    /// They run in the container as its program will: as its user, with its capabilities and under its filter, and with
    /// its environment when they have none of their own, as under runc.
    pub(super) fn start_container_hooks(&mut self, program: Program) -> Result<()> {
        let hooks = self.spec.hooks().as_ref().and_then(|hooks| hooks.start_container().as_ref());
        self.init_hooks("startContainer", HookStage::StartContainer, hooks, Some(program.environment))
    }

    fn init_hooks(
        &mut self,
        name: &str,
        stage: HookStage,
        hooks: Option<&Vec<Hook>>,
        inherited: Option<Range>,
    ) -> Result<()> {
        for (index, hook) in hooks.into_iter().flatten().enumerate() {
            let timeout = check(name, index, hook)?.unwrap_or(0);
            let field = format!("hooks.{name}[{index}]");
            let path = hook.path().as_os_str().as_encoded_bytes();
            let no_arguments = vec![hook.path().to_string_lossy().into_owned()];
            let arguments = hook.args().as_ref().filter(|arguments| !arguments.is_empty()).unwrap_or(&no_arguments);
            let own = hook.env().as_deref().unwrap_or(&[]);
            let environment = match inherited {
                Some(environment) if own.is_empty() => environment,
                _ => self.tables.list(&format!("{field}.env"), own, false)?,
            };
            let hook = InitHook {
                stage,
                index: index as u16,
                path: self.tables.path(&field, path)?,
                arguments: self.tables.list(&format!("{field}.args"), arguments, false)?,
                environment,
                timeout,
                state: self.tables.slot(SlotSource::HookState),
                stdout: self.hook_output(self.annotations.hooks_stdout.clone()),
                stderr: self.hook_output(self.annotations.hooks_stderr.clone()),
            };
            self.tables.push(Step::RunHook(hook));
        }
        Ok(())
    }

    fn hook_output(&mut self, path: Option<PathBuf>) -> Option<Slot> {
        path.map(|path| self.tables.slot(SlotSource::HookOutput { path }))
    }
}
