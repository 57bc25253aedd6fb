//! `top`: what pods use, live.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use flintd::api::{NodeFacts, PodUsage, PodView};
use flintd::observed::Phase;

use crate::command::{Session, all_pods, shown};
use crate::terminal::{self, Raw};
use crate::usage::{Row, rows};
use crate::values::{age, plain, size};

/// Show what containers use, and go on
///
/// c, m and n sort by CPU, memory and name; q leaves.
#[derive(Args)]
pub(crate) struct Top {
    /// The order of containers
    #[arg(long, value_enum, default_value_t = Order::Cpu, value_name = "ORDER")]
    sort: Order,
    /// The time between two looks, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    every: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    /// Most CPU first
    Cpu,
    /// Most memory first
    Memory,
    /// By name
    Name,
}

/// What is shown at a time.
struct Look {
    node: NodeFacts,
    pods: Vec<PodView>,
    rows: Vec<Row>,
    at: SystemTime,
}

impl Top {
    pub(crate) async fn run(self, session: &Session) -> Result<u8> {
        if !terminal::has_screen() || !terminal::has_keyboard() {
            bail!("top is for terminals; `flintctl stats` prints once");
        }
        let client = session.client().await?;
        let mut before: Vec<PodUsage> = client.usage().await?;
        let mut order = self.sort;
        let raw = Raw::enter_screen()?;
        let mut keys = terminal::input();
        let mut resized = terminal::resized()?;
        let mut look = Look {
            node: client.node().await?,
            pods: all_pods(&client).await?,
            rows: Vec::new(),
            at: SystemTime::now(),
        };
        look.rows = rows(&before, &before);
        let mut ticks = tokio::time::interval(Duration::from_secs(self.every));
        let ended = terminal::ended();
        tokio::pin!(ended);
        let status = loop {
            draw(&look, order)?;
            tokio::select! {
                _ = ticks.tick() => {
                    let now = client.usage().await?;
                    look = Look { node: client.node().await?, pods: all_pods(&client).await?, rows: rows(&before, &now), at: SystemTime::now() };
                    before = now;
                }
                key = keys.recv() => match key.as_deref().and_then(<[u8]>::first) {
                    // Ctrl-C, and the keyboard's end.
                    Some(b'q' | b'Q' | 3) | None => break 0,
                    Some(b'c') => order = Order::Cpu,
                    Some(b'm') => order = Order::Memory,
                    Some(b'n') => order = Order::Name,
                    Some(_) => {}
                },
                _ = resized.recv() => {}
                signal = &mut ended => break 128 + signal?.to_le_bytes()[0],
            }
        };
        drop(raw);
        Ok(status)
    }
}

fn draw(look: &Look, order: Order) -> Result<()> {
    let (height, width) = terminal::size().unwrap_or((24, 80));
    let screen = render(look, order, height.into(), width.into());
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(screen.as_bytes()).and_then(|()| stdout.flush()).context("write to the terminal")
}

/// The screen: every line is written over the one before, so nothing flickers.
fn render(look: &Look, order: Order, height: usize, width: usize) -> String {
    let mut lines = heads(look);
    let mut sorted: Vec<&Row> = look.rows.iter().collect();
    sorted.sort_by(|one, other| match order {
        Order::Cpu => other.cpu_percent.total_cmp(&one.cpu_percent),
        Order::Memory => other.memory.cmp(&one.memory),
        Order::Name => std::cmp::Ordering::Equal,
    });
    let name_width = sorted.iter().map(|row| shown(&row.pod).chars().count()).max().unwrap_or(0).clamp(3, 40);
    lines.push(format!(
        "\x1b[7m{}\x1b[0m",
        fit(
            &format!(
                "{:name_width$}  {:16} {:>8} {:12} {:>9} {:>9} {:>5}",
                "POD", "CONTAINER", "CPU", "", "MEMORY", "LIMIT", "PIDS"
            ),
            width
        )
    ));
    let room = height.saturating_sub(lines.len() + 1);
    let left = sorted.len().saturating_sub(room);
    for row in sorted.into_iter().take(room) {
        let limit = row.memory_limit.map_or_else(|| "-".to_owned(), size);
        lines.push(fit(
            &plain(&format!(
                "{:name_width$}  {:16} {:>7.1}% {:12} {:>9} {limit:>9} {:>5}",
                cut(&shown(&row.pod), name_width),
                cut(&row.container, 16),
                row.cpu_percent,
                bar(row.cpu_percent / 100.0, 10),
                size(row.memory),
                row.pids
            )),
            width,
        ));
    }
    lines.push(fit(
        &if left > 0 { format!("{left} more; c m n sort, q leaves") } else { "c m n sort, q leaves".to_owned() },
        width,
    ));
    lines.truncate(height);
    let mut screen = "\x1b[H".to_owned();
    for (index, line) in lines.iter().enumerate() {
        let end = if index + 1 < lines.len() { "\r\n" } else { "" };
        let _ = write!(screen, "{line}\x1b[K{end}");
    }
    screen.push_str("\x1b[J");
    screen
}

