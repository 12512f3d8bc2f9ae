//! A hub that says what a test wants it to say.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use pytheas_release::Sha256;
use serde_json::json;

/// It serves until the test ends.
pub(crate) struct Hub {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    /// With an image to install, unless it is empty, and something it does wrong.
    pub(crate) fn start(lie: &'static str, image: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _it_may_hang_up = answer(stream, lie, &image, &seen);
            }
        });
        Self { address, asked }
    }

    /// Settings of a device that asks it.
    pub(crate) fn config(&self) -> String {
        let hub = format!("http://{}", self.address);
        json!({"hub": hub, "id": "node", "token": "t", "poll": 7, "confirm": 20, "attempts": 2,
            "on_exit": "stop"})
        .to_string()
    }

    /// What came of requests: their first lines and bodies.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no test panics with it").clone()
    }
}

fn answer(
    mut stream: TcpStream,
    lie: &str,
    image: &[u8],
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut sent = vec![0; length];
    reader.read_exact(&mut sent)?;
    seen.lock()
        .expect("no test panics with it")
        .push(first.clone() + &String::from_utf8_lossy(&sent));
    let sleep = lie.strip_prefix("sleep ").unwrap_or("00:00:05");
    let root = "http://elsewhere/default/controller/v1/node";
    let (status, body) = if first.starts_with("POST") && lie == "no feedback" {
        ("413 Too Large", Vec::new())
    } else if !first.starts_with("GET") {
        ("200 OK", Vec::new())
    } else if let Some(status) = lie.strip_prefix("status ") {
        (status, b"<html>a page</html>".to_vec())
    } else if let (Some(status), true) = (lie.strip_prefix("image "), first.contains("/image ")) {
        (status, b"<html>a page</html>".to_vec())
    } else if first.contains("/image ") {
        ("200 OK", image.to_vec())
    } else if first.contains("/deploymentBase/7") {
        let artifact = json!({
            "filename": "a.romfs", "size": image.len(),
            "hashes": {"sha256": Sha256::of(image).to_string()},
            "_links": {"download": {"href": format!("{root}/image")}}
        });
        let body = json!({"id": "7", "deployment": {"chunks": [{"artifacts": [artifact]}]}});
        ("200 OK", body.to_string().into_bytes())
    } else if let Some(root) = lie.strip_prefix("root ") {
        ("200 OK", root.as_bytes().to_vec())
    } else {
        let mut body = json!({"config": {"polling": {"sleep": sleep}}, "_links": {}});
        if !image.is_empty() {
            body["_links"]["deploymentBase"]["href"] = format!("{root}/deploymentBase/7").into();
        }
        ("200 OK", body.to_string().into_bytes())
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)?;
    // As if it had not seen that HTTP/1.0 ends with the connection: until the other side hangs up.
    if lie == "no end" {
        reader.read_to_end(&mut Vec::new())?;
    }
    Ok(())
}
