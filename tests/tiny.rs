//! The example of the README trains: its own assertion is that the loss falls.

#[path = "../examples/tiny.rs"]
mod tiny;

#[test]
fn the_example_trains() {
    tiny::main().unwrap();
}
