//! The page over real connections, with a node in memory behind it.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::api::fake::{Fake, pod};

async fn serve() -> (SocketAddr, Arc<Fake>, tokio::task::JoinHandle<()>) {
    let fake = Arc::new(Fake::new(std::path::Path::new("/nonexistent")));
    fake.change(|pods| pods.push(pod("web")));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(Arc::new(Page::new(fake.clone())).serve(listener, std::future::pending()));
    (address, fake, server)
}

/// Sends a request, reads to the end.
async fn ask(address: SocketAddr, head: &str) -> String {
    let answer = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    timeout(Duration::from_secs(20), answer).await.expect("an answer")
}

async fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}")).await
}

#[tokio::test]
async fn the_page_its_state_and_its_health_are_served_and_no_secret_is() {
    let (address, _fake, server) = serve().await;
    for (path, words) in [
        ("/", "<title>flint</title>"),
        ("/page.js", "fetch(\"/api/state\")"),
        ("/page.css", "color-scheme"),
        ("/icon.svg", "<svg"),
        ("/healthz", "ok\n"),
        ("/readyz", "ok\n"),
    ] {
        let answer = get(address, path).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(words), "{path}: {answer}");
        assert!(answer.to_lowercase().contains("content-security-policy: default-src 'none'"), "{path}");
    }
    let answer = get(address, "/api/state").await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let state: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(state["pods"][0]["name"], "web");
    assert_eq!(state["pods"][0]["status"], "Running");
    assert_eq!(state["pods"][0]["memory"], 1 << 20);
    assert_eq!(state["events"][0]["word"], "Before");
    assert!(!answer.contains("geheim"), "the node's secret");
    assert!(get(address, "/nothing").await.starts_with("HTTP/1.1 404"));
    server.abort();
}

#[tokio::test]
async fn metrics_are_in_openmetrics_form() {
    let (address, _fake, server) = serve().await;
    timings().observe(Step::Start, Duration::from_millis(3));
    let answer = get(address, "/metrics").await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    for line in [
        "flint_pods{phase=\"Running\"} 1.0",
        "flint_pod_ready{namespace=\"default\",pod=\"web\"} 1.0",
        "flint_container_cpu_seconds_total{namespace=\"default\",pod=\"web\",container=\"main\"} 1.0",
        "flint_container_memory_bytes{namespace=\"default\",pod=\"web\",container=\"main\"} 1048576.0",
        "flint_container_restarts_total{namespace=\"default\",pod=\"web\",container=\"main\"} 0.0",
        "flint_step_seconds_bucket{le=\"0.004\",step=\"Start\"} 1",
        "# TYPE flint_step_seconds histogram",
        "# EOF",
    ] {
        assert!(body.lines().any(|found| found == line), "{line} is not in\n{body}");
    }
    server.abort();
}

#[tokio::test]
async fn names_of_elsewhere_and_changes_are_refused() {
    let (address, _fake, server) = serve().await;
    for (host, status) in [
        ("127.0.0.1", "200"),
        ("localhost:1", "200"),
        ("[::1]:80", "200"),
        ("HERE", "200"),
        ("evil.example", "421"),
        ("127.0.0.1.evil.example:80", "421"),
    ] {
        let answer = ask(address, &format!("GET /healthz HTTP/1.1\r\nHost: {host}")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
    }
    let answer = ask(address, &format!("POST /api/state HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0")).await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    assert!(
        ask(address, &format!("GET /{} HTTP/1.1\r\nHost: {address}", "x".repeat(100_000)))
            .await
            .starts_with("HTTP/1.1 4")
    );
    // One that says nothing holds up nobody.
    let silent = TcpStream::connect(address).await.unwrap();
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    drop(silent);
    server.abort();
}

/// A browser's view: the script ran under the page's own policy, and has drawn pods, plots and events. `FLINT_SCREENSHOT` keeps a picture.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_draws_itself_in_a_browser() {
    let Some(chromium) =
        ["/usr/bin/chromium", "/usr/bin/chromium-browser"].into_iter().find(|path| std::path::Path::new(path).exists())
    else {
        if let Ok(log) = std::env::var("FLINT_SKIP_LOG") {
            use std::io::Write as _;
            let mut log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
            writeln!(log, "SKIP the_page_draws_itself_in_a_browser: there is no chromium").unwrap();
        }
        return;
    };
    let (address, fake, server) = serve().await;
    fake.change(|pods| {
        let mut hostile = pod("hostile");
        hostile.images.insert("main".to_owned(), "<img src=x onerror=document.title='owned'>".to_owned());
        pods.push(hostile);
        pods.extend((0..500).map(|number| pod(&format!("many-{number}"))));
    });
    let browse = |arguments: Vec<String>| {
        let profile = tempfile::tempdir().unwrap();
        let output = std::process::Command::new(chromium)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("--virtual-time-budget=9000")
            .args(arguments)
            .arg(format!("http://{address}/"))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let document = tokio::task::block_in_place(|| browse(vec!["--dump-dom".to_owned()]));
    for words in [
        "<title>flint: here</title>",
        "<td class=\"name\">web</td>",
        "<td class=\"good\">Running</td>",
        "502 of 502",
        "class=\"line cpu\"",
        "Before happened",
        "&lt;img src=x",
    ] {
        assert!(document.contains(words), "{words} is not in {document}");
    }
    assert!(document.contains("202 more"), "long lists are cut");
    assert!(!document.contains("<img"), "text of others stays text");
    if let Ok(picture) = std::env::var("FLINT_SCREENSHOT") {
        fake.change(|pods| pods.truncate(12));
        let arguments = vec![format!("--screenshot={picture}"), "--window-size=1280,900".to_owned()];
        tokio::task::block_in_place(|| browse(arguments));
    }
    server.abort();
}
