//! Space, and objects that were begun.

use super::*;

#[test]
fn too_little_space_is_told_with_both_numbers() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = StateDir::new(tmp.path());
    require_space(&dir, "app@1", 1).unwrap();
    let failure = require_space(&dir, "app@1", u64::MAX).unwrap_err();
    assert_eq!(*failure.reason(), Reason::NoSpace);
    let free = slots::free_bytes(tmp.path()).unwrap();
    assert!(
        failure
            .message()
            .contains(&format!("{} bytes are needed and ", u64::MAX))
    );
    assert!(
        free > 0 && failure.message().contains(" are free in `"),
        "{}",
        failure.message()
    );
}

#[test]
fn an_object_has_its_name_only_when_it_is_whole() {
    let tmp = tempfile::tempdir().unwrap();
    let mut sink = ObjectFiles::new(tmp.path().to_owned());
    let sha256 = Sha256::of(b"content");
    sink.begin(sha256, 7).unwrap();
    sink.write(b"con").unwrap();
    let path = tmp.path().join(sha256.to_string());
    assert!(!path.exists());
    sink.begin(sha256, 7).unwrap(); // the first try was thrown away
    sink.write(b"content").unwrap();
    sink.finish().unwrap();
    assert!(is(&path, sha256, 7));
    assert!(!is(&path, sha256, 8) && !is(&path, Sha256::of(b""), 7));
    assert!(sink.write(b"more").is_err());
}
