//! Layers as builders and as attackers make them, unpacked into a folder. As root; each test says so where it is not.
#![forbid(unsafe_code)]

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use flint_bundle::unpack::{Form, Options, Ownership, Unpacked, unpack};
use flint_bundle::{Digest, Error, Kind, Limits};
use tar::EntryType;
use tempfile::TempDir;

/// A tar with whatever one writes into it: the crate's own builder refuses what attackers do not.
#[derive(Default)]
struct Layer(Vec<u8>);

impl Layer {
    fn entry(mut self, kind: EntryType, name: &str, link: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        let raw = header.as_ustar_mut().unwrap();
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1234);
        header.set_gid(4321);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        if kind == EntryType::Char || kind == EntryType::Block {
            let [major, minor] = [link.len() as u32, 3];
            header.as_ustar_mut().unwrap().linkname = [0; 100];
            header.set_device_major(if link == "0:0" { 0 } else { major }).unwrap();
            header.set_device_minor(if link == "0:0" { 0 } else { minor }).unwrap();
        }
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, name, "", 0o644, content.as_bytes())
    }

    fn folder(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", 0o755, b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, 0o777, b"")
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, target, 0o644, b"")
    }

    /// PAX records for the next entry.
    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (1..20).map(|digits| rest + digits).find(|sum| sum.to_string().len() + rest == *sum).unwrap();
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.entry(EntryType::XHeader, "pax", "", 0o644, &content)
    }

    fn tar(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// A folder with the target in it, and a file beside it that must stay what it is.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("target")).unwrap();
        fs::write(place.path().join("outside"), "untouched").unwrap();
        Self(place)
    }

    fn target(&self) -> std::path::PathBuf {
        self.0.path().join("target")
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.target().join(name)
    }

    fn unpack(&self, layer: Layer, form: Form) -> Result<Unpacked, Error> {
        let unpacked = self.unpack_within(&layer.tar(), form, Limits::default());
        assert_eq!(fs::read_to_string(self.0.path().join("outside")).unwrap(), "untouched");
        let mut beside: Vec<_> = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        beside.sort();
        assert_eq!(beside, ["outside", "target"]);
        unpacked
    }

    fn unpack_within(&self, blob: &[u8], form: Form, limits: Limits) -> Result<Unpacked, Error> {
        unpack(blob, &self.target(), &Options { form, ownership: Ownership::Kept, limits })
    }

    fn refused(&self, layer: Layer, part: &str) {
        let error = self.unpack(layer, Form::Overlay).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|status| status.file_type().is_char_device() && status.rdev() == 0)
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    Some(value[..length].to_vec())
}

#[test]
fn owners_modes_times_links_and_devices_are_the_layers() {
    let place = Place::new();
    let layer = Layer::default()
        .entry(EntryType::Directory, "./", "", 0o750, b"")
        .folder("bin/")
        .entry(EntryType::Regular, "bin/su", "", 0o4755, b"root")
        .hard_link("bin/sudo", "bin/su")
        .symlink("bin/sh", "/bin/su")
        .entry(EntryType::Fifo, "fifo", "", 0o622, b"")
        .entry(EntryType::Char, "null", "x", 0o666, b"")
        .file("no/entry/for/these/folders", "x");
    let blob = layer.tar();
    let unpacked = place.unpack_within(&blob, Form::Overlay, Limits::default()).unwrap();
    let implied = ["no", "no/entry", "no/entry/for", "no/entry/for/these"].map(|folder| folder.as_bytes().to_vec());
    let (diff_id, implied) = (Digest::of(&blob), implied.into_iter().collect());
    assert_eq!(
        unpacked,
        Unpacked { diff_id, entries: 8, bytes: unpacked.bytes, devices_left_out: 0, hides_below: false, implied }
    );
    let status = |name: &str| fs::symlink_metadata(place.path(name)).unwrap();
    assert_eq!(status("").mode() & 0o7777, 0o750);
    for name in ["", "bin", "bin/su", "bin/sh", "fifo", "null"] {
        assert_eq!((status(name).uid(), status(name).gid()), (1234, 4321), "{name}");
        assert_eq!((status(name).mtime(), status(name).mtime_nsec()), (1_000_000_000, 0), "{name}");
    }
    assert_eq!(status("bin/su").mode() & 0o7777, 0o4755, "set-id bits outlive the change of owner");
    assert_eq!(status("bin/su").ino(), status("bin/sudo").ino());
    assert_eq!(fs::read_link(place.path("bin/sh")).unwrap(), Path::new("/bin/su"));
    assert!(status("fifo").file_type().is_fifo());
    assert_eq!(status("fifo").mode() & 0o7777, 0o622, "the umask does not count");
    assert_eq!(rustix::fs::major(status("null").rdev()), 1);
    assert_eq!(rustix::fs::minor(status("null").rdev()), 3);
    assert_eq!(fs::read(place.path("no/entry/for/these/folders")).unwrap(), b"x");
}

