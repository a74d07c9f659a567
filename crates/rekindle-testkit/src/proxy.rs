//! A TCP proxy between a store and its server that does what networks do on bad days.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to what passes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// It passes.
    Forward,
    /// It passes after a while, either way.
    Delay(Duration),
    /// It waits, and nobody is told: a network that swallows packets.
    Hold,
    /// New connections are closed at once; those that are open go on.
    Refuse,
}

/// Which way something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the server.
    Request,
    /// From the server.
    Answer,
}

/// A proxy on a port of the loopback interface. It ends when it is dropped, with all connections through it.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

struct Shared {
    target: AtomicU16,
    behaviour: watch::Sender<Behaviour>,
    /// Changed when all connections are to be cut.
    cuts: watch::Sender<u32>,
    /// How many pieces pass until the next one is lost, with its connection; [`NEVER`] if none is to be.
    until_cut: [AtomicU32; 2],
    accepted: AtomicU32,
    passed: [AtomicU32; 2],
}

const NEVER: u32 = u32::MAX;

impl Proxy {
    /// Forwards to a port of the loopback interface. The proxy lives on the runtime that it is started on.
    ///
    /// # Panics
    ///
    /// If there is no free port.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("the loopback interface has a free port");
        let port = listener.local_addr().expect("a listener has an address").port();
        let shared = Arc::new(Shared {
            target: AtomicU16::new(target),
            behaviour: watch::Sender::new(Behaviour::Forward),
            cuts: watch::Sender::new(0),
            until_cut: [AtomicU32::new(NEVER), AtomicU32::new(NEVER)],
            accepted: AtomicU32::new(0),
            passed: [AtomicU32::new(0), AtomicU32::new(0)],
        });
        let listening = tokio::spawn(listen(listener, Arc::clone(&shared)));
        Self { port, shared, listening }
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From here on, new connections go to another port.
    pub fn retarget(&self, target: u16) {
        self.shared.target.store(target, Ordering::SeqCst);
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> u32 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many pieces went that way so far. A piece is what one read of the socket gives: of a client that asks and waits, a
    /// request each.
    pub fn passed(&self, way: Way) -> u32 {
        self.shared.passed[way as usize].load(Ordering::SeqCst)
    }

    /// From here on, this happens, to open connections, too.
    pub fn set(&self, behaviour: Behaviour) {
        self.shared.behaviour.send_replace(behaviour);
    }

    /// Closes every connection: nothing passes through it after this.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|n| *n += 1);
    }

    /// Loses, once, what goes that way after so many pieces have passed, and closes its connection: a lost request was never
    /// carried out, the request of a lost answer was. A piece is what one read of the socket gives; whoever wants to hit every
    /// moment of an operation tries 0, 1, 2 … until [`Proxy::disarm`] says that it was over before.
    pub fn cut_after(&self, way: Way, pieces: u32) {
        self.shared.until_cut[way as usize].store(pieces, Ordering::SeqCst);
    }

    /// Whether the loss that was asked for has not happened yet; it is called off.
    pub fn disarm(&self, way: Way) -> bool {
        self.shared.until_cut[way as usize].swap(NEVER, Ordering::SeqCst) != NEVER
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

impl Shared {
    /// Whether the next piece is the one to be lost.
    fn loses(&self, way: Way) -> bool {
        let count_down = |n: u32| match n {
            NEVER => None,
            0 => Some(NEVER),
            n => Some(n - 1),
        };
        let before = self.until_cut[way as usize].fetch_update(Ordering::SeqCst, Ordering::SeqCst, count_down);
        before == Ok(0)
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        if *shared.behaviour.borrow() == Behaviour::Refuse {
            continue;
        }
        let cuts = shared.cuts.subscribe();
        tokio::spawn(connect(client, cuts, Arc::clone(&shared)));
    }
}

/// Carries one connection until either side, a loss or a cut ends it.
async fn connect(client: TcpStream, mut cuts: watch::Receiver<u32>, shared: Arc<Shared>) {
    // A server that is not there looks like one that hung up.
    let Ok(server) = TcpStream::connect(("127.0.0.1", shared.target.load(Ordering::SeqCst))).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let seen = cuts.clone();
    tokio::select! {
        () = pump(from_client, to_server, Way::Request, &seen, &shared) => {}
        () = pump(from_server, to_client, Way::Answer, &seen, &shared) => {}
        _ = cuts.changed() => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Way,
    cuts: &watch::Receiver<u32>,
    shared: &Shared,
) {
    let mut behaviour = shared.behaviour.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if shared.loses(way) {
            return;
        }
        let now = *behaviour.borrow_and_update();
        match now {
            Behaviour::Forward | Behaviour::Refuse => {}
            Behaviour::Delay(by) => tokio::time::sleep(by).await,
            Behaviour::Hold => drop(behaviour.wait_for(|b| *b != Behaviour::Hold).await),
        }
        if cuts.has_changed().unwrap_or(true) || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        shared.passed[way as usize].fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const SHORT: Duration = Duration::from_millis(100);

    /// A server that sends back what it is sent.
    async fn echo() -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        port
    }

    async fn said(stream: &mut TcpStream, text: &[u8]) -> bool {
        let mut answer = vec![0; text.len()];
        stream.write_all(text).await.is_ok() && stream.read_exact(&mut answer).await.is_ok() && answer == text
    }

    #[tokio::test]
    async fn it_passes_delays_holds_refuses_and_cuts() {
        let proxy = Proxy::start(echo().await).await;
        let connect = || TcpStream::connect(("127.0.0.1", proxy.port()));
        let mut stream = connect().await.unwrap();
        assert!(said(&mut stream, b"one").await);
        assert_eq!([Way::Request, Way::Answer].map(|way| proxy.passed(way)), [1, 1]);

        proxy.cut_after(Way::Answer, 1);
        assert!(said(&mut stream, b"two").await);
        assert!(!said(&mut stream, b"three").await);
        assert!(!proxy.disarm(Way::Answer), "it happens once");

        let mut stream = connect().await.unwrap();
        proxy.cut_after(Way::Request, 0);
        assert!(!said(&mut stream, b"four").await);

        let mut stream = connect().await.unwrap();
        proxy.set(Behaviour::Hold);
        assert!(timeout(SHORT, said(&mut stream, b"five")).await.is_err());
        proxy.set(Behaviour::Delay(SHORT));
        let mut answer = [0; 4];
        assert!(timeout(SHORT / 2, stream.read_exact(&mut answer)).await.is_err());
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"five");

        proxy.set(Behaviour::Refuse);
        assert!(!said(&mut connect().await.unwrap(), b"six").await);
        assert!(said(&mut stream, b"seven").await);
        proxy.cut();
        assert!(!said(&mut stream, b"eight").await);
        assert_eq!(proxy.accepted(), 4);
    }
}
