//! The task API: requests are decoded here, and answers encoded; nothing else.
//!
//! Versions 2 and 3 differ in the name of their package alone, so one handler serves both. Work that changes a task runs to
//! its end, also when the client has gone meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
    DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest, PidsResponse,
    ProcessInfo, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse, StateRequest,
    StateResponse, StatsRequest, StatsResponse, Status, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::shim_async::{Task as Api, create_task};
use protobuf::{EnumOrUnknown, MessageField};
use ttrpc::r#async::{Service, TtrpcContext};

use crate::error::{Error, Result};
use crate::node::Node;
use crate::options::Options;
use crate::process::{Exit, Phase};
use crate::sandbox::SandboxService;
use crate::serve::End;
use crate::stdio::Streams;
use crate::task::{Request, Task, blocking};
use crate::tasks::{Shared, Tasks};
use crate::{clock, events, metrics, node, sandbox};

const V3: &str = "containerd.task.v3.Task";
const V2: &str = "containerd.task.v2.Task";

#[derive(Clone)]
pub(crate) struct TaskService {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
    node: Arc<Node>,
    end: Arc<End>,
}

/// Everything that is served, by the names of the services.
pub(crate) fn services(
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
    node: Arc<Node>,
    end: Arc<End>,
) -> HashMap<String, Service> {
    let pod = SandboxService { pod: shared.pod.clone(), tasks: tasks.clone(), end: end.clone() };
    let nodes = node::service(node.clone());
    let service = Arc::new(TaskService { shared, tasks, node, end });
    let mut services = create_task(service.clone());
    let renamed = create_task(service).remove(V3).map(|service| (V2.to_owned(), service));
    services.extend(renamed);
    services.extend(sandbox::service(pod));
    services.extend(nodes);
    services
}

/// Runs to the end, whatever becomes of the request.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> ttrpc::Result<T> {
    let result = tokio::spawn(work).await.map_err(|error| Error::system("run a request", error))?;
    Ok(result?)
}

