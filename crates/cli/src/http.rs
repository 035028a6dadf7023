//! HTTP/1.1 as a client that measures needs it: one connection, one request at a time, bytes
//! prepared beforehand, answers read into one buffer that is used again.
//!
//! A general client costs more CPU for a request than a small model does; a load generator built on
//! one measures itself.

use std::fmt;
use std::time::Duration;

use bytes::Buf;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Failure;

/// The most that one answer's head may take, and the most headers in it.
const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;
/// The most that one answer may hold.
const MAX_BODY: usize = 1 << 30;

/// Where a server listens: `http://host:port/prefix`, in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `host:port`, as it is connected to.
    pub address: String,
    /// What the `Host` header says.
    pub authority: String,
    /// A path in front of every route, without a slash at its end.
    pub prefix: String,
}

impl Endpoint {
    /// Reads `http://host:port/prefix`; scheme, port (80, or 8080 if there is no scheme) and prefix
    /// may be left out.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| {
            Failure::usage(format!("\"{text}\" is not a server's address: {why}"))
                .help("write it as http://127.0.0.1:8080, 127.0.0.1:8080 or localhost")
        };
        let (rest, default_port) = match text.split_once("://") {
            Some(("http", rest)) => (rest, 80),
            Some(("https", _)) => return Err(wrong("TLS is not supported by this client")),
            Some(_) => return Err(wrong("the scheme has to be http")),
            None => (text, 8080),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.is_empty() || authority.contains(['@', '?', '#', ' ']) {
            return Err(wrong("there is no host in it"));
        }
        let has_port = match authority.rsplit_once(':') {
            // The colon belongs to an IPv6 address without a port.
            _ if authority.ends_with(']') => false,
            Some((host, _)) if host.contains(':') && !host.ends_with(']') => {
                return Err(wrong("an IPv6 address is written in brackets, such as [::1]:8080"));
            }
            Some((_, port)) => {
                port.parse::<u16>().map_err(|_| wrong("the port is not a number up to 65535"))?;
                true
            }
            None => false,
        };
        let address =
            if has_port { authority.to_owned() } else { format!("{authority}:{default_port}") };
        let prefix = path.trim_end_matches('/').to_owned();
        Ok(Self { authority: address.clone(), address, prefix })
    }

    /// The bytes of a request without a body.
    pub fn get(&self, path: &str) -> Vec<u8> {
        let Self { authority, prefix, .. } = self;
        format!(
            "GET {prefix}{path} HTTP/1.1\r\nhost: {authority}\r\naccept: application/json\r\n\r\n"
        )
        .into_bytes()
    }

    /// The bytes of a POST; headers are `(name, value)`.
    pub fn post(&self, path: &str, headers: &[(String, String)], body: &[u8]) -> Vec<u8> {
        self.request("POST", path, headers, body)
    }

    /// The bytes of a request with a body, which may be empty; headers are `(name, value)`.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Vec<u8> {
        let Self { authority, prefix, .. } = self;
        let mut head = format!("{method} {prefix}{path} HTTP/1.1\r\nhost: {authority}\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.prefix)
    }
}

/// The head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Bytes that the head takes.
    length: usize,
    body: Body,
    /// The length of the JSON part of a body that goes on with binary tensors.
    json: Option<usize>,
    close: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Sized(usize),
    Chunked,
    /// It ends when the connection does.
    Open,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `Inference-Header-Content-Length`: where the JSON ends and binary tensors begin.
    pub json: Option<usize>,
    /// The body.
    pub body: Vec<u8>,
}

