//! That Node.js loads what cargo has built; what it does then, the tests in JavaScript show.

use std::process::Command;

#[test]
fn node_loads_the_native_half() {
    // Beside this test's own program.
    let test = std::env::current_exe().expect("a test knows its program");
    let name = format!("{}rekindle_node{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let library = test.with_file_name(name);
    let script = "const module = { exports: {} }; process.dlopen(module, process.argv[1]); console.log(Object.keys(module.exports).join())";
    let output = Command::new("node").args(["-e", script]).arg(&library).output().expect("`node` can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8_lossy(&output.stdout);
    for name in ["Host", "Handle", "Site"] {
        assert!(names.contains(name), "{names}");
    }
}
