//! Builds again when the example that the demo carries has changed.

fn main() {
    println!("cargo::rerun-if-changed=../../examples/greenhouse");
    println!("cargo::rerun-if-changed=build.rs");
}
