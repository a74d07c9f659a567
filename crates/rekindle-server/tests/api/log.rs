//! What a test's thread logs, at every level.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Once;

use tracing_subscriber::{Layer, filter::dynamic_filter_fn, fmt, layer::SubscriberExt, util::SubscriberInitExt};

thread_local! {
    static LISTENS: Cell<bool> = const { Cell::new(false) };
    static HEARD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Installs the listener, before anything is logged. One for the whole process: what is logged for the first time by a thread
/// without one would stay unheard in all threads.
pub fn install() {
    static ONCE: Once = Once::new();
    let layer = || fmt::layer().json().with_writer(|| Ear).with_filter(dynamic_filter_fn(|_, _| LISTENS.get()));
    ONCE.call_once(|| tracing_subscriber::registry().with(layer()).init());
}

/// Listens to this thread from here on.
pub fn listen() {
    LISTENS.set(true);
}

/// What was heard.
pub fn heard() -> String {
    HEARD.with_borrow(|bytes| String::from_utf8(bytes.clone()).unwrap())
}

struct Ear;

impl io::Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        HEARD.with_borrow_mut(|heard| heard.extend(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
