//! The manual pages and the shells' completions of a release: what the built programs print of themselves.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// A program that prints its own pages, and the section of the manual that they are of.
const PROGRAMS: [(&str, u8); 4] = [("flint", 8), ("flint-bundle", 1), ("flintctl", 1), ("flintd", 8)];

/// Where each shell looks for a completion of PROGRAM, below `completions/`.
fn completions(program: &str) -> [(&'static str, String); 3] {
    [("bash", program.to_owned()), ("zsh", format!("_{program}")), ("fish", format!("{program}.fish"))]
}

/// Writes `man/*` and `completions/*` below the folder, by the programs in it; how many pages there are.
///
/// # Errors
///
/// A program does not run here, or a file cannot be written.
pub(crate) fn install(dist: &Path) -> anyhow::Result<usize> {
    let folder = dist.join("man");
    // Those of commands that are no more would stay.
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    let mut pages = 0;
    for (name, section) in PROGRAMS {
        let program = dist.join(name);
        let main = printed(&program, &["man"])?;
        write(&folder, &format!("{name}.{section}"), &main)?;
        let verbs = verbs(name, &main);
        for verb in &verbs {
            write(&folder, &format!("{name}-{verb}.{section}"), &printed(&program, &["man", verb])?)?;
        }
        for (shell, file) in completions(name) {
            write(&dist.join("completions"), &file, &printed(&program, &["completion", shell])?)?;
        }
        pages += verbs.len() + 1;
    }
    Ok(pages)
}

/// The commands that the main page lists, each with a page of its own.
fn verbs(program: &str, main: &str) -> Vec<String> {
    let prefix = format!("{}\\-", program.replace('-', "\\-"));
    let name = |line: &str| {
        let listed = line.strip_prefix(".BR ").unwrap_or(line).strip_prefix(&prefix)?;
        Some(listed.split([' ', '(']).next()?.replace('\\', ""))
    };
    let mut names: Vec<String> = main.lines().filter_map(name).collect();
    names.sort();
    names.dedup();
    names
}

fn printed(program: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("starting {}", program.display()))?;
    if !output.status.success() || output.stdout.is_empty() {
        bail!("{} {} failed: {}", program.display(), arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed something else than UTF-8", program.display()))
}

fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::{install, verbs};

    #[test]
    fn commands_are_those_of_the_main_page() {
        let page =
            ".TP\n.BR flint\\-run (8)\nruns\n.TP\n.BR flint\\-create (8)\nmakes\n.SH SEE ALSO\n.BR flint\\-run (8)\n";
        assert_eq!(verbs("flint", page), ["create", "run"]);
        let page = ".TP\nflint\\-bundle\\-pull(1)\nPull\n.TP\nflint\\-bundle\\-gc(1)\n";
        assert_eq!(verbs("flint-bundle", page), ["gc", "pull"]);
    }

    #[test]
    fn every_page_and_completion_is_written() {
        let dist = tempfile::tempdir().unwrap();
        for (name, page) in [
            ("flint", ".BR flint\\-run (8)"),
            ("flint-bundle", "flint\\-bundle\\-pull(1)"),
            ("flintctl", "flintctl\\-ps(1)"),
            ("flintd", "flintd\\-join(8)"),
        ] {
            let program = dist.path().join(name);
            std::fs::write(&program, format!("#!/bin/sh\ncase \"$*\" in man) echo '{page}';; *) echo \"$@\";; esac\n"))
                .unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::fs::create_dir(dist.path().join("man")).unwrap();
        std::fs::write(dist.path().join("man/flint-gone.8"), "").unwrap();
        assert_eq!(install(dist.path()).unwrap(), 8);
        let read = |path: &str| std::fs::read_to_string(dist.path().join(path)).unwrap();
        assert_eq!(read("man/flint-run.8"), "man run\n");
        assert_eq!(read("man/flint-bundle-pull.1"), "man pull\n");
        assert_eq!(read("man/flintctl-ps.1"), "man ps\n");
        assert_eq!(read("man/flintd-join.8"), "man join\n");
        assert!(!dist.path().join("man/flint-gone.8").exists());
        assert_eq!(read("completions/flint.fish"), "completion fish\n");
        assert!(read("completions/_flint").contains("zsh") && read("completions/flint").contains("bash"));
    }
}