#[test]
fn pax_records_give_nanoseconds_long_names_and_capabilities() {
    let place = Place::new();
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(250));
    // A version 2 capability set with cap_net_raw, as setcap writes it.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let records: &[(&str, &[u8])] = &[
        ("path", long.as_bytes()),
        ("mtime", b"1500000000.123456789"),
        ("atime", b"1400000000.5"),
        ("uid", b"70000"),
        ("SCHILY.xattr.security.capability", &capability),
        ("SCHILY.xattr.user.note", b"a\0b"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
    ];
    let layer = Layer::default().pax(records).entry(EntryType::Regular, "short", "", 0o755, b"x");
    place.unpack(layer, Form::Overlay).unwrap();
    let status = fs::metadata(place.path(&long)).unwrap();
    assert_eq!((status.mtime(), status.mtime_nsec()), (1_500_000_000, 123_456_789));
    assert_eq!((status.atime(), status.atime_nsec()), (1_400_000_000, 500_000_000));
    assert_eq!(status.uid(), 70000);
    assert_eq!(xattr(&place.path(&long), "security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(xattr(&place.path(&long), "trusted.overlay.redirect"), None, "overlayfs would believe it");
    if let Some(note) = xattr(&place.path(&long), "user.note") {
        assert_eq!(note, b"a\0b");
    }
}

#[test]
fn sparse_files_have_their_content_and_their_holes() {
    let place = Place::new();
    let mut content = b"2\n0\n3\n1048576\n3\n".to_vec();
    content.resize(512, 0);
    content.extend_from_slice(b"onetwo");
    let version_1: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"sparse"),
        ("GNU.sparse.realsize", b"2097152"),
    ];
    let layer = Layer::default()
        .pax(version_1)
        .entry(EntryType::Regular, "GNUSparseFile.0/sparse", "", 0o644, &content)
        .entry(EntryType::Regular, "zeros", "", 0o644, &vec![0; 1 << 20]);
    place.unpack(layer, Form::Overlay).unwrap();
    let mut read = String::new();
    fs::File::open(place.path("sparse")).unwrap().read_to_string(&mut read).unwrap();
    assert_eq!((&read[..3], &read[1_048_576..1_048_579], read.len()), ("one", "two", 2 << 20));
    assert!(fs::metadata(place.path("sparse")).unwrap().blocks() * 512 < 100_000);
    assert!(fs::metadata(place.path("zeros")).unwrap().blocks() * 512 < 100_000);
    assert_eq!(fs::metadata(place.path("zeros")).unwrap().len(), 1 << 20);

    let lying = Layer::default().pax(&[("GNU.sparse.size", b"5"), ("GNU.sparse.map", b"0,3,18446744073709551615,3")]);
    place.refused(lying.file("lying", "onetwo"), "sparse map");
    let endless = Layer::default().pax(&[("GNU.sparse.size", b"9000000000000000000"), ("GNU.sparse.map", b"0,3")]);
    place.refused(endless.file("endless", "one"), "sparse map");
}

#[test]
fn names_that_would_leave_the_folder_are_refused_or_end_in_it() {
    let place = Place::new();
    place.refused(Layer::default().file("../outside", "x"), "`..`");
    place.refused(Layer::default().folder("a").file("a/../../outside", "x"), "`..`");
    place.refused(Layer::default().file("a/.wh...", ""), "names no file");
    place.refused(Layer::default().entry(EntryType::Regular, ".", "", 0o644, b"x"), "can only be a folder");
    // Absolute names are names from the root of the image.
    place.unpack(Layer::default().file("/absolute", "x"), Form::Overlay).unwrap();
    assert!(place.path("absolute").is_file());
}

