//! Tells the linker that Node.js has the functions that the binding calls.

fn main() {
    napi_build::setup();
}
