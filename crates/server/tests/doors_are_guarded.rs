//! Who may come in: keys, hosts, origins; and where the server stands.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use common::scripted::{scholar, thinker};
use common::{Running, config};
use minke_server::Server;
use serde_json::json;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn keys_open_the_door() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    std::fs::write(&keys, "# two people\nfirst-key-123\nsecond-key-456\n").unwrap();
    let server = Running::start(scholar, &format!("key_file = {:?}", keys.display().to_string()));
    let body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}).to_string();
    let post =
        |headers: &[(&str, &str)], path: &str| server.send("POST", path, &[&[JSON], headers].concat(), body.as_bytes());
    for (headers, status) in [
        (vec![], 401),
        (vec![("authorization", "Bearer wrong")], 401),
        (vec![("authorization", "Bearer first-key-12")], 401),
        (vec![("authorization", "Bearer first-key-1234")], 401),
        (vec![("authorization", "Basic first-key-123")], 401),
        (vec![("authorization", "Bearer first-key-123")], 200),
        (vec![("authorization", "bearer second-key-456")], 200),
        (vec![("x-api-key", "second-key-456")], 200),
    ] {
        assert_eq!(post(&headers, "/v1/chat/completions").status, status, "{headers:?}");
    }
    let refused = post(&[], "/v1/chat/completions");
    assert_eq!(refused.json()["error"]["code"], "invalid_api_key");
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    assert_eq!(post(&[], "/v1/messages").json()["error"]["type"], "authentication_error");
    assert_eq!(server.get("/metrics").status, 401);
    assert_eq!(server.get("/health").status, 200);
    // What one key asked is not found by another.
    let long = json!({"messages": [{"role": "user", "content": "x".repeat(150)}], "max_tokens": 2}).to_string();
    let cached = |key: &str| {
        let headers = [JSON, ("x-api-key", key)];
        let value = server.send("POST", "/v1/chat/completions", &headers, long.as_bytes()).json();
        value["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
    };
    assert_eq!((cached("first-key-123"), cached("second-key-456")), (0, 0));
    assert!(cached("first-key-123") >= 128 && cached("second-key-456") >= 128);
}

#[test]
fn other_hosts_and_origins_stay_outside() {
    let server =
        Running::start(thinker, "cors_origins = [\"https://chat.example.org\"]\nallowed_hosts = [\"box.lan\"]");
    for (host, status) in [
        ("127.0.0.1:1234", 200),
        ("localhost", 200),
        ("LOCALHOST:80", 200),
        ("[::1]:80", 200),
        ("box.lan:8080", 200),
        ("evil.example.org", 403),
        ("localhost.evil.example.org", 403),
        ("10.0.0.1", 403),
    ] {
        assert_eq!(server.send("GET", "/health", &[("host", host)], b"").status, status, "{host}");
    }
    let asks = [("access-control-request-method", "POST"), ("origin", "https://chat.example.org")];
    let allowed = server.send("OPTIONS", "/v1/chat/completions", &asks, b"");
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (204, Some(asks[1].1)));
    let other = [asks[0], ("origin", "https://evil.example.org")];
    let refused = server.send("OPTIONS", "/v1/chat/completions", &other, b"");
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (405, None));
    let read = server.send("GET", "/v1/models", &[asks[1]], b"");
    assert_eq!(read.header("access-control-allow-origin"), Some(asks[1].1));
    assert_eq!(server.get("/v1/models").header("access-control-allow-origin"), None);
}

#[test]
fn a_server_stands_where_it_is_put() {
    let server = Running::start(thinker, "base_path = \"/ai/minke\"");
    assert_eq!((server.get("/ai/minke/health").status, server.get("/health").status), (200, 404));

    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("minke.sock");
    let server = Running::start(thinker, &format!("socket = {:?}", socket.display().to_string()));
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: anything\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    drop(server);
    // The socket of a server that is gone is taken over.
    drop(Running::start(thinker, &format!("socket = {:?}", socket.display().to_string())));
}

#[test]
fn tls_is_spoken() {
    let file = |name: &str| format!("{}/../../testdata/tls/{name}.pem", env!("CARGO_MANIFEST_DIR"));
    let settings = format!("tls_cert = {:?}\ntls_key = {:?}", file("certificate"), file("key"));
    let server = Running::start(thinker, &settings);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("certificate")).unwrap()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(rustls_graviola::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Arc::new(client);
    let ask = |name: &'static str, request: &[u8]| -> std::io::Result<String> {
        let name = ServerName::try_from(name).unwrap();
        let connection = ClientConnection::new(client.clone(), name).unwrap();
        let mut stream = StreamOwned::new(connection, server.connect());
        stream.write_all(request)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    for name in ["localhost", "127.0.0.1"] {
        let text = ask(name, &server.head("GET", "/health", &[], 0)).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    }
    let body = json!({"messages": [{"role": "user", "content": "hello"}], "stream": true}).to_string();
    let head = server.head("POST", "/v1/chat/completions", &[JSON], body.len());
    let text = ask("localhost", &[&head, body.as_bytes()].concat()).unwrap();
    assert!(text.contains("data: [DONE]"), "{text}");
    // A client that expects somebody else goes away, one that speaks no TLS gets no answer, and others are served.
    assert!(ask("example.org", &server.head("GET", "/health", &[], 0)).is_err());
    let mut plain = server.connect();
    plain.write_all(&server.head("GET", "/health", &[], 0)).unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    assert!(ask("localhost", &server.head("GET", "/health", &[], 0)).is_ok());
}

#[test]
fn settings_that_open_the_door_to_all_are_refused() {
    for (settings, word) in [
        ("host = \"0.0.0.0\"", "key_file"),
        ("tls_cert = \"a.pem\"", "tls_key"),
        ("base_path = \"minke/\"", "base_path"),
        ("max_running = 0", "max_running"),
        ("key_file = \"/nonexistent/keys\"", "/nonexistent/keys"),
    ] {
        let refused = Server::bind(config(settings), |_| {}).err().unwrap_or_else(|| panic!("{settings} is taken"));
        assert!(refused.to_string().contains(word), "{settings}: {refused}");
    }
    let taken = Running::start(thinker, "");
    let port: u16 = taken.address.rsplit_once(':').unwrap().1.parse().unwrap();
    let mut twice = config("");
    twice.port = port;
    assert!(Server::bind(twice, |_| {}).err().unwrap().to_string().contains("in use"));
}
