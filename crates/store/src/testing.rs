//! A PostgreSQL server of their own for tests: a cluster in a temporary directory, at a free port of 127.0.0.1.
//!
//! The programs are taken from the directory in `RETINKER_POSTGRES`, else from PATH, else from where Debian puts them. A
//! test that cannot have its server fails, and says what to install.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// The server's superuser.
pub const USER: &str = "retinker";
/// That user's password.
pub const PASSWORD: &str = "hunter2-hunter2";

/// A running server; stopped, and all of it removed, when this is dropped.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    dir: TempDir,
    port: u16,
    databases: AtomicU32,
}

/// A server's certificate and its key, in PEM.
#[derive(Debug)]
pub struct Certificate {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Postgres {
    /// The server that the tests of this process share.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let started = Arc::new(Self::start(None));
            *shared = Arc::downgrade(&started);
            started
        })
    }

    /// A server for one test alone; with TLS where there is a certificate.
    pub fn start(tls: Option<&Certificate>) -> Self {
        let programs = programs();
        let dir = tempfile::Builder::new().prefix("retinker-postgres-").tempdir().unwrap();
        let mut server = Self { programs, dir, port: 0, databases: AtomicU32::new(0) };
        server.give_to_its_user(server.dir.path());
        std::fs::write(server.file("password"), PASSWORD).unwrap();
        server.give_to_its_user(&server.file("password"));
        // It sorts texts as people do, where the journal sorts bytes: a store that relied on the default would be found out.
        server
            .run(
                "initdb",
                &["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"],
                |command| {
                    command.args([
                        "--locale-provider=icu",
                        "--icu-locale=en",
                        "--username",
                        USER,
                        "--pwfile",
                    ]);
                    command.arg(server.file("password"));
                },
            )
            .unwrap_or_else(|error| panic!("{error}\n{INSTALL}"));
        if let Some(tls) = tls {
            for (name, text) in [("server.crt", &tls.certificate), ("server.key", &tls.key)] {
                let path = server.file("data").join(name);
                std::fs::write(&path, text).unwrap();
                server.give_to_its_user(&path);
            }
        }
        // Somebody else may take the port between the look and the start.
        let mut outcome = Ok(());
        for _ in 0..5 {
            server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            server.configure(tls.is_some());
            outcome = server.control("start", &[]);
            if outcome.is_ok() {
                return server;
            }
        }
        panic!("{}", outcome.unwrap_err())
    }

    fn configure(&self, tls: bool) {
        let text = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = ''\nssl = {}\nfsync = off\n\
             max_connections = 50\nshared_buffers = 16MB\ndynamic_shared_memory_type = mmap\n",
            self.port,
            if tls { "on" } else { "off" },
        );
        // The file that it reads after its own: `initdb` made it empty.
        std::fs::write(self.file("data").join("postgresql.auto.conf"), text).unwrap();
    }

    /// Its port at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A directory that is removed with the server.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The URL of a new, empty database.
    pub async fn database(&self) -> String {
        let name = format!("journal_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        sql(&self.url("postgres"), &format!("CREATE DATABASE {name}")).await;
        self.url(&name)
    }

    /// The URL of this database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// Stops and starts it; whoever is connected is thrown out.
    pub fn restart(&self) {
        self.control("restart", &["-m", "fast"]).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Stops it.
    pub fn stop(&self) {
        self.control("stop", &["-m", "fast"]).unwrap_or_else(|error| panic!("{error}"));
    }

    fn control(&self, action: &str, arguments: &[&str]) -> Result<(), String> {
        let log = self.file("log");
        self.run("pg_ctl", &[action, "--wait"], |command| {
            command.args(arguments);
            if action != "stop" {
                command.arg("--log").arg(&log);
            }
        })
        .map_err(|error| format!("{error}\n{}", std::fs::read_to_string(&log).unwrap_or_default()))
    }

    fn run(&self, program: &str, arguments: &[&str], more: impl FnOnce(&mut Command)) -> Result<(), String> {
        let program = self.programs.join(program);
        let mut command = match server_user() {
            None => Command::new(&program),
            Some(user) => {
                let mut command = Command::new("runuser");
                command.args(["-u", user, "--"]).arg(&program);
                command
            }
        };
        command.args(arguments).arg("-D").arg(self.file("data")).current_dir(self.dir.path());
        more(&mut command);
        let output = command.output().map_err(|error| format!("{command:?} cannot be started: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(format!("{command:?} failed: {}\n{}", output.status, String::from_utf8_lossy(&said)))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// PostgreSQL refuses to run as root, and to use a key that others can read.
    fn give_to_its_user(&self, path: &Path) {
        #[cfg(unix)]
        {
            use std::os::unix::fs::{PermissionsExt, chown};
            let mode = if path.is_dir() { 0o700 } else { 0o600 };
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
            if let Some(user) = server_user() {
                let id = id(&["-u", user]).unwrap_or_else(|| {
                    panic!("there is no user {user}, as which PostgreSQL runs when the tests run as root: {INSTALL}")
                });
                chown(path, Some(id), None).unwrap();
            }
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A test may have stopped it, or it never started; either way nothing of it is left.
        let _ = self.control("stop", &["-m", "immediate"]);
    }
}

const INSTALL: &str = "run `cargo xtask test needs`, which installs PostgreSQL, or name the directory of initdb and pg_ctl \
                       (PostgreSQL 15 or newer) in RETINKER_POSTGRES";

/// The directory of PostgreSQL's programs.
fn programs() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<PathBuf> = debian.map(|version| version.path().join("bin")).collect();
    // The newest first.
    debian.sort_by(|a, b| b.cmp(a));
    let named = std::env::var_os("RETINKER_POSTGRES").map(PathBuf::from);
    let mut places = named.into_iter().chain(std::env::split_paths(&path)).chain(debian);
    places
        .find(|dir| dir.join("initdb").is_file() && dir.join("pg_ctl").is_file())
        .unwrap_or_else(|| panic!("these tests need a PostgreSQL server: {INSTALL}"))
}

/// Who runs the server; `None`: whoever runs the tests.
fn server_user() -> Option<&'static str> {
    (id(&["-u"]) == Some(0)).then_some("postgres")
}

fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

/// Runs SQL in the database of this URL; gives the first column of what it answers.
pub async fn sql(url: &str, sql: &str) -> Vec<String> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let answer = client.simple_query(sql).await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
    let first = |message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    answer.into_iter().filter_map(first).collect()
}
