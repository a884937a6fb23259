//! Differences as a patch that `git apply` and `patch` take.

use super::{Difference, Item};
use similar::TextDiff;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const CONTEXT: usize = 3;

/// All of them; the second is what a patch cannot say: files that are no text.
pub fn patch(differences: &[Difference]) -> (String, Vec<String>) {
    let (mut out, mut binary) = (String::new(), Vec::new());
    for difference in differences {
        if !one(&mut out, difference) {
            binary.push(difference.path.display().to_string());
        }
    }
    (out, binary)
}

fn mode(item: &Item) -> &'static str {
    match item {
        Item::File(_, true) => "100755",
        Item::File(_, false) => "100644",
        Item::Link(_) => "120000",
    }
}

fn text(item: Option<&Item>) -> Option<String> {
    match item {
        None => Some(String::new()),
        Some(Item::File(bytes, _)) => String::from_utf8(bytes.clone()).ok().filter(|text| !text.contains('\0')),
        Some(Item::Link(target)) => target.to_str().map(str::to_owned),
    }
}

/// False if one side is no text.
fn one(out: &mut String, difference: &Difference) -> bool {
    // A file that became a link, or the other way round, is one that went and one that came.
    if let (Some(before), Some(after)) = (&difference.before, &difference.after)
        && matches!(before, Item::Link(_)) != matches!(after, Item::Link(_))
    {
        return part(out, &difference.path, Some(before), None) & part(out, &difference.path, None, Some(after));
    }
    part(out, &difference.path, difference.before.as_ref(), difference.after.as_ref())
}

fn part(out: &mut String, path: &Path, before: Option<&Item>, after: Option<&Item>) -> bool {
    let (a, b) = (quoted("a/", path), quoted("b/", path));
    // Writing to a string does not fail.
    let _ = writeln!(out, "diff --git {a} {b}");
    let _ = match (before, after) {
        (None, Some(after)) => writeln!(out, "new file mode {}", mode(after)),
        (Some(before), None) => writeln!(out, "deleted file mode {}", mode(before)),
        (Some(before), Some(after)) if mode(before) != mode(after) => {
            writeln!(out, "old mode {}\nnew mode {}", mode(before), mode(after))
        }
        _ => Ok(()),
    };
    let (Some(old), Some(new)) = (text(before), text(after)) else {
        let _ = writeln!(out, "Binary files {a} and {b} differ");
        return false;
    };
    if old == new {
        return true;
    }
    let none = "/dev/null".to_owned();
    let (old_name, new_name) = (before.map_or(&none, |_| &a), after.map_or(&none, |_| &b));
    let changes = TextDiff::from_lines(&old, &new);
    let _ = write!(out, "{}", changes.unified_diff().context_radius(CONTEXT).header(old_name, new_name));
    true
}

/// A name as git writes it: one with unusual characters in quotes.
fn quoted(prefix: &str, path: &Path) -> String {
    let plain = |byte: &u8| (0x20..0x7f).contains(byte) && !matches!(byte, b'"' | b'\\');
    let bytes = path.as_os_str().as_bytes();
    if bytes.iter().all(plain) {
        return format!("{prefix}{}", path.display());
    }
    let mut name = format!("\"{prefix}");
    for byte in bytes {
        if plain(byte) {
            name.push(char::from(*byte));
        } else {
            let _ = write!(name, "\\{byte:03o}");
        }
    }
    name.push('"');
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Option<Item> {
        Some(Item::File(text.as_bytes().to_vec(), false))
    }

    #[test]
    fn what_came_went_and_changed() {
        let difference = |path: &str, before, after| Difference { path: path.into(), before, after, meanwhile: false };
        let (text, binary) = patch(&[
            difference("new", None, file("a\n")),
            difference("gone", file("b"), None),
            difference("changed", file("1\n2\n"), file("1\n3\n")),
            difference("link", None, Some(Item::Link("to".into()))),
            difference("odd \n", None, file("")),
            difference("picture", None, Some(Item::File(vec![0, 255], true))),
        ]);
        let expected = "diff --git a/new b/new\nnew file mode 100644\n--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+a\n\
                        diff --git a/gone b/gone\ndeleted file mode 100644\n--- a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-b\n\\ No newline at end of file\n\
                        diff --git a/changed b/changed\n--- a/changed\n+++ b/changed\n@@ -1,2 +1,2 @@\n 1\n-2\n+3\n\
                        diff --git a/link b/link\nnew file mode 120000\n--- /dev/null\n+++ b/link\n@@ -0,0 +1 @@\n+to\n\\ No newline at end of file\n\
                        diff --git \"a/odd \\012\" \"b/odd \\012\"\nnew file mode 100644\n\
                        diff --git a/picture b/picture\nnew file mode 100755\nBinary files a/picture and b/picture differ\n";
        assert_eq!(text, expected);
        assert_eq!(binary, ["picture"]);
    }
}
