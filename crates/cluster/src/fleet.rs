//! The pilots of a sweep on Slurm, as many as it needs: what a coordinator drives.
//!
//! ```text
//! let mut fleet = Fleet::start(profile, pilot, Box::new(Programs::default()))?;
//! loop {                                    // about once a second
//!     for event in fleet.tick(Need { work, jobs, failures, stopping }) { say(event); }
//!     ...
//! }
//! fleet.finish();                           // waiting jobs are cancelled; pilots that run end when they are told to
//! ```
//!
//! [`Fleet::tick`] never waits: the engine is asked on a thread of its own, which looks at the latest need and answers through a channel.
//! A fleet that is dropped without [`Fleet::finish`] leaves its jobs as they are; the next coordinator of the results folder finds them in
//! the journal and in the queue.

mod grow;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{event::FleetEvent, pilot::Pilot, profile::Profile, size::Work, slurm::Commands};
use grow::Crew;

/// How long [`Fleet::finish`] waits for the engine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a sweep has to do, and who is there to do it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Need {
    /// By name of a class ([`Profile::class_of`] says which takes a stage), the work that is left.
    pub work: BTreeMap<String, Work>,
    /// Jobs of the pilots that are there, `ARRAY_INDEX`.
    pub jobs: BTreeSet<String>,
    /// By node, the seconds after which each of its latest stages failed, one after the other without a success between them.
    pub failures: HashMap<String, Vec<f64>>,
    /// Whether no stage is started any more.
    pub stopping: bool,
}

/// The jobs of a sweep at a moment, for who looks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FleetStatus {
    /// Classes in the profile's order.
    pub classes: Vec<ClassStatus>,
    /// Nodes that are no longer used, and why.
    pub excluded: BTreeMap<String, String>,
}

/// The jobs of a class.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClassStatus {
    /// Name.
    pub class: String,
    /// Jobs that its work asks for.
    pub wanted: u32,
    /// Jobs in the queue.
    pub waiting: usize,
    /// Why most of them wait, in the engine's word.
    pub reason: Option<String>,
    /// Jobs on a node.
    pub running: usize,
    /// Those whose pilot is there.
    pub joined: usize,
    /// Why no more jobs are submitted, where that is so.
    pub gave_up: Option<String>,
}

impl ClassStatus {
    /// Why nobody of this class will come, where no job lives and none is submitted any more.
    pub fn hopeless(&self) -> Option<&str> {
        let lives = self.waiting + self.running + self.joined > 0;
        self.gave_up.as_deref().filter(|_| !lives)
    }
}

/// What both threads know.
#[derive(Debug, Default)]
struct Shared {
    board: Mutex<Board>,
    woken: Condvar,
}

#[derive(Debug, Default)]
struct Board {
    need: Option<Need>,
    status: FleetStatus,
    /// How the thread is to end, and whether it has.
    end: Option<End>,
    ended: bool,
}

/// What becomes of jobs that wait when a fleet ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Cancel,
    Leave,
}

/// What the thread does next.
enum Order {
    Serve(Need),
    End(End),
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pilots of a sweep.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    events: Receiver<FleetEvent>,
}

impl Fleet {
    /// Opens the journal of a results folder and begins; what an earlier coordinator submitted counts.
    ///
    /// # Errors
    /// A journal that cannot be read or written, no thread.
    pub fn start(profile: Profile, pilot: Pilot, commands: Box<dyn Commands>) -> io::Result<Self> {
        let mut crew = Crew::new(profile, pilot, commands)?;
        let shared = Arc::new(Shared::default());
        let (sender, events) = mpsc::channel();
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("fleet".to_owned()).spawn(move || {
            let start = Instant::now();
            loop {
                let order = {
                    let mut board = theirs.board();
                    while board.need.is_none() && board.end.is_none() {
                        board = theirs.woken.wait(board).unwrap_or_else(PoisonError::into_inner);
                    }
                    board.end.map_or_else(|| Order::Serve(board.need.take().unwrap_or_default()), Order::End)
                };
                let (told, ends) = match order {
                    Order::Serve(need) => (crew.step(&need, start.elapsed()), false),
                    Order::End(End::Cancel) => (crew.finish(), true),
                    Order::End(End::Leave) => (Vec::new(), true),
                };
                let is_heard = told.into_iter().all(|event| sender.send(event).is_ok());
                let mut board = theirs.board();
                board.status = crew.status();
                if ends || !is_heard {
                    board.ended = true;
                    theirs.woken.notify_all();
                    break;
                }
            }
        })?;
        Ok(Self { shared, events })
    }

    /// Says what is needed now, and returns what happened since. To be called about once a second; returns at once.
    pub fn tick(&mut self, need: Need) -> Vec<FleetEvent> {
        self.shared.board().need = Some(need);
        self.shared.woken.notify_all();
        self.events.try_iter().collect()
    }

    /// The jobs as of the thread's last look.
    pub fn status(&self) -> FleetStatus {
        self.shared.board().status.clone()
    }

    /// Cancels the jobs that wait and ends. Waits for the engine, for some seconds at most. Pilots that run are not touched: they end when
    /// the coordinator tells them to.
    pub fn finish(self) -> Vec<FleetEvent> {
        let start = Instant::now();
        let mut board = self.shared.board();
        board.end = Some(End::Cancel);
        self.shared.woken.notify_all();
        while !board.ended && start.elapsed() < PATIENCE {
            let left = PATIENCE.saturating_sub(start.elapsed());
            board = self.shared.woken.wait_timeout(board, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(board);
        self.events.try_iter().collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.shared.board().end.get_or_insert(End::Leave);
        self.shared.woken.notify_all();
    }
}