fn heads(look: &Look) -> Vec<String> {
    let node = &look.node;
    let up = node.started.and_then(|started| look.at.duration_since(started).ok()).map_or_else(|| "-".to_owned(), age);
    let cpu: f64 = look.rows.iter().map(|row| row.cpu_percent).sum();
    let memory: u64 = look.rows.iter().map(|row| row.memory).sum();
    let running = look.pods.iter().filter(|view| view.status.phase == Phase::Running).count();
    let (cpus, all_memory) = (node.milli_cpus.0 as f64 / 1000.0, node.memory.0);
    let share = if all_memory > 0 { memory as f64 / all_memory as f64 } else { 0.0 };
    vec![
        format!(
            "{}  flintd {} up {up}  pods {running} running, {} in all",
            plain(&node.hostname),
            node.version,
            look.pods.len()
        ),
        format!("CPU    {} {cpu:.1}% of {:.0}%", bar(cpu / 100.0 / cpus.max(0.001), 20), cpus * 100.0),
        format!("memory {} {} of {}", bar(share, 20), size(memory), size(all_memory)),
    ]
}

/// A share of a bar, as `[###   ]`.
fn bar(share: f64, width: usize) -> String {
    let filled = (share.clamp(0.0, 1.0) * width as f64).round() as usize;
    format!("[{}{}]", "#".repeat(filled), " ".repeat(width - filled))
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width { text.to_owned() } else { text.chars().take(width - 1).chain(['~']).collect() }
}

fn fit(line: &str, width: usize) -> String {
    line.chars().take(width).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::tests::look as usage;

    fn look() -> Look {
        let node = NodeFacts {
            hostname: "here".to_owned(),
            version: "0.1.0".to_owned(),
            milli_cpus: (2000, 2000),
            memory: (48 << 20, 48 << 20),
            started: Some(SystemTime::UNIX_EPOCH),
            ..NodeFacts::default()
        };
        let rows = rows(&[usage(10, 1000)], &[usage(11, 1500)]);
        Look { node, pods: Vec::new(), rows, at: SystemTime::UNIX_EPOCH + Duration::from_secs(60) }
    }

    #[test]
    fn the_screen_fits() {
        let screen = render(&look(), Order::Cpu, 24, 100);
        let shown = screen.replace("\x1b[H", "").replace("\x1b[K", "").replace("\x1b[J", "").replace("\r\n", "\n");
        assert_eq!(
            shown,
            "here  flintd 0.1.0 up 60s  pods 0 running, 0 in all\n\
             CPU    [#####               ] 50.0% of 200%\n\
             memory [##########          ] 24.0MiB of 48.0MiB\n\
             \x1b[7mPOD  CONTAINER             CPU                 MEMORY     LIMIT  PIDS\x1b[0m\n\
             web  main                50.0% [#####     ]   12.0MiB   64.0MiB     3\n\
             web  side                 0.0% [          ]   12.0MiB         -     3\n\
             c m n sort, q leaves"
        );
        for (height, width) in [(5, 20), (1, 1), (6, 300)] {
            let screen = render(&look(), Order::Memory, height, width);
            assert_eq!(screen.matches("\r\n").count() + 1, height.min(7));
        }
        assert!(render(&look(), Order::Name, 6, 100).contains("1 more"));
    }
}
