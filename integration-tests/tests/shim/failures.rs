//! What fails leaves nothing: no descriptor, mount, cgroup, process.

use std::fs;
use std::path::{Path, PathBuf};

use containerd_shim_protos::api::{CreateTaskRequest, CreateTaskResponse, Status};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::Code;
use containerd_shim_protos::types::mount::Mount;
use integration_tests::{Case, Fifo, Shim, Streams, refused, shim_case, shim_command, wait_until, write_program};

/// How many descriptors a process has.
fn fds(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").count()
}

#[test]
fn a_failed_create_leaves_nothing() {
    let Some((case, program, events, _server)) = shim_case() else { return };
    let id = case.id("a");
    let bundle = case.bundle().args(&["no-such-program"]);
    let shim = Shim::start(&case, &program, &bundle, &id, &events);
    let pid = shim.pid();
    let before = fds(pid);
    for _ in 0..3 {
        let out = Fifo::new(&case, &format!("out{}", fs::read_dir(case.path()).unwrap().count()));
        let read = out.read_all();
        let (_, text) = refused(shim.create(&id, bundle.path(), &Streams { stdout: out.path(), ..Streams::default() }));
        assert!(text.contains("executable file not found in $PATH"), "{text}");
        read.join().unwrap();
        assert_eq!(refused(shim.state(&id, "")).0, Code::NOT_FOUND);
    }
    wait_until("its descriptors are closed", || fds(pid) <= before + 1);
    assert!(events.of(&id).is_empty());
    shim.shutdown();
    case.finish();
}

fn bind(source: &Path, target: &str) -> Mount {
    Mount {
        type_: "bind".to_owned(),
        source: source.display().to_string(),
        target: target.to_owned(),
        options: vec!["rbind".to_owned()],
        ..Mount::default()
    }
}

/// A bundle whose root filesystem Create has to mount.
fn bare_bundle(case: &Case, name: &str, config: &Path) -> PathBuf {
    let folder = case.path().join(name);
    fs::create_dir(&folder).expect("make a bundle");
    fs::copy(config.join("config.json"), folder.join("config.json")).expect("copy config.json");
    folder
}

/// A mount that cannot be made, a container that cannot be, after mounts that were.
#[test]
fn a_failed_create_unmounts_what_it_mounted() {
    let Some((case, program, events, _server)) = shim_case() else { return };
    let id = case.id("a");
    let (good, wrong) = (case.bundle().forever(), case.bundle().args(&["no-such-program"]));
    let shim = Shim::start(&case, &program, &good, &id, &events);
    let rootfs = good.rootfs();
    let lost = bind(&case.path().join("nowhere"), "tmp");
    let create = |name: &str, config: PathBuf, mounts: Vec<Mount>| {
        let folder = bare_bundle(&case, name, &config);
        let request = CreateTaskRequest { rootfs: mounts, ..shim.create_request(&id, &folder, &Streams::default()) };
        let (_, text) = refused(shim.call::<CreateTaskResponse>("Create", &request));
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
        assert!(!mounts.contains(case.prefix()), "{text}: {mounts}");
        text
    };
    let text = create("lost", good.write(), vec![bind(&rootfs, ""), lost]);
    assert!(text.contains("mount #1 of the root filesystem"), "{text}");
    let text = create("wrong", wrong.write(), vec![bind(&rootfs, ""), bind(&rootfs.join("var"), "tmp")]);
    assert!(text.contains("executable file not found in $PATH"), "{text}");
    shim.shutdown();
    case.finish();
}

