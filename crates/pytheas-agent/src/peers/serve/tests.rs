//! Others who hold a place and do not use it.

use std::io::{BufRead as _, BufReader};

use super::*;

fn shared(dir: &Path) -> Arc<Shared> {
    Arc::new(Shared {
        dir: StateDir::new(dir),
        limiter: None,
        busy: Mutex::default(),
        known: Mutex::default(),
    })
}

/// Both ends of a connection: ours, theirs.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, theirs)
}

#[test]
fn who_drips_is_let_go_at_the_same_moment_as_who_is_silent() {
    let (ours, mut theirs) = connection();
    let drips = std::thread::spawn(move || {
        while theirs.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let mut from = Until {
        stream: &ours,
        end: Instant::now() + Duration::from_millis(300),
    };
    let error = from.read_to_end(&mut Vec::new()).unwrap_err();
    let given_up = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock];
    assert!(given_up.contains(&error.kind()), "{error}");
    drop(ours);
    drips.join().unwrap();
}

#[test]
fn who_takes_an_answer_by_the_byte_is_let_go() {
    let (ours, mut theirs) = connection();
    let drips = std::thread::spawn(move || {
        while theirs.read(&mut [0]).is_ok_and(|read| read > 0) {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let mut to = Until {
        stream: &ours,
        end: Instant::now() + Duration::from_millis(300),
    };
    let much = vec![0; 64 << 20];
    assert!(to.write_all(&much).is_err());
    drop(ours);
    // What lies in buffers is taken at once after this, or not at all.
    drop(drips);
}

#[test]
fn one_address_does_not_hold_all_places_and_gives_them_back() {
    let dir = tempfile::tempdir().unwrap();
    let shared = shared(dir.path());
    let connections: Vec<_> = (0..OF_ONE).map(|_| connection()).collect();
    let take = |(ours, _): &(TcpStream, TcpStream)| Place::take(&shared, ours);
    let mut places: Vec<_> = connections.iter().map(|one| take(one).unwrap()).collect();
    let further = connection();
    assert!(take(&further).is_none());
    shared.busy().push("192.0.2.1".parse().unwrap());
    places.pop();
    assert!(take(&further).is_some_and(|place| place.whose.is_loopback()));
    drop(places);
    assert_eq!(shared.busy().len(), 1);
}

#[test]
fn after_a_long_time_a_connection_ends_with_a_whole_answer() {
    let (ours, theirs) = connection();
    let mut to = Until {
        stream: &ours,
        end: Instant::now() + PATIENCE,
    };
    answer(&mut to, "404 Not Found", 0, true).unwrap();
    drop(ours);
    let said: Vec<String> = BufReader::new(theirs).lines().map(Result::unwrap).collect();
    assert_eq!(said[..2], ["HTTP/1.1 404 Not Found", "Content-Length: 0"]);
    assert_eq!(said[2..], ["Connection: close", ""]);
}

#[test]
fn what_is_given_is_what_was_hashed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    pytheas_durable::replace(&path, b"content").unwrap();
    let (mut file, len) = whole(&path, Sha256::of(b"content")).unwrap();
    pytheas_durable::replace(&path, b"another").unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), len), ("content", 7));
    assert!(whole(&path, Sha256::of(b"content")).is_err());
}
