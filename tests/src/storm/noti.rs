//! A NOTI that fails as it is told, and remembers what it was told. It keeps an event once, under
//! its `webhook-id`.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use aio_protocol::{event::NodeEvent, ids::NodeId, node::NodeStatus, time::Timestamp};
use anyhow::{Context, Result};
use rustix::net::sockopt;

use super::http::Message;
use crate::wait::wait_for;

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// It keeps every event.
    Well,
    /// 30 % are answered 500; 5 % are reset after the body was read, half of these kept.
    Moody,
    /// 429 and 503, with `Retry-After` as seconds and as a date.
    Throttling,
    /// It resets every connection.
    Down,
}

/// An event that was kept.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub id: String,
    pub status: NodeStatus,
    pub at: Timestamp,
    /// When it was answered.
    pub answered: Instant,
}

/// All that was kept, by node in the order in which it was.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    pub nodes: HashMap<NodeId, Vec<Kept>>,
    /// The bodies, by id.
    pub bodies: HashMap<String, Vec<u8>>,
    pub events: usize,
    /// Posts of events that were kept before.
    pub duplicates: usize,
    /// What was wrong with a post, if anything was.
    pub wrong: Option<String>,
    /// How often each answer was given.
    pub answers: BTreeMap<&'static str, usize>,
}

pub(super) struct Noti {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    mood: Mutex<(Mood, fastrand::Rng)>,
    record: Mutex<Record>,
    connections: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
}

/// What is done with a post.
enum Deed {
    Answer { keep: bool, name: &'static str, line: &'static str, retry_after: Option<String> },
    Reset { keep: bool },
}

impl Noti {
    pub(super) fn start(chance: fastrand::Rng) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on loopback")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            mood: Mutex::new((Mood::Well, chance)),
            record: Mutex::default(),
            connections: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let serving = state.clone();
        thread::spawn(move || {
            for connection in listener.incoming() {
                if serving.ended.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(connection) = connection else { continue };
                if held(&serving.mood).0 == Mood::Down {
                    reset(&connection);
                    continue;
                }
                let Ok(other_end) = connection.try_clone() else { continue };
                let mut connections = held(&serving.connections);
                connections.retain(|it| it.peer_addr().is_ok());
                connections.push(other_end);
                let serving = serving.clone();
                // A controller that is killed in the middle is what it is about.
                thread::spawn(move || serve(&connection, &serving).unwrap_or_default());
            }
        });
        Ok(Self { address, state })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From the next post on; when it goes down, at once.
    pub(super) fn behave(&self, mood: Mood) {
        held(&self.state.mood).0 = mood;
        if mood == Mood::Down {
            for connection in held(&self.state.connections).drain(..) {
                reset(&connection);
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
    }

    /// Is in one mood after the other until `done`.
    pub(super) fn vary(&self, mut chance: fastrand::Rng, done: &AtomicBool) {
        let mut moods =
            [Mood::Moody, Mood::Throttling, Mood::Moody, Mood::Down, Mood::Moody, Mood::Well].iter().cycle();
        while !done.load(Ordering::Relaxed) {
            let Some(mood) = moods.next() else { return };
            self.behave(*mood);
            let lasts = Duration::from_millis(match mood {
                Mood::Moody => chance.u64(500..2500),
                Mood::Well | Mood::Down => chance.u64(200..1000),
                Mood::Throttling => chance.u64(50..300),
            });
            let until = Instant::now() + lasts;
            while Instant::now() < until && !done.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Waits until so many events are kept.
    pub(super) fn wait_until_told(&self, events: usize, bound: Duration) -> Result<()> {
        let look = || Ok(held(&self.state.record).events);
        wait_for(&format!("{events} events"), bound, look, |kept| *kept >= events).map(drop)
    }

    pub(super) fn kept(&self) -> Record {
        held(&self.state.record).clone()
    }
}

impl Drop for Noti {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        self.behave(Mood::Down);
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So that closing it resets it.
fn reset(connection: &TcpStream) {
    let _ = sockopt::set_socket_linger(connection, Some(Duration::ZERO));
}

fn serve(mut connection: &TcpStream, state: &State) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut requests = BufReader::new(connection.try_clone()?);
    while let Some(post) = Message::read(&mut requests)? {
        let deed = decide(&mut held(&state.mood));
        match deed {
            Deed::Reset { keep } => {
                let mut record = held(&state.record);
                *record.answers.entry("reset").or_default() += 1;
                if keep {
                    record.keep(&post);
                }
                drop(record);
                reset(connection);
                return connection.shutdown(Shutdown::Both);
            }
            Deed::Answer { keep, name, line, retry_after } => {
                let mut record = held(&state.record);
                *record.answers.entry(name).or_default() += 1;
                if keep {
                    record.keep(&post);
                }
                drop(record);
                let retry_after = retry_after.map(|it| format!("Retry-After: {it}\r\n")).unwrap_or_default();
                write!(connection, "HTTP/1.1 {line}\r\n{retry_after}Content-Length: 0\r\n\r\n")?;
            }
        }
    }
    Ok(())
}

fn decide((mood, chance): &mut (Mood, fastrand::Rng)) -> Deed {
    let answer = |keep, name, line| Deed::Answer { keep, name, line, retry_after: None };
    match mood {
        Mood::Well => answer(true, "202", "202 Accepted"),
        Mood::Moody => match chance.u32(0..100) {
            0..30 => answer(false, "500", "500 Internal Server Error"),
            30..35 => Deed::Reset { keep: chance.bool() },
            _ => answer(true, "202", "202 Accepted"),
        },
        Mood::Throttling if chance.bool() => Deed::Answer {
            keep: false,
            name: "429",
            line: "429 Too Many Requests",
            retry_after: Some("1".to_owned()),
        },
        Mood::Throttling => Deed::Answer {
            keep: false,
            name: "503",
            line: "503 Service Unavailable",
            retry_after: Some(http_date(Duration::from_secs(1))),
        },
        Mood::Down => Deed::Reset { keep: false },
    }
}

/// So far from now, as HTTP writes dates.
fn http_date(ahead: Duration) -> String {
    let then = jiff::Timestamp::now() + ahead;
    then.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

impl Record {
    fn keep(&mut self, post: &Message) {
        match self.read(post) {
            Ok(()) => {}
            Err(error) => drop(self.wrong.get_or_insert(format!("{error:#}"))),
        }
    }

    fn read(&mut self, post: &Message) -> Result<()> {
        let id = post.header("webhook-id").context("a post without webhook-id")?;
        if let Some(before) = self.bodies.get(id) {
            self.duplicates += 1;
            anyhow::ensure!(*before == post.body, "{id} was posted with two bodies");
            return Ok(());
        }
        let event: NodeEvent = serde_json::from_slice(&post.body)?;
        let kept =
            Kept { id: id.to_owned(), status: event.status(), at: event.timestamp, answered: Instant::now() };
        self.bodies.insert(id.to_owned(), post.body.clone());
        self.nodes.entry(event.node_id().clone()).or_default().push(kept);
        self.events += 1;
        Ok(())
    }
}
