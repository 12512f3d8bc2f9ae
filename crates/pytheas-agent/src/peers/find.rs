//! Asks the network who has a tree: one small packet to a group (multicast UDP), answered by those who
//! have it with the port on which they share. It does not leave the local network (its time to live
//! is 1), and nothing is sent while nobody updates.
//!
//! ```text
//! question   pytheas 1 who-has <64 hex digits>
//! answer     pytheas 1 has <64 hex digits> <port>
//! ```
//! Anybody may answer anything: what an answer leads to is only asked for contents by their hashes.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use pytheas_release::TreeId;

use super::{PORT, serve::thread};

/// The group, of those that organisations use as they like (RFC 2365).
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 84, 79);
/// How long answers are waited for.
const PATIENCE: Duration = Duration::from_millis(700);
/// Between questions: who asks without end costs this device next to nothing.
const PAUSE: Duration = Duration::from_millis(5);
/// More peers are not asked.
const ENOUGH: usize = 8;
/// No packet of ours is longer.
const PACKET_MAX: usize = 128;

/// Answers questions from now on, for what lies on this `port`.
///
/// # Errors
/// The group cannot be joined.
pub(super) fn answer(
    port: u16,
    is_here: impl Fn(TreeId) -> bool + Send + 'static,
) -> io::Result<()> {
    let socket = shared_socket()?;
    socket.join_multicast_v4(&GROUP, &Ipv4Addr::UNSPECIFIED)?;
    thread("peers", move || {
        let mut packet = [0; PACKET_MAX];
        loop {
            let Ok((len, from)) = socket.recv_from(&mut packet) else {
                std::thread::sleep(Duration::from_secs(1));
                continue;
            };
            let Some(tree) = question(&packet[..len]) else {
                continue;
            };
            if is_here(tree) {
                let _lost = socket.send_to(format!("pytheas 1 has {tree} {port}").as_bytes(), from);
            }
            std::thread::sleep(PAUSE);
        }
    })
}

/// Several agents of one machine may listen (tests, containers that share its network).
fn shared_socket() -> io::Result<UdpSocket> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)))?;
    Ok(socket.into())
}

/// Addresses of those who say that they have `tree`.
pub(super) fn who_has(tree: TreeId) -> io::Result<Vec<String>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_multicast_ttl_v4(1)?;
    socket.send_to(question_for(tree).as_bytes(), (GROUP, PORT))?;
    let begun = Instant::now();
    let mut found = Vec::new();
    let mut packet = [0; PACKET_MAX];
    while found.len() < ENOUGH {
        let left = PATIENCE.saturating_sub(begun.elapsed());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left))?;
        let Ok((len, from)) = socket.recv_from(&mut packet) else {
            continue;
        };
        if let Some(port) = port(&packet[..len], tree) {
            let address = format!("http://{}", SocketAddr::new(from.ip(), port));
            if !found.contains(&address) {
                found.push(address);
            }
        }
    }
    Ok(found)
}

fn question_for(tree: TreeId) -> String {
    format!("pytheas 1 who-has {tree}")
}

fn question(packet: &[u8]) -> Option<TreeId> {
    let text = std::str::from_utf8(packet).ok()?;
    text.strip_prefix("pytheas 1 who-has ")?.parse().ok()
}

fn port(packet: &[u8], tree: TreeId) -> Option<u16> {
    let text = std::str::from_utf8(packet).ok()?;
    let rest = text.strip_prefix("pytheas 1 has ")?;
    let port = rest.strip_prefix(&tree.to_string())?.strip_prefix(' ')?;
    port.parse().ok().filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use pytheas_release::Sha256;

    use super::*;

    #[test]
    fn questions_and_answers_are_about_one_tree() {
        let (tree, other) = (TreeId(Sha256::of(b"a")), TreeId(Sha256::of(b"b")));
        assert_eq!(question(question_for(tree).as_bytes()), Some(tree));
        assert_eq!(question(b"pytheas 1 who-has everything"), None);
        assert_eq!(question(b"\xff"), None);
        let said = format!("pytheas 1 has {tree} 8479");
        assert_eq!(port(said.as_bytes(), tree), Some(8479));
        assert_eq!(port(said.as_bytes(), other), None);
        assert_eq!(
            port(format!("pytheas 1 has {tree} 0").as_bytes(), tree),
            None
        );
        assert_eq!(port(format!("{said}x").as_bytes(), tree), None);
    }
}
