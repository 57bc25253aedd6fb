//! nginx: reached by its host port, asked by three probes, with a configuration that changes while it runs.

use integration_tests::{Server, wait_until};

use super::clients::http;
use super::{host, image_name, node_with, remove, wait_ready};
use crate::node::rig::{IMAGE, free_port};

fn manifest(port: u16, greeting: &str) -> String {
    format!(
        r#"apiVersion: v1
kind: ConfigMap
metadata: {{name: web}}
data:
  site.conf: |
    server {{
        listen 80 default_server;
        root /srv;
        location = /greeting {{ return 200 "{greeting}\n"; }}
    }}
---
apiVersion: v1
kind: Pod
metadata: {{name: web}}
spec:
  initContainers:
  - name: pages
    image: {IMAGE}
    imagePullPolicy: Never
    command: [/bin/sh, -c, "echo 'a page' > /srv/index.html; echo yes > /srv/ready"]
    volumeMounts: [{{name: pages, mountPath: /srv}}]
  containers:
  - name: main
    image: {image}
    imagePullPolicy: Never
    ports: [{{name: http, containerPort: 80, hostPort: {port}}}]
    startupProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 60}}
    readinessProbe: {{httpGet: {{path: /ready, port: http}}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 1}}
    livenessProbe: {{httpGet: {{path: /alive, port: http}}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 10}}
    lifecycle: {{postStart: {{exec: {{command: [touch, /srv/alive]}}}}}}
    volumeMounts:
    - {{name: pages, mountPath: /srv}}
    - {{name: sites, mountPath: /etc/nginx/conf.d, readOnly: true}}
  volumes:
  - {{name: pages, emptyDir: {{}}}}
  - {{name: sites, configMap: {{name: web}}}}
"#,
        image = image_name(Server::Nginx),
    )
}

#[test]
fn nginx_is_reached_by_its_host_port_and_asked_by_its_probes() {
    let Some((host, image)) = host(Server::Nginx) else { return };
    host.within(|| {
        let Some(node) = node_with(Server::Nginx, &image) else { return };
        let port = free_port();
        let answer = |path: &str| http(port, path).unwrap_or_else(|error| panic!("GET {path}: {error}"));
        node.apply(&manifest(port, "hello"));
        wait_ready(&node, "web");
        assert_eq!(answer("/"), (200, "a page\n".to_owned()));
        assert_eq!(answer("/greeting"), (200, "hello\n".to_owned()));
        assert_eq!(answer("/none").0, 404);
        let exec = |args: &[&str]| node.ctl(["exec", "web", "--"].into_iter().chain(args.iter().copied()));
        let container = || node.status("web")["containers"]["main"].clone();
        let pid = container()["pid"].clone();

        let _ = exec(&["rm", "/srv/ready"]).ok();
        wait_until("it is not ready", || container()["ready"] == false);
        let _ = exec(&["touch", "/srv/ready"]).ok();
        wait_until("it is ready again", || container()["ready"] == true);

        node.apply(&manifest(port, "good day"));
        wait_until("its configuration is exchanged", || {
            exec(&["cat", "/etc/nginx/conf.d/site.conf"]).ok().stdout.contains("good day")
        });
        let _ = exec(&["nginx", "-s", "reload"]).ok();
        wait_until("it has read it", || answer("/greeting").1 == "good day\n");
        assert_eq!((container()["pid"].clone(), container()["restarts"].clone()), (pid, 0.into()));

        let _ = exec(&["rm", "/srv/alive"]).ok();
        wait_until("it was started again", || container()["restarts"] == 1);
        wait_ready(&node, "web");
        assert_eq!(answer("/greeting"), (200, "good day\n".to_owned()));
        // nginx writes the line after its answer.
        wait_until("what nginx writes to its log is in the container's", || {
            node.ctl(["logs", "web"]).ok().stdout.contains("GET /greeting HTTP/1.1")
        });
        remove(&node, &["web"]);
        node.finish();
    });
}
