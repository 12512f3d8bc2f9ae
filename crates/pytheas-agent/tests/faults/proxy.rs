//! A proxy between an agent and its hub that spoils one answer, or all from one on.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use crate::random::Random;

/// What is done to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// The connection ends without an answer.
    CutBefore,
    /// … in the head.
    CutInHead,
    /// … between head and body.
    CutAfterHead,
    /// … after the first byte.
    CutAfterOne,
    /// … anywhere in the body.
    CutInBody,
    /// … before the last byte.
    CutBeforeLast,
    /// One bit of the body is another.
    FlipBit,
    /// All of the body is zeros.
    Zeros,
    /// The body is empty.
    Empty,
    /// The length is told too small.
    ShortLength,
    /// The length is told too large.
    LongLength,
    /// More bytes come than belong to it.
    Surplus,
    /// No length, and a chunk that never comes.
    CutChunks,
    /// The part that comes is said to begin elsewhere; a whole file comes as a part.
    WrongRange,
    /// A part comes as if it were the whole file.
    PartAsWhole,
    /// The server is broken.
    Status500,
    /// It has much to do.
    Status503,
    /// There is no such file.
    Status404,
    /// The device is not known.
    Status401,
    /// The file is said to be elsewhere.
    Redirect,
    /// … at its own address, for ever.
    RedirectToItself,
    /// Said to be compressed, and is not.
    NotGzip,
    /// Compressed and cut.
    CutGzip,
    /// What the file was before the release was published; for others the answer before this one.
    Stale,
    /// No HTTP at all.
    Garbage,
    /// It comes byte by byte for a while.
    Slow,
}

impl Lie {
    pub(crate) const ALL: &[Self] = &[
        Self::CutBefore,
        Self::CutInHead,
        Self::CutAfterHead,
        Self::CutAfterOne,
        Self::CutInBody,
        Self::CutBeforeLast,
        Self::FlipBit,
        Self::Zeros,
        Self::Empty,
        Self::ShortLength,
        Self::LongLength,
        Self::Surplus,
        Self::CutChunks,
        Self::WrongRange,
        Self::PartAsWhole,
        Self::Status500,
        Self::Status503,
        Self::Status404,
        Self::Status401,
        Self::Redirect,
        Self::RedirectToItself,
        Self::NotGzip,
        Self::CutGzip,
        Self::Stale,
        Self::Garbage,
        Self::Slow,
    ];
}

/// What the proxy does and has seen.
#[derive(Default)]
pub(crate) struct Plan {
    /// The answer to be spoilt, how, whether all after it are too, and the seed.
    pub(crate) lie: Option<(usize, Lie, bool, u64)>,
    /// Every request line.
    pub(crate) seen: Vec<String>,
    /// Whether an answer was spoilt.
    pub(crate) lied: bool,
    /// `/repo/metadata/timestamp.json` as it was before.
    pub(crate) stale: Vec<u8>,
    before: Vec<u8>,
}

pub(crate) struct Proxy {
    plan: Arc<Mutex<Plan>>,
    address: String,
}

