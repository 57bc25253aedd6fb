//! The manual pages and the shells' completions of a release: what the built flint prints of itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// Where each shell looks for a completion of `flint`, below `completions/`.
const COMPLETIONS: [(&str, &str); 3] = [("bash", "flint"), ("zsh", "_flint"), ("fish", "flint.fish")];

/// Writes `man/*.8` and `completions/*` below the folder, by the `flint` in it; how many pages there are.
///
/// # Errors
///
/// The program does not run here, or a file cannot be written.
pub(crate) fn install(dist: &Path) -> anyhow::Result<usize> {
    let flint = dist.join("flint");
    let main = printed(&flint, &["man"])?;
    let folder = dist.join("man");
    // Those of commands that are no more would stay.
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    write(&folder, "flint.8", &main)?;
    let verbs = verbs(&main);
    for verb in &verbs {
        write(&folder, &format!("flint-{verb}.8"), &printed(&flint, &["man", verb])?)?;
    }
    for (shell, name) in COMPLETIONS {
        write(&dist.join("completions"), name, &printed(&flint, &["completion", shell])?)?;
    }
    Ok(verbs.len() + 1)
}

/// The commands that the main page lists, each with a page of its own.
fn verbs(main: &str) -> Vec<String> {
    let name = |line: &str| Some(line.strip_prefix(".BR flint\\-")?.split(' ').next()?.replace('\\', ""));
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
    String::from_utf8(output.stdout).context("flint printed something else than UTF-8")
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
        assert_eq!(verbs(page), ["create", "run"]);
    }

    #[test]
    fn every_page_and_completion_is_written() {
        let dist = tempfile::tempdir().unwrap();
        let program = dist.path().join("flint");
        std::fs::write(&program, "#!/bin/sh\ncase \"$*\" in man) echo '.BR flint\\-run (8)';; *) echo \"$@\";; esac\n")
            .unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir(dist.path().join("man")).unwrap();
        std::fs::write(dist.path().join("man/flint-gone.8"), "").unwrap();
        assert_eq!(install(dist.path()).unwrap(), 2);
        let read = |path: &str| std::fs::read_to_string(dist.path().join(path)).unwrap();
        assert_eq!(read("man/flint-run.8"), "man run\n");
        assert!(!dist.path().join("man/flint-gone.8").exists());
        assert_eq!(read("completions/flint.fish"), "completion fish\n");
        assert!(read("completions/_flint").contains("zsh") && read("completions/flint").contains("bash"));
    }
}
