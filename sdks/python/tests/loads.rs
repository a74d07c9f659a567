//! That Python loads what cargo has built; what it does then, the tests in Python show.

use std::process::Command;

#[test]
fn python_loads_the_native_half() {
    // Beside this test's own program.
    let test = std::env::current_exe().expect("a test knows its program");
    let name = format!("{}rekindle_python{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let library = test.with_file_name(name);
    let script = "import importlib.machinery as m, importlib.util as u, sys
loader = m.ExtensionFileLoader('rekindle._native', sys.argv[1])
module = u.module_from_spec(u.spec_from_loader('rekindle._native', loader))
loader.exec_module(module)
print(*dir(module))";
    let output = Command::new("python3").args(["-c", script]).arg(&library).output().expect("`python3` can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8_lossy(&output.stdout);
    for name in ["Host", "Handle", "Site"] {
        assert!(names.contains(name), "{names}");
    }
}