impl Proxy {
    /// Before the server at `upstream`, `HOST:PORT`.
    pub(crate) fn start(upstream: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let plan = Arc::<Mutex<Plan>>::default();
        let shared = Arc::clone(&plan);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (plan, upstream) = (Arc::clone(&shared), upstream.clone());
                std::thread::spawn(move || {
                    let _either_side_may_go = serve(stream, &upstream, &plan);
                });
            }
        });
        Self { plan, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// An HTTP message: its head with the empty line, and its body.
fn read_message(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let (mut head, mut length) = (String::new(), 0_usize);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        let is_end = line.trim_end().is_empty();
        head.push_str(&line);
        if is_end {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some((head, body)))
}

fn serve(client: TcpStream, upstream: &str, plan: &Mutex<Plan>) -> std::io::Result<()> {
    let server = TcpStream::connect(upstream)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let mut from_client = BufReader::new(client.try_clone()?);
    let mut from_server = BufReader::new(server.try_clone()?);
    let (mut client, mut server) = (client, server);
    while let Some((head, body)) = read_message(&mut from_client)? {
        server.write_all(head.as_bytes())?;
        server.write_all(&body)?;
        let request = head.lines().next().unwrap_or_default().to_owned();
        let Some((head, body)) = read_message(&mut from_server)? else {
            break;
        };
        let (lie, before) = {
            let mut plan = plan.lock().unwrap_or_else(|e| e.into_inner());
            let number = plan.seen.len();
            plan.seen.push(request.clone());
            let lie = plan.lie.and_then(|(at, lie, stays, seed)| {
                (number == at || stays && number > at).then_some((lie, seed))
            });
            plan.lied |= lie.is_some();
            let before = if request.contains("metadata/timestamp.json") {
                plan.stale.clone()
            } else {
                plan.before.clone()
            };
            plan.before.clone_from(&body);
            (lie, before)
        };
        match lie {
            None => {
                client.write_all(head.as_bytes())?;
                client.write_all(&body)?;
            }
            Some((lie, seed)) => {
                tell(&mut client, lie, seed, &request, &head, body, before)?;
                break;
            }
        }
    }
    client.shutdown(Shutdown::Both)
}

fn tell(
    client: &mut TcpStream,
    lie: Lie,
    seed: u64,
    request: &str,
    head: &str,
    mut body: Vec<u8>,
    before: Vec<u8>,
) -> std::io::Result<()> {
    let mut random = Random::new(seed);
    let total = body.len();
    let without_length = || -> String {
        head.trim_end()
            .lines()
            .filter(|line| !line.to_ascii_lowercase().starts_with("content-length:"))
            .fold(String::new(), |text, line| text + line + "\r\n")
    };
    let with_length = |len: usize| format!("{}Content-Length: {len}\r\n\r\n", without_length());
    let status = |line: &str| format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n");
    let mut send = |head: &str, body: &[u8]| {
        client.write_all(head.as_bytes())?;
        client.write_all(body)
    };
    match lie {
        Lie::CutBefore => Ok(()),
        Lie::CutInHead => send(&head[..1 + random.below(head.len() - 1)], &[]),
        Lie::CutAfterHead => send(head, &[]),
        Lie::CutAfterOne => send(head, &body[..total.min(1)]),
        Lie::CutInBody => send(head, &body[..random.below(total)]),
        Lie::CutBeforeLast => send(head, &body[..total.saturating_sub(1)]),
        Lie::FlipBit => {
            if total > 0 {
                body[random.below(total)] ^= 1 << random.below(8);
            }
            send(head, &body)
        }
        Lie::Zeros => send(head, &vec![0; total]),
        Lie::Empty => send(&with_length(0), &[]),
        Lie::ShortLength => send(&with_length(random.below(total)), &body),
        Lie::LongLength => send(&with_length(total + 1 + random.below(1000)), &body),
        Lie::Surplus => {
            body.extend((0..1 + random.below(100_000)).map(|i| i as u8));
            send(&with_length(body.len()), &body)
        }
        Lie::CutChunks => {
            let head = format!(
                "{}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n",
                without_length(),
                total + 9
            );
            send(&head, &body)
        }
        Lie::WrongRange => {
            let (first, len) = (1 + random.below(5000), total);
            let head = format!(
                "HTTP/1.1 206 X\r\nContent-Range: bytes {first}-{}/{}\r\nContent-Length: {len}\r\n\r\n",
                first + len,
                first + len + 1
            );
            send(&head, &body)
        }
        Lie::PartAsWhole => send(
            &format!("HTTP/1.1 200 X\r\nContent-Length: {total}\r\n\r\n"),
            &body,
        ),
        Lie::Status500 => send(&status("500 X"), &[]),
        Lie::Status503 => send(&status("503 X\r\nRetry-After: 1"), &[]),
        Lie::Status404 => send(&status("404 X"), &[]),
        Lie::Status401 => send(&status("401 X"), &[]),
        Lie::Redirect => send(
            &status("302 X\r\nLocation: http://127.0.0.1:9/elsewhere"),
            &[],
        ),
        Lie::RedirectToItself => {
            let path = request.split(' ').nth(1).unwrap_or("/");
            send(&status(&format!("302 X\r\nLocation: {path}")), &[])
        }
        Lie::NotGzip => {
            let head = format!(
                "{}Content-Encoding: gzip\r\nContent-Length: {total}\r\n\r\n",
                without_length()
            );
            send(&head, &body)
        }
        Lie::CutGzip => {
            // The head of a gzip file (RFC 1952), a stored block of 100 bytes, and then nothing.
            let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x01\x64\0\x9b\xffabc";
            let head = format!(
                "{}Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
                without_length(),
                gzip.len()
            );
            send(&head, gzip)
        }
        Lie::Stale => send(&with_length(before.len()), &before),
        Lie::Garbage => send("SSH-2.0-OpenSSH_9.9\r\n\0\0\x07", &body),
        Lie::Slow => {
            send(head, &[])?;
            let (slow, rest) = body.split_at(total.min(20));
            for byte in slow {
                send("", &[*byte])?;
                std::thread::sleep(Duration::from_millis(2));
            }
            send("", rest)
        }
    }
}