#[test]
fn symbolic_links_do_not_lead_out() {
    let place = Place::new();
    let outside = place.0.path().join("outside").to_str().unwrap().to_owned();
    let beside = place.0.path().to_str().unwrap().to_owned();
    // Writing through a link to a file: the link is replaced.
    place.unpack(Layer::default().symlink("link", &outside).file("link", "x"), Form::Overlay).unwrap();
    assert_eq!(fs::read(place.path("link")).unwrap(), b"x");
    assert!(fs::symlink_metadata(place.path("link")).unwrap().is_file());
    // A link to a folder outside, absolute and relative, as a parent: it leads nowhere in the image.
    assert!(place.unpack(Layer::default().symlink("abs", &beside).file("abs/outside", "x"), Form::Overlay).is_err());
    place.unpack(Layer::default().symlink("up", "../../..").file("up/here", "x"), Form::Overlay).unwrap();
    assert!(place.path("here").is_file(), "the root's parent is the root");
    // Links in the image that stay in it are followed, as they are in a container.
    let merged = Layer::default().folder("usr").symlink("lib", "/usr").file("lib/x", "x");
    place.unpack(merged, Form::Overlay).unwrap();
    assert!(place.path("usr/x").is_file());
    // A whiteout, an opaque mark and a folder's attributes through a link.
    for form in [Form::Merged, Form::Overlay] {
        let _ = place.unpack(Layer::default().symlink("out", &beside).file("out/.wh.outside", ""), form);
        let _ = place.unpack(Layer::default().symlink("out", &beside).file("out/.wh..wh..opq", ""), form);
    }
    place.unpack(Layer::default().symlink("dir", &beside).folder("dir/"), Form::Overlay).unwrap();
    assert!(place.path("dir").symlink_metadata().unwrap().is_dir());
    assert_ne!(fs::metadata(place.0.path()).unwrap().uid(), 1234);
    // Magic links lead to the host by their nature.
    assert!(
        place.unpack(Layer::default().symlink("p", "/proc/self/root").file("p/tmp/x", "x"), Form::Overlay).is_err()
    );
}

#[test]
fn hard_links_do_not_lead_out() {
    let place = Place::new();
    let outside = place.0.path().join("outside").to_str().unwrap().to_owned();
    place.refused(Layer::default().hard_link("a", "../outside"), "`..`");
    place.refused(Layer::default().hard_link("a", &outside), "no such entry");
    place.refused(Layer::default().hard_link("a", ""), "without a target");
    place.refused(Layer::default().hard_link("a", "missing"), "no such entry");
    // A link to a link is a second name of the link, and writing to it replaces that name.
    let layer = Layer::default().symlink("s", &outside).hard_link("h", "s").file("h", "x");
    place.unpack(layer, Form::Overlay).unwrap();
    assert!(fs::symlink_metadata(place.path("s")).unwrap().is_symlink());
    assert_eq!(fs::read(place.path("h")).unwrap(), b"x");
}

#[test]
fn overlay_layers_keep_their_removals() {
    let place = Place::new();
    let layer = Layer::default()
        .file("etc/.wh.gone", "")
        .file("var/.wh..wh..opq", "")
        .file("var/new", "x")
        .file(".wh..wh.plnk", "")
        // Removed and made anew, in both orders: lower content must not show in the folder.
        .file(".wh.first", "")
        .folder("first")
        .folder("then")
        .file(".wh.then", "")
        .file("file", "x")
        .folder("file")
        .file("kept", "x")
        .file(".wh.kept", "");
    assert!(!place.unpack(layer, Form::Overlay).unwrap().hides_below);
    assert!(is_whiteout(&place.path("etc/gone")));
    for folder in ["var", "first", "then", "file"] {
        assert_eq!(xattr(&place.path(folder), "trusted.overlay.opaque").as_deref(), Some(&b"y"[..]), "{folder}");
    }
    assert_eq!(fs::read(place.path("kept")).unwrap(), b"x");
    assert!(!place.path(".wh..wh.plnk").exists());
    place.refused(Layer::default().entry(EntryType::Char, "fake", "0:0", 0o644, b""), "whiteout");
    place.refused(Layer::default().hard_link("fake", "etc/gone"), "has no such entry");
    let whole = Place::new().unpack(Layer::default().file(".wh..wh..opq", "").file("new", "x"), Form::Overlay);
    assert!(whole.unwrap().hides_below, "overlayfs has no mark for its root");
}

#[test]
fn merged_layers_remove_what_lower_ones_have_and_nothing_of_their_own() {
    let place = Place::new();
    let lower = Layer::default().file("a/b/old", "x").file("a/old", "x").file("gone/deep/x", "x").symlink("l", "a");
    place.unpack(lower, Form::Merged).unwrap();
    let upper = Layer::default()
        .file("a/b/new", "y")
        .file("a/new", "y")
        .file("a/.wh..wh..opq", "")
        .file(".wh.gone", "")
        .file(".wh.l", "")
        .file(".wh.never-there", "");
    place.unpack(upper, Form::Merged).unwrap();
    for gone in ["a/b/old", "a/old", "gone", "l"] {
        assert!(fs::symlink_metadata(place.path(gone)).is_err(), "{gone}");
    }
    for new in ["a/b/new", "a/new"] {
        assert_eq!(fs::read(place.path(new)).unwrap(), b"y");
    }
    // A folder over a file, a file over a folder, a folder over a folder.
    place.unpack(Layer::default().file("a", "file").folder("f"), Form::Merged).unwrap();
    place.unpack(Layer::default().folder("a").file("f", "x"), Form::Merged).unwrap();
    assert!(place.path("a").is_dir() && place.path("f").is_file());
}