/// What went wrong on the way.
#[derive(Debug)]
pub enum Broken {
    /// There is no connection.
    Connect(std::io::Error),
    /// The connection broke.
    Stream(std::io::Error),
    /// The server closed the connection before it had answered.
    Closed,
    /// What came is not HTTP/1.1, or is too large.
    Malformed(&'static str),
    /// No answer in time.
    TimedOut(Duration),
}

impl Broken {
    /// A short name to count by.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Stream(_) => "reset",
            Self::Closed => "closed",
            Self::Malformed(_) => "malformed",
            Self::TimedOut(_) => "timeout",
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Stream(error) => write!(f, "the connection broke: {error}"),
            Self::Closed => f.write_str("the server closed the connection without an answer"),
            Self::Malformed(why) => write!(f, "the answer is not HTTP/1.1: {why}"),
            Self::TimedOut(time) => write!(f, "no answer within {time:?}"),
        }
    }
}

/// One connection, kept open from request to request.
pub struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
    open: bool,
}

impl Connection {
    /// Connects.
    pub async fn open(endpoint: &Endpoint) -> Result<Self, Broken> {
        let stream = TcpStream::connect(&endpoint.address).await.map_err(Broken::Connect)?;
        stream.set_nodelay(true).map_err(Broken::Connect)?;
        Ok(Self { stream, buffer: BytesMut::with_capacity(16 * 1024), open: true })
    }

    /// Whether another request may be sent: false once the server has said that it closes.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Sends a prepared request and returns the status and the size of the answer's body, which is
    /// thrown away.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<(u16, usize), Broken> {
        let head = self.ask(request).await?;
        let size = match head.body {
            Body::Sized(size) => self.skip(size).await?,
            Body::Chunked | Body::Open => self.collect(head.body).await?.len(),
        };
        Ok((head.status, size))
    }

    /// Sends a prepared request and returns the whole answer.
    pub async fn answer(&mut self, request: &[u8]) -> Result<Answer, Broken> {
        let head = self.ask(request).await?;
        let body = self.collect(head.body).await?;
        Ok(Answer { status: head.status, json: head.json, body })
    }

    /// Sends the request and reads the answer's head, passing over interim ones such as
    /// `100 Continue`.
    async fn ask(&mut self, request: &[u8]) -> Result<Head, Broken> {
        // A server may refuse a large body with an answer and a reset: the answer is worth more
        // than the failed write, so reading is tried before that is reported.
        let written = self.stream.write_all(request).await;
        loop {
            let head = match (self.head().await, &written) {
                (Ok(head), _) => head,
                (Err(_), Err(error)) => return Err(Broken::Stream(error.kind().into())),
                (Err(broken), Ok(())) => return Err(broken),
            };
            self.buffer.advance(head.length);
            if head.status >= 200 {
                self.open = !head.close && written.is_ok();
                return Ok(head);
            }
        }
    }

    async fn head(&mut self) -> Result<Head, Broken> {
        loop {
            if let Some(head) = parse_head(&self.buffer)? {
                return Ok(head);
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(Broken::Malformed("its head is too large"));
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), Broken> {
        self.buffer.reserve(16 * 1024);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => Err(Broken::Closed),
            Ok(_) => Ok(()),
            Err(error) => Err(Broken::Stream(error)),
        }
    }

    async fn skip(&mut self, size: usize) -> Result<usize, Broken> {
        let mut left = size;
        loop {
            let here = left.min(self.buffer.len());
            self.buffer.advance(here);
            left -= here;
            if left == 0 {
                return Ok(size);
            }
            self.fill().await?;
        }
    }

    async fn take(&mut self, size: usize, into: &mut Vec<u8>) -> Result<(), Broken> {
        if into.len().saturating_add(size) > MAX_BODY {
            return Err(Broken::Malformed("its body is too large"));
        }
        while self.buffer.len() < size {
            self.fill().await?;
        }
        into.extend_from_slice(&self.buffer[..size]);
        self.buffer.advance(size);
        Ok(())
    }

    async fn collect(&mut self, body: Body) -> Result<Vec<u8>, Broken> {
        let mut bytes = Vec::new();
        match body {
            Body::Sized(size) => self.take(size, &mut bytes).await?,
            Body::Chunked => loop {
                let line = self.line().await?;
                let digits = line.split(';').next().unwrap_or_default().trim();
                let size = usize::from_str_radix(digits, 16)
                    .map_err(|_| Broken::Malformed("a chunk has no length"))?;
                self.take(size, &mut bytes).await?;
                if size == 0 {
                    // Trailers end with an empty line.
                    while !self.line().await?.is_empty() {}
                    break;
                }
                self.line().await?;
            },
            Body::Open => loop {
                let here = self.buffer.len();
                self.take(here, &mut bytes).await?;
                match self.fill().await {
                    Ok(()) => {}
                    Err(Broken::Closed) => break,
                    Err(broken) => return Err(broken),
                }
            },
        }
        Ok(bytes)
    }

    /// One line, without its end.
    async fn line(&mut self) -> Result<String, Broken> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(Broken::Malformed("a line in it is too long"));
            }
            self.fill().await?;
        }
    }
}

