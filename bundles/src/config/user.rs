//! Names of users, as the root filesystem has them. Its files are the image's: perhaps huge, links out of it, or fifos.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::error::{Error, Result, Told};

/// /etc/passwd of more bytes is none.
const LIMIT: u64 = 1 << 20;

/// Who a program runs as.
#[derive(Debug, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
    /// Groups whose member the user is.
    additional: Vec<u32>,
}

/// Whom `[USER][:GROUP]` means in a root filesystem, by docker's rules: `process.user` of the runtime-spec. An empty text is root.
/// The files are read by descriptors below the folder, so that links of the image end in it.
///
/// # Errors
///
/// There is no such user or group in its /etc/passwd and /etc/group, or these are no files of a reasonable size.
pub fn user(rootfs: &Path, text: &str) -> Result<Value> {
    let User { uid, gid, mut additional } = resolve(rootfs, text)?;
    // docker's and containerd's answer to CVE-2022-36109: the first group is among the others, too.
    additional.insert(0, gid);
    additional.dedup();
    Ok(json!({"uid": uid, "gid": gid, "additionalGids": additional}))
}

fn resolve(rootfs: &Path, text: &str) -> Result<User> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let user = if user.is_empty() { "0" } else { user };
    let passwd = read(rootfs, "etc/passwd")?;
    let groups = read(rootfs, "etc/group")?;
    // name:password:uid:gid:...
    let entries = passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        Some((name, fields.nth(1)?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?))
    });
    let number = parse_id(user);
    // A name that looks like a number is found as a name first, as docker does.
    let mut entry = None;
    for one in entries {
        if one.0 == user {
            entry = Some(one);
            break;
        }
        if entry.is_none() && number == Some(one.1) {
            entry = Some(one);
        }
    }
    let (name, uid, gid) = match (entry, number) {
        (Some((name, uid, gid)), _) => (Some(name), uid, gid),
        (None, Some(uid)) => (None, uid, 0),
        (None, None) => {
            return Err(Error::not_found(format!(
                "there is no user {user:?} in the image's /etc/passwd; name another with --user"
            )));
        }
    };
    // name:password:gid:member,member
    let groups: Vec<(&str, u32, &str)> = groups
        .lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            Some((name, fields.nth(1)?.parse::<u32>().ok()?, fields.next().unwrap_or_default()))
        })
        .collect();
    if let Some(wanted) = group.filter(|group| !group.is_empty()) {
        let found = groups.iter().find(|(name, ..)| *name == wanted).map(|(_, gid, _)| *gid);
        let gid = found.or_else(|| parse_id(wanted)).ok_or_else(|| {
            Error::not_found(format!(
                "there is no group {wanted:?} in the image's /etc/group; name another with --user"
            ))
        })?;
        return Ok(User { uid, gid, additional: Vec::new() });
    }
    let is_member = |members: &str| name.is_some_and(|name| members.split(',').any(|member| member == name));
    let mut additional: Vec<u32> =
        groups.iter().filter(|(.., members)| is_member(members)).map(|(_, gid, _)| *gid).collect();
    additional.retain(|one| *one != gid);
    additional.dedup();
    Ok(User { uid, gid, additional })
}

/// A number of a user; u32::MAX means "leave it" to the kernel.
fn parse_id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX && text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Reads a file of the root filesystem; a missing one is empty.
fn read(rootfs: &Path, name: &str) -> Result<String> {
    let told = || format!("reading {name} of the image");
    let root = rustix::fs::openat(CWD, rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .told(|| format!("opening {}", rootfs.display()))?;
    // Links end in the root; a fifo does not block.
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = loop {
        match rustix::fs::openat2(&root, name, flags, Mode::empty(), inside) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
            result => break result.told(told)?,
        }
    };
    let file = File::from(opened);
    let status = rustix::fs::fstat(&file).told(told)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(Error::refused(format!("{name} of the image is no file")));
    }
    let mut content = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut content).told(told)?;
    if content.len() as u64 > LIMIT {
        return Err(Error::refused(format!("{name} of the image has more than {LIMIT} bytes")));
    }
    Ok(String::from_utf8_lossy(&content).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rootfs() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/:\n44:x:45:46::/:\nbroken\n:x:1:1\n";
        std::fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        let group = "root:x:0:\nweb:x:34:\nlog:x:4:web,root\ntty:x:5:other,web\n";
        std::fs::write(root.path().join("etc/group"), group).unwrap();
        root
    }

    fn resolved(text: &str) -> std::result::Result<(u32, u32, Vec<u32>), String> {
        let user = resolve(rootfs().path(), text).map_err(|error| error.to_string())?;
        Ok((user.uid, user.gid, user.additional))
    }

    #[test]
    fn users_are_found_as_docker_finds_them() {
        assert_eq!(resolved(""), Ok((0, 0, vec![4])));
        assert_eq!(resolved("web"), Ok((33, 34, vec![4, 5])));
        assert_eq!(resolved("33"), Ok((33, 34, vec![4, 5])));
        assert_eq!(resolved("44"), Ok((45, 46, vec![])), "the name comes first");
        assert_eq!(resolved("1000"), Ok((1000, 0, vec![])));
        assert_eq!(resolved("web:log"), Ok((33, 4, vec![])));
        assert_eq!(resolved("1000:7"), Ok((1000, 7, vec![])));
        assert_eq!(resolved(":log"), Ok((0, 4, vec![])));
        assert!(resolved("nobody").unwrap_err().contains("no user \"nobody\""));
        assert!(resolved("web:x").unwrap_err().contains("no group \"x\""));
        for wrong in ["-1", "+1", "4294967295", "4294967296"] {
            assert!(resolved(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_images_files_are_not_trusted() {
        let root = rootfs();
        let passwd = root.path().join("etc/passwd");
        std::fs::remove_file(&passwd).unwrap();
        // Absolute, and with `..`: both end in the root, where there is no such file.
        std::os::unix::fs::symlink("/../../../../../etc/passwd-of-the-host", &passwd).unwrap();
        assert!(resolve(root.path(), "root").unwrap_err().to_string().contains("no user"));
        assert_eq!(resolve(root.path(), "7").unwrap().uid, 7, "numbers need no file");
        std::fs::remove_file(&passwd).unwrap();
        std::fs::write(&passwd, vec![b'\n'; LIMIT as usize + 1]).unwrap();
        assert!(resolve(root.path(), "root").unwrap_err().to_string().contains("more than"));
        std::fs::remove_file(&passwd).unwrap();
        let made = rustix::fs::mknodat(CWD, &passwd, FileType::Fifo, Mode::from_raw_mode(0o644), 0);
        made.unwrap();
        assert!(resolve(root.path(), "root").unwrap_err().to_string().contains("no file"));
        std::fs::remove_dir_all(root.path().join("etc")).unwrap();
        assert_eq!(resolve(root.path(), "").unwrap(), User { uid: 0, gid: 0, additional: vec![] });
    }
}
