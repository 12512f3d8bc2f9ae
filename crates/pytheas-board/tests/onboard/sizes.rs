//! What the package takes of a board: bytes as .mpy, RAM for its import, instructions for a signature.

use pytheas_board::deploy::{Files, setup};
use testkit::board::{Board, Rig};

use crate::{
    image::Key,
    power::{MODULES, compiled, put},
};

/// RAM that the steady part may keep, in bytes.
const RAM_MAX: u64 = 10 << 10;
/// What one board gets, as .mpy, in bytes: the package with one backend.
const SIZE_MAX: usize = 12_288;

#[test]
fn the_package_is_small_and_a_signature_cheap() {
    let Some(rig) = Rig::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let Some(mut board) = Board::start_counting(&dir.path().join("flash")) else {
        return;
    };
    board.exec("import os\nos.mkdir('/pytheas')").unwrap();
    let mut package = Files::new();
    for module in MODULES {
        let Some(code) = compiled(&rig, module) else {
            return;
        };
        println!("{module}.mpy: {} bytes", code.len());
        put(&mut board, &format!("/pytheas/{module}.mpy"), &code);
        let path = format!("{module}.mpy").parse().expect("a path");
        package.insert(path, code);
    }
    let mut largest = 0;
    for backend in ["rom", "file"] {
        // As `pytheas board setup` does it.
        let set = setup::needed(&package, &format!(r#"{{"backend": "{backend}"}}"#));
        assert_eq!(set.len(), MODULES.len() - 1);
        let total = set.values().map(Vec::len).sum();
        println!("a board with the {backend} backend gets {total} bytes");
        largest = largest.max(total);
    }
    // With a boot record, as all boards have but new ones: without, the slots are searched.
    board.exec("import pytheas\npytheas.save({})\n").unwrap();
    board.restart();
    let ram: u64 = board
        .exec("import gc\ngc.collect()\na = gc.mem_alloc()\nimport pytheas\npytheas.ready()\ngc.collect()\nprint(gc.mem_alloc() - a)")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    println!("RAM kept by `import pytheas` and its backend: {ram} bytes");
    let key = Key::new(1);
    let message = [7; 32];
    let setup = format!(
        "from binascii import unhexlify as u\nfrom pytheas import ed25519\nk=u('{}');m=u('{}');s=u('{}')",
        hex::encode(key.public()),
        hex::encode(message),
        hex::encode(key.sign(&message))
    );
    let instructions = board.instructions(&setup, "assert ed25519.verify(k, m, s)");
    println!(
        "a signature: {:.1} M instructions",
        instructions as f64 / 1e6
    );
    assert!(instructions < 79_500_000);
    assert!(ram <= RAM_MAX, "{ram}");
    assert!(largest <= SIZE_MAX, "{largest}");
}
