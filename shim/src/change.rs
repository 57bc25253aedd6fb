//! Changes of a running task other than its life: its limits, and checkpoints of it.

use std::collections::HashMap;
use std::time::Duration;

use containerd_shim_protos::events::task::TaskCheckpointed;
use containerd_shim_protos::shim::oci::CheckpointOptions as Requested;
use flint_runtime::cgroup::parse_resources;
use flint_runtime::{CgroupsMode, CheckpointOptions, CriuOptions};
use protobuf::Message as _;
use protobuf::well_known_types::any::Any;

use crate::error::{Error, Result};
use crate::log;
use crate::task::{Task, blocking};

/// How long a container that CRIU has ended may take to be seen so.
const END: Duration = Duration::from_secs(30);

impl Task {
    /// Sets new limits, as JSON of runtime-spec's LinuxResources.
    ///
    /// # Errors
    ///
    /// Malformed JSON; limits that the kernel refuses: then none is changed.
    pub(crate) async fn update(&self, json: Vec<u8>) -> Result<()> {
        let _changing = self.changing.lock().await;
        let (runtime, id) = (self.runtime.clone(), self.id.clone());
        let warnings = blocking(move || Ok(runtime.update(&id, &parse_resources(&json)?)?)).await?;
        for warning in warnings {
            log::warn(&format!("{}: {warning}", self.id));
        }
        Ok(())
    }

    /// Writes the container to a folder; it goes on unless the options say that it ends.
    ///
    /// # Errors
    ///
    /// CRIU's, with the line of its log that tells why; the log stays in the working folder.
    pub(crate) async fn checkpoint(&self, path: String, options: Option<&Any>) -> Result<()> {
        let changing = self.changing.lock().await;
        // Its end, if that is asked for, is told after the checkpoint.
        let starting = self.init.starting.lock().await;
        let requested = match options.filter(|any| !any.value.is_empty()) {
            Some(any) => Requested::parse_from_bytes(&any.value)
                .map_err(|error| Error::invalid(format!("the options of a checkpoint: {error}")))?,
            None => Requested::default(),
        };
        let image_path = [path.clone(), requested.image_path.clone()]
            .into_iter()
            .find(|path| !path.is_empty())
            .map(Into::into)
            .or_else(|| self.options.criu_image_path.clone())
            .ok_or_else(|| Error::invalid("a checkpoint needs a folder: the request names none"))?;
        let work_path = Some(requested.work_path.clone())
            .filter(|path| !path.is_empty())
            .map(Into::into)
            .or_else(|| self.options.criu_work_path.clone())
            .unwrap_or_else(|| self.bundle.join("work"));
        let options = CheckpointOptions {
            criu: CriuOptions {
                work_path: Some(work_path),
                tcp_established: requested.open_tcp,
                ext_unix_sk: requested.external_unix_sockets,
                shell_job: requested.terminal,
                file_locks: requested.file_locks,
                cgroups_mode: CgroupsMode::parse(&requested.cgroups_mode)?,
                ..self.options.criu(image_path)
            },
            leave_running: !requested.exit,
            ..CheckpointOptions::default()
        };
        let ends = requested.exit;
        let (runtime, id) = (self.runtime.clone(), self.id.clone());
        let warnings = blocking(move || Ok(runtime.checkpoint(&id, options)?)).await?;
        for warning in warnings {
            log::warn(&format!("{}: {warning}", self.id));
        }
        self.shared.events.publish(TaskCheckpointed {
            container_id: self.id.clone(),
            checkpoint: path,
            ..TaskCheckpointed::default()
        });
        drop((starting, changing));
        // Who asked for its end may delete it next. CRIU, which traced it, has heard of that first.
        if ends && tokio::time::timeout(END, self.init.ended()).await.is_err() {
            log::warn(&format!("{} has not ended after its checkpoint", self.id));
        }
        Ok(())
    }

    /// The execs that there are, by the pids of their own processes.
    pub(crate) fn exec_pids(&self) -> HashMap<u32, String> {
        let pids = self.all_execs().into_iter().map(|exec| (exec.pid(), exec.id.clone()));
        pids.filter(|(pid, _)| *pid != 0).collect()
    }
}
