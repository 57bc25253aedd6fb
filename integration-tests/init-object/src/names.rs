//! Which functions may be reached, by their names.

/// Written by the compiler itself for copies and comparisons; pure, and walked like everything else.
const PURE: [&str; 6] = ["memcpy", "memmove", "memset", "memcmp", "bcmp", "strlen"];

/// Crates whose functions may run in the child.
const CRATES: [&str; 3] = ["core", "flint_init", "flint_sys"];

const ALLOCATORS: [&str; 22] = [
    "malloc",
    "calloc",
    "realloc",
    "free",
    "aligned_alloc",
    "posix_memalign",
    "memalign",
    "valloc",
    "pvalloc",
    "reallocarray",
    "malloc_usable_size",
    "mmap",
    "mmap64",
    "munmap",
    "mremap",
    "brk",
    "sbrk",
    "__mmap",
    "__munmap",
    "__mremap",
    "__expand_heap",
    "__simple_malloc",
];
const ALLOCATOR_PREFIXES: [&str; 5] = ["__rust_alloc", "__rust_dealloc", "__rust_realloc", "__rdl_", "__rg_"];
const ALLOCATOR_PARTS: [&str; 2] = ["__libc_malloc", "__libc_free"];

/// In the names of all of core::panicking, std::panicking, rust_panic, rust_begin_unwind, _Unwind_*, ... The
/// `*_fail` functions of core have other names and call these.
const PANIC_PARTS: [&str; 4] = ["panic", "unwind", "rust_eh_personality", "begin_unwind"];
const PANIC_ENDS: [&str; 3] = ["unwrap_failed", "expect_failed", "_fail"];

/// Why code with these names must not be reached; `None` when it may.
pub(crate) fn objection(names: &[String]) -> Option<String> {
    let pure = names.iter().any(|name| PURE.contains(&name.as_str()));
    let foreign = |name: &String| {
        // Another name of a pure C function, such as `__memcpy_fwd_alias_1`.
        if pure && !name.contains("::") { None } else { foreign(name) }
    };
    let worst = names.iter().find_map(|name| Some((name, forbidden(name)?.to_owned())));
    let (name, reason) = worst.or_else(|| names.iter().find_map(|name| Some((name, foreign(name)?))))?;
    Some(format!("{name} is {reason}"))
}

fn forbidden(name: &str) -> Option<&'static str> {
    let last = name.rsplit("::").next().unwrap_or(name);
    if ALLOCATORS.contains(&name)
        || ALLOCATOR_PREFIXES.iter().any(|prefix| last.starts_with(prefix))
        || ALLOCATOR_PARTS.iter().any(|part| name.contains(part))
    {
        return Some("an allocator");
    }
    let lower = name.to_ascii_lowercase();
    if PANIC_PARTS.iter().any(|part| lower.contains(part)) || PANIC_ENDS.iter().any(|end| last.ends_with(end)) {
        return Some("panic machinery");
    }
    None
}

/// Why the function belongs to no crate that may be reached.
fn foreign(name: &str) -> Option<String> {
    let crates = crates(name);
    if crates.is_empty() {
        return Some("a function of libc or another C library".to_owned());
    }
    let other = crates.into_iter().find(|it| !CRATES.contains(it))?;
    Some(match other {
        "std" | "alloc" => format!("of {other}"),
        _ => format!("of the crate {other}"),
    })
}

/// The first parts of all paths in a demangled name: `<a::B as c::D>::e` is of `a` and of `c`.
fn crates(name: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    while let Some(length) = name.get(start..).and_then(|rest| rest.find("::")) {
        let end = start + length;
        let first = name[..end].rfind(|character| !is_part(character)).map_or(0, |at| at + 1);
        // Behind another `::` it is a later part; an empty one ends a generic or a closure.
        if first < end && !name[..first].ends_with("::") {
            found.push(&name[first..end]);
        }
        start = end + 2;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{crates, objection};

    fn of(name: &str) -> Option<String> {
        objection(&[name.to_owned()])
    }

    #[test]
    fn crates_are_the_first_parts_of_all_paths() {
        assert_eq!(crates("flint_init::root::<impl flint_init::executor::Init>::folder"), ["flint_init", "flint_init"]);
        assert_eq!(crates("<alloc::vec::Vec<u8> as std::io::Write>::write"), ["alloc", "std"]);
        assert_eq!(crates("core::ptr::drop_in_place::<std::io::Error>"), ["core", "std"]);
        assert_eq!(crates("<[u8] as core::fmt::Debug>::fmt"), ["core"]);
        assert_eq!(crates("a::b::{closure#0}::{impl#1}::c"), ["a"]);
        assert_eq!(crates("memcpy"), [""; 0]);
    }

    #[test]
    fn init_and_core_may_be_reached() {
        for name in [
            "flint_init::executor::run",
            "flint_init::root::<impl flint_init::executor::Init>::folder",
            "flint_sys::process::spawn::<flint_init::hook::HookProcess>",
            "core::slice::memchr::memchr_aligned",
            "<core::ffi::c_str::CStr>::from_bytes_with_nul",
            "memcpy",
        ] {
            assert_eq!(of(name), None, "{name}");
        }
        assert_eq!(objection(&["memcpy".to_owned(), "__memcpy_fwd_alias_1".to_owned()]), None);
    }

    #[test]
    fn each_class_is_named() {
        for (name, class) in [
            ("malloc", "an allocator"),
            ("mmap", "an allocator"),
            ("__rust_alloc", "an allocator"),
            ("__rustc::__rust_alloc_zeroed", "an allocator"),
            ("__rustc::__rdl_realloc", "an allocator"),
            ("core::panicking::panic_bounds_check", "panic machinery"),
            ("__rustc::rust_begin_unwind", "panic machinery"),
            ("_Unwind_Resume", "panic machinery"),
            ("core::result::unwrap_failed", "panic machinery"),
            ("core::slice::index::slice_index_fail", "panic machinery"),
            ("std::io::stdio::_print", "of std"),
            ("<alloc::string::String as core::clone::Clone>::clone", "of alloc"),
            ("core::ptr::drop_in_place::<std::io::Error>", "of std"),
            ("serde_json::from_slice", "of the crate serde_json"),
            ("getpid", "a function of libc or another C library"),
            ("__memcpy_fwd_alias_1", "a function of libc or another C library"),
        ] {
            assert_eq!(of(name).as_deref(), Some(format!("{name} is {class}").as_str()));
        }
        assert!(objection(&["flint_init::a".to_owned(), "std::b".to_owned()]).is_some());
        assert!(objection(&["memcpy".to_owned(), "malloc".to_owned()]).is_some());
    }
}