/// The head at the start of the bytes; `None` if it has not all come yet.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>, Broken> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Broken::Malformed("its head cannot be read")),
    };
    let status = response.code.unwrap_or(0);
    let mut head =
        Head { status, length, body: Body::Open, json: None, close: response.version == Some(0) };
    if status < 200 || status == 204 || status == 304 {
        head.body = Body::Sized(0);
    }
    for header in response.headers {
        let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            let size = value.parse().map_err(|_| Broken::Malformed("its length is no number"))?;
            if head.body == Body::Open {
                head.body = Body::Sized(size);
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            head.body = Body::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            head.close = value.eq_ignore_ascii_case("close");
        } else if header.name.eq_ignore_ascii_case("inference-header-content-length") {
            head.json = value.parse().ok();
        }
    }
    head.close |= head.body == Body::Open;
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn addresses_are_read_in_every_form() {
        let parse = |text: &str| Endpoint::parse(text).unwrap();
        assert_eq!(parse("http://h:81/a/b/").to_string(), "http://h:81/a/b");
        assert_eq!(parse("http://h").address, "h:80");
        assert_eq!(parse("h").address, "h:8080");
        assert_eq!(parse("[::1]:9").address, "[::1]:9");
        assert_eq!(parse("[::1]").address, "[::1]:8080");
        for wrong in ["https://h", "ftp://h", "", "http://", "h:99999", "::1", "a b"] {
            assert!(Endpoint::parse(wrong).is_err(), "{wrong}");
        }
    }

    /// Answers each connection with the same bytes, cut where the test says, after it has read
    /// something.
    async fn server(parts: Vec<&'static [u8]>) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = [0; 1024];
            let _ = stream.read(&mut seen).await.unwrap();
            for part in parts {
                stream.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        endpoint
    }

    async fn answer(parts: Vec<&'static [u8]>) -> Result<Answer, Broken> {
        let endpoint = server(parts).await;
        let mut connection = Connection::open(&endpoint).await?;
        connection.answer(&endpoint.get("/")).await
    }

    #[tokio::test]
    async fn bodies_are_read_however_they_are_framed() {
        let sized = answer(vec![b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 5\r\n\r\nhe", b"llo"]);
        assert_eq!(sized.await.unwrap().body, b"hello");
        let chunked = answer(vec![
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r",
            b"\nhel\r\n2;x=y\r\nlo\r\n0\r\nt: 1\r\n\r\n",
        ]);
        assert_eq!(chunked.await.unwrap().body, b"hello");
        let open = answer(vec![b"HTTP/1.0 400 Bad\r\n\r\nhel", b"lo"]).await.unwrap();
        assert_eq!((open.status, &open.body[..]), (400, &b"hello"[..]));
    }

    #[tokio::test]
    async fn broken_answers_are_named() {
        let cases: [(&'static [u8], &str); 4] = [
            (b"", "closed"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", "closed"),
            (b"SSH-2.0\r\n\r\n", "malformed"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "malformed"),
        ];
        for (bytes, kind) in cases {
            assert_eq!(answer(vec![bytes]).await.unwrap_err().kind(), kind);
        }
    }
}
