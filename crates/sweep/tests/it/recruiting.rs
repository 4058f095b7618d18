//! Workers that somebody has started for a sweep: classes that nobody comes for, pilots that are not wanted.

use std::{collections::HashMap, sync::mpsc, thread, time::Duration};

use ressa_sweep::{
    ClassStanding, Classes, Devices, Graph, Interruption, Need, PilotEnd, PilotOptions, Recruiter, Stop, SweepError,
    SweepEvent, Told, live_status, pilot,
};
use serde_json::json;

use crate::{
    bench::{Bench, cells},
    joining::options,
};

/// Says the same again and again.
struct Office {
    classes: Classes,
    told: Told,
}

impl Recruiter for Office {
    fn classes(&self) -> Classes {
        self.classes.clone()
    }

    fn tick(&mut self, _: &Need) -> Told {
        self.told.clone()
    }

    fn end(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// Trainings are for one class, everything else for another.
fn classes() -> Classes {
    Classes::new(vec!["quick".to_owned(), "train".to_owned()], HashMap::from([(("adapt".to_owned(), true), 1)]))
}

fn office(told: Told) -> Office {
    Office { classes: classes(), told }
}

fn of_class(bench: &Bench, name: &str, class: &str) -> PilotOptions {
    PilotOptions { class: Some(class.to_owned()), job: format!("1_{name}"), ..options(bench, name, "a test") }
}

#[test]
fn a_pilot_of_a_class_that_nobody_knows_is_sent_away() {
    let mut bench = Bench::new();
    bench.options.devices = Devices::cpu(1);
    let graph = Graph::new("test", &cells(), &[]);
    // The stage lasts until the pilot was sent away.
    bench.instruct(json!({ "dense": { "sleep": 600.0 } }));
    let stranger = of_class(&bench, "stranger", "large");
    let mut told = Vec::new();
    let stop = Stop::new();
    thread::scope(|scope| {
        let joined = scope.spawn(|| {
            let end = pilot(&stranger, &Stop::new(), &mut |_| {});
            stop.request(Interruption::Interrupt);
            stop.request(Interruption::Interrupt);
            end
        });
        let mut hear = |event| {
            if let SweepEvent::Told(line) = event {
                told.push(line);
            }
        };
        bench.recruit(&graph, &stop, Some(&mut office(Told::default())), &mut hear).unwrap();
        let why = "this sweep has no class `large`, only quick, train".to_owned();
        assert_eq!(joined.join().unwrap().unwrap(), PilotEnd::Done(why));
    });
    assert_eq!(told[0], "`stranger` was sent away: this sweep has no class `large`, only quick, train");
}

/// A class that nobody comes for does not end a sweep while others can work.
#[test]
fn a_sweep_ends_when_only_hopeless_classes_have_work() {
    let mut bench = Bench::new();
    bench.options.devices = Devices::cpu(0);
    let graph = Graph::new("test", &cells(), &[]);
    let quick = of_class(&bench, "quick", "quick");
    let standing =
        ClassStanding { class: "train".to_owned(), gave_up: Some("no partition".to_owned()), ..Default::default() };
    let told =
        Told { given_up: HashMap::from([(1, "no partition".to_owned())]), standing: vec![standing], ..Told::default() };
    thread::scope(|scope| {
        let joined = scope.spawn(|| pilot(&quick, &Stop::new(), &mut |_| {}));
        let ended = bench.recruit(&graph, &Stop::new(), Some(&mut office(told)), &mut |_| {});
        assert!(matches!(&ended, Err(SweepError::NobodyComes { why }) if why == "no partition"), "{ended:?}");
        assert!(matches!(joined.join().unwrap(), Ok(PilotEnd::Done(_))));
    });
    // Everything but the two trainings and what is made of them.
    assert_eq!(bench.published().len(), 1 + 4 + 4);
    assert!(live_status(bench.folder.path()).unwrap().ended);
}

#[test]
fn a_pilot_without_work_goes_home_and_one_with_work_stays() {
    let mut bench = Bench::new();
    bench.options.devices = Devices::cpu(0);
    bench.options.idle = Duration::from_millis(300);
    let graph = Graph::new("test", &cells(), &[]);
    bench.instruct(json!({ "dense": { "sleep": 600.0 } }));
    let pilots = ["0", "1"].map(|name| of_class(&bench, name, "quick"));
    let (sender, ended) = mpsc::channel();
    let stop = Stop::new();
    thread::scope(|scope| {
        for options in &pilots {
            let sender = sender.clone();
            scope.spawn(move || drop(sender.send(pilot(options, &Stop::new(), &mut |_| {}))));
        }
        let stop = &stop;
        scope.spawn(move || {
            let first = ended.recv().unwrap().unwrap();
            let second = ended.try_recv();
            stop.request(Interruption::Interrupt);
            stop.request(Interruption::Interrupt);
            assert_eq!(first, PilotEnd::Done("there is nothing to do for it now".to_owned()));
            assert!(second.is_err(), "{second:?}");
        });
        bench.recruit(&graph, stop, Some(&mut office(Told::default())), &mut |_| {}).unwrap();
    });
}

/// A sweep that another one follows keeps who works for it.
#[test]
fn pilots_stay_for_the_sweep_that_follows() {
    let mut bench = Bench::new();
    bench.options.devices = Devices::cpu(0);
    let worker = of_class(&bench, "both", "quick");
    let mut office = office(Told::default());
    office.classes = Classes::new(vec!["quick".to_owned()], HashMap::new());
    let cells = cells();
    thread::scope(|scope| {
        let joined = scope.spawn(|| pilot(&worker, &Stop::new(), &mut |_| {}));
        bench.options.is_followed = true;
        let first = Graph::new("test", &cells[..1], &[]);
        assert_eq!(bench.recruit(&first, &Stop::new(), Some(&mut office), &mut |_| {}).unwrap().complete, 1);
        assert!(!live_status(bench.folder.path()).unwrap().ended, "who watches goes on");
        bench.options.is_followed = false;
        let all = Graph::new("test", &cells, &[]);
        assert_eq!(bench.recruit(&all, &Stop::new(), Some(&mut office), &mut |_| {}).unwrap().complete, 4);
        assert!(matches!(joined.join().unwrap(), Ok(PilotEnd::Done(_))));
    });
    assert!(live_status(bench.folder.path()).unwrap().ended);
}
