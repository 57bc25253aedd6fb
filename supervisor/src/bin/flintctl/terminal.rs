//! The terminal that flintctl runs at: raw while a program's terminal is shown on it, and restored whatever happens.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// The terminal's attributes before, while it is raw. A panic ends the process without unwinding; its hook finds them here.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// A raw terminal; dropped, it is as it was.
pub(crate) struct Raw {
    on_alternate_screen: bool,
}

const SHOW_ALTERNATE: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE_ALTERNATE: &str = "\x1b[?25h\x1b[?1049l";

impl Raw {
    /// Makes standard input's terminal raw.
    pub(crate) fn enter() -> Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                next(panic);
            }));
        });
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).context("ask for the terminal's attributes")?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let entered = Self { on_alternate_screen: false };
        tcsetattr(&stdin, OptionalActions::Now, &raw).context("make the terminal raw")?;
        Ok(entered)
    }

    /// The same, and a screen of its own, without a cursor.
    pub(crate) fn enter_screen() -> Result<Self> {
        let mut raw = Self::enter()?;
        raw.on_alternate_screen = true;
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(SHOW_ALTERNATE.as_bytes()).and_then(|()| stdout.flush()).context("write to the terminal")?;
        Ok(raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if self.on_alternate_screen {
            let mut stdout = std::io::stdout().lock();
            let _ = stdout.write_all(LEAVE_ALTERNATE.as_bytes()).and_then(|()| stdout.flush());
        }
        restore();
    }
}

fn restore() {
    // try_lock: a panic while it is held must not wait for itself.
    if let Ok(mut before) = BEFORE.try_lock()
        && let Some(before) = before.take()
    {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
    }
}

/// Whether somebody types.
pub(crate) fn has_keyboard() -> bool {
    std::io::stdin().is_terminal()
}

/// Whether somebody looks on.
pub(crate) fn has_screen() -> bool {
    std::io::stdout().is_terminal()
}

/// Rows and columns of the terminal.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(std::io::stdout()).or_else(|_| tcgetwinsize(std::io::stdin())).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Tells when the terminal's size may have changed.
pub(crate) fn resized() -> Result<Signal> {
    signal(SignalKind::window_change()).context("hear of the terminal's size")
}

/// Waits for a signal that would end this process, and tells which: what has to be restored comes first.
pub(crate) async fn ended() -> Result<i32> {
    let mut signals =
        [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::terminate(), SignalKind::quit()].map(|kind| {
            let number = kind.as_raw_value();
            signal(kind).map(|signal| (number, signal))
        });
    let [hangup, interrupt, terminate, quit] = &mut signals;
    let told = |signal: &std::io::Result<(i32, Signal)>| signal.as_ref().map_or(0, |(number, _)| *number);
    let numbers = [told(hangup), told(interrupt), told(terminate), told(quit)];
    let one = async |signal: &mut std::io::Result<(i32, Signal)>| match signal {
        Ok((_, signal)) => signal.recv().await,
        Err(_) => std::future::pending().await,
    };
    Ok(tokio::select! {
        _ = one(hangup) => numbers[0],
        _ = one(interrupt) => numbers[1],
        _ = one(terminate) => numbers[2],
        _ = one(quit) => numbers[3],
    })
}

/// What comes from standard input, in pieces; the channel closes at its end. A thread reads it: nothing else reads a terminal, a pipe
/// and a file alike without changing what others that have them see.
pub(crate) fn input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; 32 << 10];
        while let Ok(count) = stdin.read(&mut buffer) {
            if count == 0 || sender.blocking_send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}
