//! Standard streams that the shim gives: fifos, files, loggers, terminals.

use std::fs;
use std::io::Write as _;

use containerd_shim_protos::api::{Empty, ResizePtyRequest, Status};
use containerd_shim_protos::ttrpc::Code;
use integration_tests::{Case, Fifo, Shim, Streams, refused, shim_case, write_program};
use serde_json::{Value, json};

fn process(script: &str) -> Value {
    json!({"args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}})
}

/// A shim with a running container, in which `test` runs processes.
fn with_container(test: impl FnOnce(&Case, &Shim, &str)) {
    let Some((case, program, events, _server)) = shim_case() else { return };
    let id = case.id("a");
    let bundle = case.bundle().forever();
    let shim = Shim::start(&case, &program, &bundle, &id, &events);
    shim.create(&id, bundle.path(), &Streams::default()).expect("create");
    shim.run(&id, "").expect("start");
    test(&case, &shim, &id);
    shim.kill(&id, "", 9).expect("kill");
    shim.wait(&id, "").expect("wait");
    shim.delete(&id, "").expect("delete");
    shim.shutdown();
    case.finish();
}

/// Adds and starts an exec.
#[track_caller]
fn started(shim: &Shim, id: &str, exec: &str, process: &Value, streams: &Streams) {
    shim.exec(id, exec, process, streams).expect("exec");
    shim.run(id, exec).expect("start");
}

/// The end of an exec, which is removed.
#[track_caller]
fn ended(shim: &Shim, id: &str, exec: &str) {
    assert_eq!(shim.wait(id, exec).expect("wait"), 0);
    shim.delete(id, exec).expect("delete");
}

#[test]
fn an_ordinary_user_opens_its_output_again() {
    with_container(|case, shim, id| {
        let out = Fifo::new(case, "out");
        let read = out.read_all();
        let mut ordinary = process("echo one > /dev/stdout; echo two >> /proc/self/fd/1");
        ordinary["user"] = json!({"uid": 1000, "gid": 1000});
        started(shim, id, "e", &ordinary, &Streams { stdout: out.path(), ..Streams::default() });
        ended(shim, id, "e");
        assert_eq!(read.join().unwrap(), "one\ntwo\n");
    });
}

#[test]
fn the_input_ends_by_close_io_and_not_by_a_client_that_leaves() {
    with_container(|case, shim, id| {
        let (input, out) = (Fifo::new(case, "in"), Fifo::new(case, "out"));
        let read = out.read_all();
        started(
            shim,
            id,
            "e",
            &process("cat"),
            &Streams { stdin: input.path(), stdout: out.path(), ..Streams::default() },
        );
        for text in ["a\n", "b\n"] {
            let mut writer = fs::OpenOptions::new().write(true).open(input.path()).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        assert_eq!(shim.state(id, "e").expect("state").status.unwrap(), Status::RUNNING);
        shim.close_stdin(id, "e").expect("close");
        ended(shim, id, "e");
        assert_eq!(read.join().unwrap(), "a\nb\n");
    });
}

#[test]
fn a_file_is_appended_to() {
    with_container(|case, shim, id| {
        let log = case.path().join("logs/a.log");
        let uri = format!("file://{}", log.display());
        let streams = Streams { stdout: uri.clone(), stderr: uri, ..Streams::default() };
        for exec in ["one", "two"] {
            started(shim, id, exec, &process("echo out; echo err >&2"), &streams);
            ended(shim, id, exec);
        }
        assert_eq!(fs::read_to_string(&log).unwrap(), "out\nerr\nout\nerr\n");
    });
}

/// Descriptor 3 is stdout, 4 stderr, and closing 5 says that it is ready.
#[test]
fn a_logger_takes_both_outputs() {
    with_container(|case, shim, id| {
        let (logger, target) = (case.path().join("logger"), case.path().join("logged"));
        let script = "#!/bin/sh\nexec 5>&-\n{ echo \"$CONTAINER_ID $1 $2\"; cat <&3; cat <&4; } > \"$2\"\n";
        write_program(&logger, script);
        let uri = format!("binary://{}?to={}", logger.display(), target.display());
        let streams = Streams { stdout: uri.clone(), stderr: uri.clone(), ..Streams::default() };
        started(shim, id, "e", &process("echo out; echo err >&2"), &streams);
        ended(shim, id, "e");
        assert_eq!(fs::read_to_string(&target).unwrap(), format!("{id} to {}\nout\nerr\n", target.display()));
        // The second version has to say a word: this one looks as if it had crashed.
        let uri = uri.replace("binary://", "binary-v2://");
        let streams = Streams { stdout: uri.clone(), stderr: uri, ..Streams::default() };
        shim.exec(id, "v2", &process("true"), &streams).expect("exec");
        let (_, why) = refused(shim.run(id, "v2"));
        assert!(why.contains("descriptor 5"), "{why}");
        shim.delete(id, "v2").expect("delete");
        write_program(&logger, script.replace("exec 5>&-", "echo ready >&5; exec 5>&-"));
        started(shim, id, "v2", &process("echo out"), &streams);
        ended(shim, id, "v2");
        assert_eq!(fs::read_to_string(&target).unwrap(), format!("{id} to {}\nout\n", target.display()));
    });
}

#[test]
fn a_terminal_has_a_size_and_passes_on_both_ways() {
    with_container(|case, shim, id| {
        let (input, out) = (Fifo::new(case, "in"), Fifo::new(case, "out"));
        let read = out.read_all();
        let mut terminal = process("read line; stty size; echo \"[$line]\"; tty; seq 5000");
        terminal["terminal"] = json!(true);
        let streams = Streams { terminal: true, stdin: input.path(), stdout: out.path(), ..Streams::default() };
        started(shim, id, "e", &terminal, &streams);
        let (id_of, exec_id) = (id.to_owned(), "e".to_owned());
        let resize = ResizePtyRequest { id: id_of, exec_id, width: 91, height: 17, ..ResizePtyRequest::default() };
        shim.call::<Empty>("ResizePty", &resize).expect("resize");
        fs::OpenOptions::new().write(true).open(input.path()).unwrap().write_all(b"typed\n").unwrap();
        ended(shim, id, "e");
        let text = read.join().unwrap();
        assert!(text.contains("17 91") && text.contains("[typed]") && text.contains("/dev/pts/"), "{text}");
        // The last words, too.
        assert!(text.ends_with("5000\r\n"), "{:?}", text.get(text.len().saturating_sub(40)..));
    });
}

/// Nothing is lost of more than any buffer holds, of an init and of an exec, also when nobody reads at first.
#[test]
fn a_terminals_large_output_is_whole() {
    const LINES: usize = 300_000;
    let Some((case, program, events, _server)) = shim_case() else { return };
    let id = case.id("a");
    let script = format!("seq {LINES}");
    let bundle = case.bundle().shell(&script).edit(json!({"process": {"terminal": true}}));
    let shim = Shim::start(&case, &program, &bundle, &id, &events);
    let whole = (1..=LINES).fold(String::new(), |whole, number| whole + &number.to_string() + "\r\n");
    let [of_init, of_exec] = ["init", "exec"].map(|name| Fifo::new(&case, name));
    shim.create(&id, bundle.path(), &Streams { terminal: true, stdout: of_init.path(), ..Streams::default() })
        .expect("create");
    shim.run(&id, "").expect("start");
    let mut process = process(&script);
    process["terminal"] = json!(true);
    // Written into what nobody reads, until it is full.
    started(&shim, &id, "e", &process, &Streams { terminal: true, stdout: of_exec.path(), ..Streams::default() });
    assert_eq!(shim.state(&id, "e").expect("state").status.unwrap(), Status::RUNNING);
    let read = of_exec.read_all();
    ended(&shim, &id, "e");
    assert!(read.join().unwrap() == whole, "the exec's output is not whole");
    let read = of_init.read_all();
    assert_eq!(shim.wait(&id, "").expect("wait"), 0);
    shim.delete(&id, "").expect("delete");
    assert!(read.join().unwrap() == whole, "the init's output is not whole");
    shim.shutdown();
    case.finish();
}

/// An init of an ordinary user opens what it writes to again, whatever it is.
#[test]
fn an_ordinary_users_init_opens_its_output_again() {
    let Some((case, program, events, _server)) = shim_case() else { return };
    let logger = case.path().join("logger");
    write_program(&logger, "#!/bin/sh\nexec 5>&-\ncat <&3 > \"$1\"\n");
    let lines = case.path().join("lines");
    let shim = Shim::start(&case, &program, &case.bundle(), &case.id("first"), &events);
    for kind in ["fifo", "logger", "terminal"] {
        let terminal = kind == "terminal";
        let script = "echo one > /dev/stdout; echo two >> /proc/self/fd/1; echo three > /dev/stderr";
        let bundle = case
            .bundle()
            .shell(script)
            .edit(json!({"process": {"user": {"uid": 1000, "gid": 1000}, "terminal": terminal}}));
        let fifo = Fifo::new(&case, &format!("out-{kind}"));
        let stdout = match kind {
            "logger" => format!("binary://{}?{}", logger.display(), lines.display()),
            _ => fifo.path(),
        };
        let stderr = if terminal { String::new() } else { stdout.clone() };
        let read = (kind != "logger").then(|| fifo.read_all());
        let id = case.id(kind);
        shim.create(&id, &bundle.write(), &Streams { terminal, stdout, stderr, ..Streams::default() }).expect("create");
        shim.run(&id, "").expect("start");
        assert_eq!(shim.wait(&id, "").expect("wait"), 0, "{kind}");
        shim.delete(&id, "").expect("delete");
        let text = read.map_or_else(|| fs::read_to_string(&lines).unwrap(), |read| read.join().unwrap());
        // A logger has the errors by another descriptor.
        let expected = if kind == "logger" { "one\ntwo\n" } else { "one\ntwo\nthree\n" };
        assert_eq!(text.replace('\r', ""), expected, "{kind}");
    }
    shim.shutdown();
    case.finish();
}

/// Nobody reads one container's output: it waits, and no other does.
#[test]
fn a_full_fifo_stops_its_own_writer_only() {
    with_container(|case, shim, id| {
        let full = Fifo::new(case, "full");
        started(shim, id, "full", &process("yes"), &Streams { stdout: full.path(), ..Streams::default() });
        let out = Fifo::new(case, "out");
        let read = out.read_all();
        started(shim, id, "e", &process("echo on"), &Streams { stdout: out.path(), ..Streams::default() });
        ended(shim, id, "e");
        assert_eq!(read.join().unwrap(), "on\n");
        assert_eq!(shim.state(id, "full").expect("state").status.unwrap(), Status::RUNNING);
        shim.kill(id, "full", 9).expect("kill");
        assert_eq!(shim.wait(id, "full").expect("wait"), 137);
        shim.delete(id, "full").expect("delete");
    });
}

#[test]
fn unknown_schemes_are_refused() {
    with_container(|_, shim, id| {
        let streams = Streams { stdout: "tcp://x".into(), ..Streams::default() };
        shim.exec(id, "wrong", &process("true"), &streams).expect("exec");
        assert_eq!(refused(shim.run(id, "wrong")).0, Code::INVALID_ARGUMENT);
        shim.delete(id, "wrong").expect("delete");
    });
}