/// As in an overlay, where the folder has the looks of the layer below (and as umoci has it).
#[test]
fn merged_layers_leave_the_times_of_folders_for_which_they_have_no_entry() {
    let place = Place::new();
    let time = |name: &str| fs::symlink_metadata(place.path(name)).unwrap().mtime();
    let lower = Layer::default()
        .entry(EntryType::Directory, "./", "", 0o755, b"")
        .folder("a")
        .folder("a/b")
        .file("a/b/old", "x")
        .folder("c")
        .file("c/old", "x")
        .folder("real")
        .symlink("link", "real");
    place.unpack(lower, Form::Merged).unwrap();
    let upper = Layer::default()
        .file("a/b/new", "y")
        .file("a/.wh.none", "")
        .file("c/.wh..wh..opq", "")
        .file("link/new", "y")
        .file("top", "y");
    place.unpack(upper, Form::Merged).unwrap();
    assert!(!place.path("c/old").exists() && place.path("real/new").exists());
    for folder in ["", "a", "a/b", "c", "real"] {
        assert_eq!(time(folder), 1_000_000_000, "{folder}");
    }
    // What takes the folder's place has its own time, and a folder that went is no error.
    place.unpack(Layer::default().file("a/b/more", "z").file(".wh.a", "").file("c", "file"), Form::Merged).unwrap();
    assert!(place.path("a/b/more").exists() && place.path("c").is_file());
}

#[test]
fn bombs_are_refused() {
    let within = |layer: Layer, limits: Limits| {
        let error = Place::new().unpack_within(&layer.tar(), Form::Overlay, limits).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        error.to_string()
    };
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    let big = Layer::default().entry(EntryType::Regular, "big", "", 0o644, &vec![0; 2 << 20]);
    let told = within(big, limits);
    assert!(told.contains("limit"), "{told}");
    let three = Layer::default().folder("a").folder("b").folder("c");
    assert!(within(three, Limits { entries: 2, ..limits }).contains("more than 2 entries"));
    // Headers are held in memory while an entry is read.
    let note = vec![b'x'; 1 << 16];
    let large = Layer::default().pax(&[("comment", &note)]).file("x", "");
    assert!(within(large, Limits { header: 1 << 15, ..limits }).contains("headers"));
    let deep = Layer::default().folder(&"d/".repeat(45));
    assert!(within(deep, Limits { depth: 40, ..limits }).contains("more than 40 folders"));
    // Folders without entries of their own are as many inodes, and their names are held in memory.
    let implied = || Layer::default().file(&format!("{}f", "a/".repeat(40)), "").file("b", "");
    assert!(within(implied(), Limits { entries: 30, ..limits }).contains("more than 30 entries"));
    assert!(within(implied(), Limits { names: 1000, ..limits }).contains("names of the layer's folders"));
    let names = (0..20).fold(Layer::default(), |layer, number| layer.folder(&format!("{number:060}")));
    assert!(within(names, Limits { names: 1000, ..limits }).contains("names of the layer's folders"));
}

#[test]
fn broken_layers_are_refused() {
    let place = Place::new();
    let whole = Layer::default().entry(EntryType::Regular, "f", "", 0o644, &[1; 5000]).tar();
    for blob in [&whole[..3000], &b"no tar at all, but longer than nothing".repeat(40)] {
        assert!(place.unpack_within(blob, Form::Overlay, Limits::default()).is_err());
    }
    place.refused(Layer::default().entry(EntryType::new(b'V'), "label", "", 0o644, b""), "no meaning");
}

/// `umoci insert` (0.4.7) writes neither the last file's padding nor an end; Go's readers and so all other tools take that.
#[test]
fn a_layer_may_end_with_its_last_files_last_byte_and_not_before() {
    let whole = Layer::default().file("first", "x").file("last", "content").tar();
    let header = whole.windows(4).rposition(|four| four == b"last").unwrap();
    let end = header + 512 + "content".len();
    let place = Place::new();
    let unpacked = place.unpack_within(&whole[..end], Form::Overlay, Limits::default()).unwrap();
    assert_eq!(unpacked.diff_id, Digest::of(&whole[..end]), "the padding is not the layer's");
    assert_eq!(fs::read(place.path("last")).unwrap(), b"content");
    for cut in [end - 1, end - 7, header + 100] {
        assert!(Place::new().unpack_within(&whole[..cut], Form::Overlay, Limits::default()).is_err(), "{cut} bytes");
    }
}
