//! An axum application with sessions, asked by a client that keeps cookies as a browser does; and the handle on real servers.

mod app;
mod browser;
mod example;
mod handle;
mod pages;
mod remote;
mod site;
