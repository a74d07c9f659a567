//! The SuperTokens face, as published SDKs ask it: exact answers per version of their interface, with time in the test's hands.

mod apps;
mod flow;
mod hostile;
mod server;
mod shapes;
