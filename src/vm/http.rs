//! An HTTP server on the host that lives as long as a machine.

use std::any::Any;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tiny_http::{Method, Request, Response, Server};

use crate::plan::{PlanError, Planner, Service};
use crate::qemu::Device;

/// Answers requests. Called on a thread of its own for each one.
pub type HttpHandler = dyn Fn(Request) + Send + Sync;

/// An HTTP server for the guest: add it to the machine's devices. It answers from the machine's start
/// to its end.
///
/// A guest with a user network reaches it at the host's address there, 10.0.2.2, and the port of
/// [`ServeHttp::address`].
#[derive(Clone)]
pub struct ServeHttp {
    server: Arc<Server>,
    address: SocketAddr,
    handler: Arc<HttpHandler>,
}

impl std::fmt::Debug for ServeHttp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the HTTP server on {}", self.address)
    }
}

impl ServeHttp {
    /// Serves the files of a directory on a free port of 127.0.0.1, which only this host and guests
    /// with a user network reach. GET and HEAD; no listings; what links point at outside of the
    /// directory is not served.
    ///
    /// # Errors
    /// The system's: the directory is not there.
    pub fn directory(dir: impl AsRef<Path>) -> io::Result<ServeHttp> {
        let dir = dir.as_ref().canonicalize()?;
        if !dir.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        ServeHttp::bind("127.0.0.1:0", move |request| {
            let file = match request.method() {
                Method::Get | Method::Head => open_below(&dir, request.url()),
                _ => Err(405),
            };
            // A guest that has hung up is no error of ours.
            let _ = match file {
                Ok(file) => request.respond(Response::from_file(file)),
                Err(status) => request.respond(Response::empty(status)),
            };
        })
    }

    /// Answers requests with a function, which is to call [`Request::respond`].
    ///
    /// # Errors
    /// The system's: the address is in use.
    pub fn bind(
        address: impl ToSocketAddrs,
        handler: impl Fn(Request) + Send + Sync + 'static,
    ) -> io::Result<ServeHttp> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        // One for all machines: two that accept at the same listener take each other's connections.
        let server = Server::from_listener(listener, None).map_err(io::Error::other)?;
        Ok(ServeHttp { server: Arc::new(server), address, handler: Arc::new(handler) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Device for ServeHttp {
    fn plan(&self, planner: &mut Planner) -> Result<(), PlanError> {
        planner.service(Arc::new(self.clone()));
        Ok(())
    }
}

impl Service for ServeHttp {
    fn start(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        let (server, handler) = (Arc::clone(&self.server), Arc::clone(&self.handler));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("vmtest-http".into()).spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                let Ok(Some(request)) = server.recv_timeout(LOOK_AGAIN) else { continue };
                let handler = Arc::clone(&handler);
                // A handler that panics or never answers costs its own request only.
                let answer = move || handler(request);
                let _ = thread::Builder::new().name("vmtest-http-request".into()).spawn(answer);
            }
        })?;
        Ok(Box::new(Serving { stop, thread: Some(thread) }))
    }
}

/// How often a server looks whether its machine has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Ends the answering when dropped.
struct Serving {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Opens the file that a URL names, or gives the status of the answer.
fn open_below(dir: &Path, url: &str) -> Result<File, u16> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = percent_decoded(path.trim_start_matches('/')).ok_or(400_u16)?;
    let status = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => 403_u16,
        _ => 404,
    };
    let path = dir.join(path).canonicalize().map_err(status)?;
    if !path.starts_with(dir) {
        return Err(403);
    }
    let file = File::open(&path).map_err(status)?;
    // What is no regular file has no length, and a pipe would never end.
    if file.metadata().map_err(status)?.is_file() { Ok(file) } else { Err(404) }
}

fn percent_decoded(text: &str) -> Option<PathBuf> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            (digit()? * 16 + digit()?) as u8
        } else {
            byte
        });
    }
    if decoded.contains(&0) {
        return None;
    }
    Some(std::ffi::OsString::from_vec(decoded).into())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn it_serves_what_is_below_the_directory_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(root.join("sub/ä b"), "content").unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();

        let http = ServeHttp::directory(&root).unwrap();
        let started = http.start().unwrap();
        let answer = get(http.address(), "/sub/%C3%A4%20b?query");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("content"), "{answer}");
        for (path, status) in [
            ("/missing", "404"),
            ("/../secret", "403"),
            ("/%2e%2e/secret", "403"),
            ("/link", "403"),
            ("//etc/passwd", "404"),
            ("/sub", "404"),
            ("/%zz", "400"),
            ("/%00", "400"),
        ] {
            let answer = get(http.address(), path);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        }

        // Ended with the machine, and back with the next one.
        drop(started);
        let started = http.start().unwrap();
        assert!(get(http.address(), "/sub/%C3%A4%20b").ends_with("content"));
        drop(started);
        assert!(ServeHttp::directory(dir.path().join("secret")).is_err());
    }
}
