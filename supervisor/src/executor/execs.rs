//! Programs beside a container's init, by the task API.

use anyhow::Result;
use containerd_shim_protos::api::{
    CloseIORequest, DeleteRequest, ExecProcessRequest, ResizePtyRequest, StartRequest, StatsRequest, WaitRequest,
};
use protobuf::MessageField;
use protobuf::well_known_types::any::Any;

use super::Executor;
use super::calls::{patient, told};
use crate::node::Fifos;

impl Executor {
    /// Adds and starts a program (`process`: JSON of the runtime-spec).
    ///
    /// # Errors
    ///
    /// It cannot be started; nothing is left then.
    pub(crate) async fn exec(&self, shim: &str, id: &str, exec: &str, process: Vec<u8>, fifos: Fifos) -> Result<u32> {
        let found = self.shim(shim).await?;
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
            value: process,
            ..Any::default()
        };
        let request = ExecProcessRequest {
            id: id.to_owned(),
            exec_id: exec.to_owned(),
            terminal: fifos.terminal,
            stdin: fifos.stdin,
            stdout: fifos.stdout,
            stderr: fifos.stderr,
            spec: MessageField::some(spec),
            ..ExecProcessRequest::default()
        };
        found.task.exec(patient(), &request).await.map_err(told)?;
        let request = StartRequest { id: id.to_owned(), exec_id: exec.to_owned(), ..StartRequest::default() };
        match found.task.start(patient(), &request).await {
            Ok(started) => Ok(started.pid),
            Err(error) => {
                let _ = self.delete_exec(shim, id, exec).await;
                Err(told(error))
            }
        }
    }

    /// Its exit status, once it has ended; none: nobody saw it.
    ///
    /// # Errors
    ///
    /// The shim does not know it any more.
    pub(crate) async fn wait(&self, shim: &str, id: &str, exec: &str) -> Result<Option<u32>> {
        let shim = self.shim(shim).await?;
        let request = WaitRequest { id: id.to_owned(), exec_id: exec.to_owned(), ..WaitRequest::default() };
        // However long it takes.
        let status = shim.task.wait(ttrpc::context::with_timeout(0), &request).await.map_err(told)?.exit_status;
        Ok(super::events::known(status))
    }

    /// Forgets a program that has ended.
    ///
    /// # Errors
    ///
    /// It runs still.
    pub(crate) async fn delete_exec(&self, shim: &str, id: &str, exec: &str) -> Result<()> {
        let shim = self.shim(shim).await?;
        let request = DeleteRequest { id: id.to_owned(), exec_id: exec.to_owned(), ..DeleteRequest::default() };
        shim.task.delete(patient(), &request).await.map_err(told)?;
        Ok(())
    }

    /// Tells a terminal its size.
    ///
    /// # Errors
    ///
    /// The program has ended.
    pub(crate) async fn resize(&self, shim: &str, id: &str, exec: &str, rows: u16, columns: u16) -> Result<()> {
        let shim = self.shim(shim).await?;
        let request = ResizePtyRequest {
            id: id.to_owned(),
            exec_id: exec.to_owned(),
            width: u32::from(columns),
            height: u32::from(rows),
            ..ResizePtyRequest::default()
        };
        shim.task.resize_pty(patient(), &request).await.map_err(told)?;
        Ok(())
    }

    /// Lets go of the writing end of a program's input.
    ///
    /// # Errors
    ///
    /// The program has ended.
    pub(crate) async fn close_stdin(&self, shim: &str, id: &str, exec: &str) -> Result<()> {
        let shim = self.shim(shim).await?;
        let request =
            CloseIORequest { id: id.to_owned(), exec_id: exec.to_owned(), stdin: true, ..CloseIORequest::default() };
        shim.task.close_io(patient(), &request).await.map_err(told)?;
        Ok(())
    }

    /// What a container uses: containerd's message, in an envelope.
    ///
    /// # Errors
    ///
    /// There is no such container.
    pub(crate) async fn stats(&self, shim: &str, id: &str) -> Result<Any> {
        let shim = self.shim(shim).await?;
        let request = StatsRequest { id: id.to_owned(), ..StatsRequest::default() };
        Ok(shim.task.stats(patient(), &request).await.map_err(told)?.stats.into_option().unwrap_or_default())
    }
}