/// The program has gone between Create and Start: the task has stopped, and is deleted as any.
#[test]
fn a_failed_start_is_deleted_and_leaves_nothing() {
    let Some((case, program, events, _server)) = shim_case() else { return };
    let bundle = case.bundle().args(&["/var/program"]);
    let program_is = |text: &str| {
        write_program(&bundle.rootfs().join("var/program"), text);
    };
    let shim = Shim::start(&case, &program, &bundle, &case.id("first"), &events);
    let pid = shim.pid();
    let before = fds(pid);
    for number in 0..3 {
        let id = case.id(&format!("a{number}"));
        program_is("#!/bin/sh\n");
        let out = Fifo::new(&case, &format!("out{number}"));
        let read = out.read_all();
        shim.create(&id, bundle.path(), &Streams { stdout: out.path(), ..Streams::default() }).expect("create");
        program_is("#!/no/such/interpreter\n");
        let (_, text) = refused(shim.run(&id, ""));
        assert!(text.contains("no such file or directory"), "{text}");
        assert!(shim.wait(&id, "").is_ok());
        assert_eq!(shim.state(&id, "").expect("state").status.unwrap(), Status::STOPPED);
        shim.delete(&id, "").expect("delete");
        read.join().unwrap();
        events.wait_for(&id, &["create", "exit", "delete"]);
    }
    wait_until("its descriptors are closed", || fds(pid) <= before + 1);
    shim.shutdown();
    case.finish();
}

/// Unknown ones are nothing to `start`, and wrong at Create.
#[test]
fn options_of_another_runtime_are_refused_by_create_alone() {
    let Some((case, program, events, _server)) = shim_case() else { return };
    let (id, bundle) = (case.id("a"), case.bundle().forever());
    let strange = Any { type_url: "kata.v9.Options".to_owned(), value: b"\x0a\x01x".to_vec(), ..Any::default() };
    let input = containerd_shim_protos::protobuf::Message::write_to_bytes(&strange).expect("encode");
    let started = shim_command(&case, &program, &bundle.write(), &id, "start").input(input);
    let started = started.env("TTRPC_ADDRESS", events.address()).output().ok();
    assert_eq!(started.stderr, "");
    let shim = Shim::connect(&case, started.stdout.trim());
    let request = CreateTaskRequest {
        options: MessageField::some(strange),
        ..shim.create_request(&id, bundle.path(), &Streams::default())
    };
    assert_eq!(refused(shim.call::<CreateTaskResponse>("Create", &request)).0, Code::INVALID_ARGUMENT);
    shim.shutdown();
    case.finish();
}

/// containerd reads both of them to their end.
#[test]
fn a_shim_keeps_no_pipe_of_who_called_start_and_takes_a_dead_ones_place() {
    use std::os::unix::fs::MetadataExt as _;
    let Some((case, program, events, _server)) = shim_case() else { return };
    let (id, bundle) = (case.id("a"), case.bundle().forever());
    let folder = bundle.write();
    let (mut addresses, mut shims) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let (out, to_out) = std::io::pipe().expect("a pipe");
        let (err, to_err) = std::io::pipe().expect("a pipe");
        let mut start = std::process::Command::new(&program);
        start
            .args(["-namespace", &integration_tests::shim_namespace(&case), "-id", &id])
            .args(["-address", &case.path().join("containerd.sock").display().to_string()])
            .args(["-publish-binary", "/bin/false", "start"])
            .env("TTRPC_ADDRESS", events.address())
            .current_dir(&folder)
            .stdin(std::process::Stdio::null())
            .stdout(to_out)
            .stderr(to_err);
        assert!(start.status().expect("run start").success());
        drop(start);
        let address = fs::read_to_string(folder.join("address")).expect("read the address");
        let shim = Shim::connect(&case, &address);
        let pid = shim.pid();
        let [out, err] = [out, err].map(|pipe| fs::File::from(std::os::fd::OwnedFd::from(pipe)));
        let ours = [&out, &err].map(|pipe| format!("pipe:[{}]", pipe.metadata().expect("stat").ino()));
        let links = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").flatten();
        let targets: Vec<_> = links.filter_map(|link| fs::read_link(link.path()).ok()).collect();
        assert!(
            !targets.iter().any(|target| ours.iter().any(|pipe| target.as_os_str() == pipe.as_str())),
            "{targets:?}"
        );
        let [out, err] = [out, err].map(|pipe| std::io::read_to_string(pipe).expect("read an answer"));
        assert_eq!((out, err.as_str()), (address.clone(), ""));
        shim.die(pid);
        assert!(shim.socket().exists(), "it was killed");
        addresses.push(address);
        shims.push(pid);
    }
    assert!(addresses[0] == addresses[1] && shims[0] != shims[1]);
    let output = integration_tests::shim_delete(&case, &program, &folder, &id);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    case.finish();
}
