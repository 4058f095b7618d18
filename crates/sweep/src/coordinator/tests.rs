//! Pilots that do not do as they are told: played by the test through the files that the two sides share.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use ressa_experiment::{
    Cell, RunConfig, StageKey, chain,
    model::{ModelConfig, Preset},
    protocol::Event,
};

use super::*;
use crate::meet::{Beat, Direction, Hello, Place, SpoolReader, SpoolWriter, Taken, Up};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);

fn graph() -> Graph {
    let run = RunConfig::of(ModelConfig { preset: Some(Preset::ShapesFlanT5), ..ModelConfig::default() });
    let stages = chain::stages(&run).into_iter().map(Into::into).collect();
    let cell = Cell { coordinates: [].into(), seed: 0, run_id: "run".into(), point: None, stages, run: run.into() };
    Graph::new("test", &[cell], &[])
}

fn options(results: &Path) -> Options {
    Options {
        results: results.to_owned(),
        worker: WorkerCommand {
            program: PathBuf::from("nobody starts it"),
            folder: results.to_owned(),
            threads: 1,
            environment: Vec::new(),
            deterministic: false,
            arguments: Vec::new(),
        },
        devices: Devices::cpu(0),
        machine: "cpu".to_owned(),
        max_failures: None,
        timeout: None,
        lease: Duration::from_secs(1),
        idle: DEFAULT_IDLE,
        is_followed: false,
        title: "test".to_owned(),
        program: "a test".to_owned(),
        retries: RetryPolicy::default(),
    }
}

/// A pilot of one place that does what the test says.
struct Puppet {
    meet: Meet,
    writer: SpoolWriter,
    reader: SpoolReader,
    beats: u64,
}

impl Puppet {
    const NAME: &str = "puppet";

    fn join(results: &Path) -> Self {
        let (meet, invitation) = loop {
            let meet = Meet::join(results).unwrap();
            if let Some((meet, invitation)) = meet.and_then(|meet| Some((meet.clone(), meet.invitation()?))) {
                break (meet, invitation);
            }
            thread::sleep(LOOK);
        };
        let mut writer = SpoolWriter::open(meet.folder(), Direction::Up, Self::NAME, meet.token()).unwrap();
        writer
            .send(&Up::Hello(Hello {
                segment: invitation.segment,
                host: "there".to_owned(),
                job: String::new(),
                class: None,
                program: invitation.program,
                machine: "cpu".to_owned(),
                places: vec![Place { device: "cpu".to_owned(), log: "logs/puppet-0.log".to_owned() }],
                holding: vec![None],
            }))
            .unwrap();
        let reader = SpoolReader::new(meet.folder(), Direction::Down, Self::NAME, meet.token());
        Self { meet, writer, reader, beats: 0 }
    }

    /// Shows that it lives and has nothing.
    fn beat(&mut self) {
        self.beats += 1;
        self.meet.pulse(Self::NAME, self.beats, &Beat { seconds_left: None, holding: vec![None] }).unwrap();
    }

    /// The next stage that it is given.
    fn order(&mut self) -> (StageKey, u32) {
        loop {
            let mut found = None;
            let mut take = |taken: Taken<Down>| match taken {
                Taken::Message(Down::Execute { node, attempt, .. }) => found = Some((node.key, attempt)),
                other => panic!("{other:?}"),
            };
            self.reader.read(&mut take).unwrap();
            match found {
                Some(found) => return found,
                None => thread::sleep(LOOK),
            }
            self.beat();
        }
    }

    /// Lives on until an attempt was returned for a reason.
    fn until_returned(&mut self, store: &Store, reason: &str) {
        loop {
            let (entries, _) = ressa_runlog::history(store).unwrap();
            let is = |event: &LogEvent| matches!(event, LogEvent::Returned { why, .. } if why.contains(reason));
            if entries.iter().any(|entry| is(&entry.event)) {
                return;
            }
            self.beat();
            thread::sleep(LOOK);
        }
    }
}

/// A sweep beside a puppet, stopped when that has played its part. Returns what people were told.
fn play(part: impl FnOnce(&mut Puppet, &Store)) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store"), Vec::new()).unwrap();
    let (graph, options, stop) = (graph(), options(folder.path()), Stop::new());
    let mut told = Vec::new();
    thread::scope(|scope| {
        let sweep = scope.spawn(|| {
            let mut hear = |event| {
                if let SweepEvent::Told(line) = event {
                    told.push(line);
                }
            };
            execute(&graph, &store, &options, &stop, None, &mut hear)
        });
        part(&mut Puppet::join(folder.path()), &store);
        stop.request(Interruption::Interrupt);
        stop.request(Interruption::Interrupt);
        sweep.join().unwrap().unwrap();
    });
    told
}

#[test]
fn a_stage_that_its_pilot_never_heard_of_is_given_again() {
    play(|puppet, store| {
        let (key, attempt) = puppet.order();
        // As if the order had been lost on its way: look after look it has nothing.
        puppet.until_returned(store, "never heard of it");
        assert_eq!(puppet.order(), (key, attempt + 1));
    });
}

#[test]
fn a_pilot_that_cannot_be_told_counts_as_gone_until_it_shows_itself() {
    let told = play(|puppet, store| {
        let (key, attempt) = puppet.order();
        fs::remove_file(puppet.meet.folder().join("down").join(Puppet::NAME)).unwrap();
        puppet.writer.send(&Up::Said { place: 0, event: Event::Returned { key, attempt }, log: None }).unwrap();
        puppet.until_returned(store, "cannot be written");
    });
    assert!(told.iter().any(|line| line == "`puppet` is gone: what it should be told cannot be written"), "{told:?}");
}