#[async_trait]
impl Api for TaskService {
    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> ttrpc::Result<CreateTaskResponse> {
        let (shared, tasks) = (self.shared.clone(), self.tasks.clone());
        detached(async move {
            let options = Options::decode(request.options.as_ref())?;
            let Some(options) = options else {
                let url = request.options.type_url.clone();
                return Err(Error::invalid(format!("options of the type {url} are unknown to this shim")));
            };
            let claim = tasks.claim(&request.id)?;
            let request = Request {
                id: request.id,
                bundle: request.bundle.into(),
                rootfs: request.rootfs,
                streams: Streams {
                    terminal: request.terminal,
                    stdin: request.stdin,
                    stdout: request.stdout,
                    stderr: request.stderr,
                    lasting: None,
                },
                options,
                checkpoint: Some(request.checkpoint).filter(|path| !path.is_empty()).map(Into::into),
                sandbox: String::new(),
                pod: None,
                start: false,
            };
            let task = Task::create(shared, request).await?;
            let pid = task.init.pid();
            claim.made(task);
            Ok(CreateTaskResponse { pid, ..CreateTaskResponse::default() })
        })
        .await
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        let task = self.tasks.get(&request.id)?;
        let pid = detached(async move { task.start(&request.exec_id).await }).await?;
        Ok(StartResponse { pid, ..StartResponse::default() })
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        let tasks = self.tasks.clone();
        let (pid, exit) = detached(async move {
            // containerd deletes what a Create was to make that it gave up, and does not come again: this waits for it.
            tasks.settled(&request.id).await;
            let task = tasks.get(&request.id)?;
            if !request.exec_id.is_empty() {
                return task.delete_exec(&request.exec_id).await;
            }
            let deleted = task.delete().await?;
            tasks.remove(&request.id);
            Ok(deleted)
        })
        .await?;
        Ok(DeleteResponse {
            pid,
            exit_status: exit.status,
            exited_at: clock::timestamp(exit.at),
            ..DeleteResponse::default()
        })
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        let task = self.tasks.get(&request.id)?;
        let spec = serde_json::from_slice(&request.spec.value)
            .map_err(|error| Error::invalid(format!("the process of exec {}: {error}", request.exec_id)))?;
        let streams = Streams {
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            lasting: None,
        };
        task.add_exec(&request.exec_id, streams, spec)?;
        Ok(Empty::default())
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        let task = self.tasks.get(&request.id)?;
        let process = task.process(&request.exec_id)?;
        let paused = task.is_paused();
        let (status, exit) = match process.phase() {
            Phase::Stopped(exit) => (Status::STOPPED, Some(exit)),
            _ if paused => (Status::PAUSED, None),
            Phase::Created => (Status::CREATED, None),
            Phase::Running => (Status::RUNNING, None),
        };
        let streams = &process.streams;
        Ok(StateResponse {
            id: request.id,
            bundle: task.bundle.display().to_string(),
            pid: process.pid(),
            status: EnumOrUnknown::new(status),
            stdin: streams.stdin.clone(),
            stdout: streams.stdout.clone(),
            stderr: streams.stderr.clone(),
            terminal: streams.terminal,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.map_or_else(MessageField::none, |exit| clock::timestamp(exit.at)),
            exec_id: request.exec_id,
            ..StateResponse::default()
        })
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let process = self.tasks.get(&request.id)?.process(&request.exec_id)?;
        let Exit { status, at } = process.ended().await;
        Ok(WaitResponse { exit_status: status, exited_at: clock::timestamp(at), ..WaitResponse::default() })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        let task = self.tasks.get(&request.id)?;
        detached(async move { task.kill(&request.exec_id, request.signal as i32, request.all).await }).await?;
        Ok(Empty::default())
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> ttrpc::Result<Empty> {
        let task = self.tasks.get(&request.id)?;
        detached(async move { task.pause().await }).await?;
        Ok(Empty::default())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> ttrpc::Result<Empty> {
        let task = self.tasks.get(&request.id)?;
        detached(async move { task.resume().await }).await?;
        Ok(Empty::default())
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        let task = self.tasks.get(&request.id)?;
        let (runtime, id) = (task.runtime.clone(), request.id);
        let mut pids = blocking(move || Ok(runtime.processes(&id)?)).await?;
        if pids.is_empty() {
            // It has ended and waits for Delete, as a zombie would. A containerd 2 that was away meanwhile takes a shim
            // without pids for one that was forgotten, and deletes the task with its exit status unread.
            pids.push(task.init.pid() as i32);
        }
        let details = task.exec_pids();
        let processes = pids.into_iter().map(|pid| process_info(pid as u32, &details)).collect::<Result<_>>()?;
        Ok(PidsResponse { processes, ..PidsResponse::default() })
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> ttrpc::Result<Empty> {
        let process = self.tasks.get(&request.id)?.process(&request.exec_id)?;
        process.resize(request.width, request.height)?;
        Ok(Empty::default())
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        let process = self.tasks.get(&request.id)?.process(&request.exec_id)?;
        if request.stdin {
            process.close_stdin();
        }
        Ok(Empty::default())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let task = self.tasks.get(&request.id)?;
        let json = request.resources.into_option().unwrap_or_default().value;
        detached(async move { task.update(json).await }).await?;
        Ok(Empty::default())
    }

    async fn checkpoint(&self, _: &TtrpcContext, request: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        let task = self.tasks.get(&request.id)?;
        detached(async move { task.checkpoint(request.path, request.options.as_ref()).await }).await?;
        Ok(Empty::default())
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let task = self.tasks.get(&request.id)?;
        let stats = blocking(move || metrics::of(&task.runtime, &task.id)).await?;
        Ok(StatsResponse { stats: MessageField::some(stats), ..StatsResponse::default() })
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        // An unknown id is no error: so a shim is asked for its pid.
        let task_pid = self.tasks.get(&request.id).map_or(0, |task| task.init.pid());
        Ok(ConnectResponse { shim_pid: std::process::id(), task_pid, ..ConnectResponse::default() })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        if self.tasks.is_empty() && self.shared.sandbox().is_none() && self.node.is_empty() {
            self.end.tell();
        }
        Ok(Empty::default())
    }
}

/// A pid; for an exec's own process, with the exec's id.
fn process_info(pid: u32, execs: &HashMap<u32, String>) -> Result<ProcessInfo> {
    let info = match execs.get(&pid) {
        None => MessageField::none(),
        Some(exec_id) => {
            let details = ProcessDetails { exec_id: exec_id.clone(), ..ProcessDetails::default() };
            let any = events::any("containerd.runc.v1.ProcessDetails", &details);
            MessageField::some(any.map_err(|error| Error::system("encode a process", error))?)
        }
    };
    Ok(ProcessInfo { pid, info, ..ProcessInfo::default() })
}
