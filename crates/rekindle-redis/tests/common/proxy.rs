//! A proxy that loses a command, or its answer, at a chosen moment.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    Command,
    Answer,
}

/// Stands between a store and the server on a port of the loopback interface.
pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
}

struct State {
    server: SocketAddr,
    /// How many commands still pass; below zero: all.
    left: AtomicI64,
    lose_answer: AtomicBool,
    stays_down: AtomicBool,
    down: AtomicBool,
}

impl Proxy {
    pub async fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            server: ([127, 0, 0, 1], server_port).into(),
            left: AtomicI64::new(-1),
            lose_answer: AtomicBool::new(false),
            stays_down: AtomicBool::new(false),
            down: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !accepting.down.load(Ordering::SeqCst) {
                    tokio::spawn(serve(Arc::clone(&accepting), client));
                }
            }
        });
        Self { port, state }
    }

    /// Cuts the connection at the `n`-th command from now on; afterwards it can be made again, or not.
    pub fn cut(&self, n: i64, loss: Loss, stays_down: bool) {
        self.state.lose_answer.store(loss == Loss::Answer, Ordering::SeqCst);
        self.state.stays_down.store(stays_down, Ordering::SeqCst);
        self.state.left.store(n, Ordering::SeqCst);
    }

    /// Whether the cut came.
    #[allow(dead_code, reason = "not every test asks")]
    pub fn was_cut(&self) -> bool {
        self.state.left.load(Ordering::SeqCst) < 0
    }
}

async fn serve(state: Arc<State>, mut client: TcpStream) {
    let Ok(mut server) = TcpStream::connect(state.server).await else { return };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let swallow = AtomicBool::new(false);
    let forward = async {
        let (mut buffer, mut begin) = (Vec::new(), 0);
        loop {
            let mut chunk = [0; 16 * 1024];
            match from_client.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(n) => buffer.extend_from_slice(&chunk[..n]),
            }
            while let Some(length) = command(&buffer[begin..]) {
                let command = &buffer[begin..begin + length];
                begin += length;
                if state.left.fetch_sub(1, Ordering::SeqCst) == 0 {
                    state.down.store(state.stays_down.load(Ordering::SeqCst), Ordering::SeqCst);
                    if state.lose_answer.load(Ordering::SeqCst) {
                        swallow.store(true, Ordering::SeqCst);
                        let _ = to_server.write_all(command).await;
                        // Long enough to be carried out.
                        tokio::time::sleep(Duration::from_millis(15)).await;
                    }
                    return;
                }
                if to_server.write_all(command).await.is_err() {
                    return;
                }
            }
        }
    };
    let back = async {
        let mut chunk = [0; 16 * 1024];
        loop {
            match from_server.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(_) if swallow.load(Ordering::SeqCst) => {}
                Ok(n) if to_client.write_all(&chunk[..n]).await.is_err() => return,
                Ok(_) => {}
            }
        }
    };
    tokio::select! { () = forward => {}, () = back => {} }
}

/// The length of the first command in `bytes`, if it is whole: an array of strings.
fn command(bytes: &[u8]) -> Option<usize> {
    let (count, mut at) = number(bytes, 0)?;
    for _ in 0..count {
        let (length, begin) = number(bytes, at)?;
        at = begin + length + 2;
    }
    (at <= bytes.len()).then_some(at)
}

/// The number after a type's sign, and where its line ends.
fn number(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let line = bytes.get(at + 1..)?;
    let end = line.iter().position(|b| *b == b'\n')?;
    let number = std::str::from_utf8(&line[..end - 1]).ok()?.parse().ok()?;
    Some((number, at + 1 + end + 1))
}
