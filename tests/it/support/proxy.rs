//! A network that can fall silent: forwards TCP connections to a server until told otherwise. Nothing is ever closed by it while
//! it lives, so neither side hears of the silence.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// When a connection falls silent by itself.
#[derive(Debug, Clone)]
pub(crate) struct Trap {
    /// Once the client sends this.
    pub(crate) text: &'static str,
    /// What it sent still arrives; only the answer does not.
    pub(crate) deliver: bool,
}

#[derive(Default)]
struct Shared {
    /// Connections with a lower number are silent.
    silent_below: AtomicU64,
    next: AtomicU64,
    trap: Mutex<Option<Trap>>,
    sprung: AtomicBool,
    closed: AtomicBool,
}

/// See the module.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Proxy {
    /// Forwards to `port` of 127.0.0.1.
    pub(crate) fn start(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                if accepting.closed.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let number = accepting.next.fetch_add(1, Ordering::Relaxed);
                let hushed = Arc::new(AtomicBool::new(false));
                let pairs = [
                    (client.try_clone().unwrap(), server.try_clone().unwrap(), true),
                    (server, client, false),
                ];
                for (from, to, is_client) in pairs {
                    let way = Way { shared: accepting.clone(), number, hushed: hushed.clone(), is_client };
                    std::thread::spawn(move || way.forward(from, to));
                }
            }
        });
        Proxy { shared, address }
    }

    /// The port to connect to.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Every connection there is falls silent; new ones are forwarded.
    pub(crate) fn cut(&self) {
        self.shared.silent_below.store(self.shared.next.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The first connection that sends the trap's text falls silent.
    pub(crate) fn set_trap(&self, trap: Trap) {
        *self.shared.trap.lock().unwrap() = Some(trap);
    }

    /// The trap has worked.
    pub(crate) fn sprung(&self) -> bool {
        self.shared.sprung.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        // Wakes the one who accepts.
        let _wakes = TcpStream::connect(self.address);
    }
}

struct Way {
    shared: Arc<Shared>,
    number: u64,
    hushed: Arc<AtomicBool>,
    is_client: bool,
}

impl Way {
    fn is_silent(&self) -> bool {
        self.hushed.load(Ordering::Relaxed) || self.number < self.shared.silent_below.load(Ordering::Relaxed)
    }

    fn forward(self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let mut last = false;
            if let Some(trap) = self.sprung(&buffer[..count]) {
                self.hushed.store(true, Ordering::Relaxed);
                last = trap.deliver;
            }
            if self.is_silent() && !last {
                break;
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        // Holds both ends open, in silence.
        while self.is_silent() && !self.shared.closed.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _closed = to.shutdown(std::net::Shutdown::Both);
    }

    fn sprung(&self, sent: &[u8]) -> Option<Trap> {
        if !self.is_client {
            return None;
        }
        let mut trap = self.shared.trap.lock().unwrap();
        let text = trap.as_ref()?.text.as_bytes();
        if !sent.windows(text.len()).any(|window| window == text) {
            return None;
        }
        self.shared.sprung.store(true, Ordering::Relaxed);
        trap.take()
    }
}
