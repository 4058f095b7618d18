//! The coordinator's ear: one thread that looks at every pilot's files and hands on what is new.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{Beat, CoordinatorBeat, Direction, Meet, Pace, Pulse, SpoolReader, Taken, Up, beat, spool::names};

/// Maximum time until the end of the listening is noticed, beside that of a look.
const NAP: Duration = Duration::from_millis(50);
/// Time between two looks for signs of life, as a share of the lease.
const LOOKS_PER_LEASE: u32 = 12;

/// What arrives from a pilot.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A message.
    Said(Up),
    /// A sign of life.
    Beat(Beat),
    /// Nothing for the time of a lease.
    Silent,
    /// Something that is no message of a pilot of this sweep.
    Refused(String),
}

/// A listening thread; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Host {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Pilot {
    reader: SpoolReader,
    pulse: Pulse,
    silent: bool,
    /// Whether its last word was said.
    gone: bool,
}

impl Host {
    /// Listens. What arrives goes to `sender`, with the pilot's name.
    pub fn listen<M: Send + 'static>(
        meet: Meet,
        beat: CoordinatorBeat,
        lease: Duration,
        sender: Sender<M>,
        wrap: fn(String, Arrival) -> M,
    ) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let mut ear = Ear { meet, own: beat, lease, pilots: BTreeMap::new(), count: 0, looked: None };
            let mut pace = Pace::default();
            while !end.load(Ordering::SeqCst) {
                let start = Instant::now();
                let listens = ear.look(&mut |name, arrival| {
                    if matches!(arrival, Arrival::Said(_)) {
                        pace.message();
                    }
                    sender.send(wrap(name, arrival)).is_ok()
                });
                if !listens {
                    return;
                }
                let pause = pace.pause(start.elapsed());
                let until = Instant::now() + pause;
                while !end.load(Ordering::SeqCst) && Instant::now() < until {
                    std::thread::sleep(NAP.min(pause));
                }
            }
        });
        Self { ends, thread: Some(thread) }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Ear {
    meet: Meet,
    own: CoordinatorBeat,
    lease: Duration,
    pilots: BTreeMap<String, Pilot>,
    count: u64,
    looked: Option<Instant>,
}

impl Ear {
    /// Takes one look at everything. Whether somebody still listens.
    fn look(&mut self, hand: &mut dyn FnMut(String, Arrival) -> bool) -> bool {
        let due = self.looked.is_none_or(|looked| looked.elapsed() > self.lease / LOOKS_PER_LEASE);
        if due {
            self.looked = Some(Instant::now());
            self.count += 1;
            // A disk that is full shows elsewhere; pilots wait.
            let _ = self.meet.beat(self.count, &self.own);
        }
        for name in names(self.meet.folder()).unwrap_or_default() {
            self.pilots.entry(name).or_insert_with_key(|name| Pilot {
                reader: SpoolReader::new(self.meet.folder(), Direction::Up, name, self.meet.token()),
                pulse: Pulse::new(),
                silent: false,
                gone: false,
            });
        }
        let mut listens = true;
        for (name, pilot) in &mut self.pilots {
            if pilot.gone {
                continue;
            }
            let mut gone = false;
            let read = pilot.reader.read(&mut |taken| {
                let arrival = match taken {
                    Taken::Message(up) => {
                        gone |= matches!(up, Up::Bye { .. });
                        Arrival::Said(up)
                    }
                    Taken::Refused(why) => Arrival::Refused(why),
                };
                listens &= hand(name.clone(), arrival);
            });
            if let Err(e) = read {
                listens &= hand(name.clone(), Arrival::Refused(format!("its messages cannot be read: {e}")));
                pilot.gone = true;
            }
            pilot.gone |= gone;
            if !due || pilot.gone {
                continue;
            }
            let (path, channel) = self.meet.pulse_of(name);
            let found = beat::read::<Beat>(&path, self.meet.token(), &channel);
            let count = found.as_ref().map(|found| found.0);
            if pilot.pulse.look(count) {
                pilot.silent = false;
                if let Some((_, beat)) = found {
                    listens &= hand(name.clone(), Arrival::Beat(beat));
                }
            } else if !pilot.silent && pilot.pulse.still() > self.lease {
                pilot.silent = true;
                listens &= hand(name.clone(), Arrival::Silent);
            }
        }
        listens
    }
}
