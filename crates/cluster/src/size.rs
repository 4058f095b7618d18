//! How many jobs a class gets: by the work that is left, and by what the site and the profile allow.

use std::fmt;

use crate::profile::Resources;

/// The work of a class that is left.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Stages that are not settled.
    pub open: usize,
    /// Expected seconds of all of them, one after the other.
    pub seconds: f64,
}

/// Jobs that a class can use: no more than its work fills, no more than its stages occupy, no more than the profile allows.
pub fn wanted(work: Work, resources: &Resources) -> u32 {
    if work.open == 0 {
        return 0;
    }
    let slots = resources.expected_slots();
    let share = resources.work_per_job.or(resources.usable_seconds()).unwrap_or(3600) as f64 * f64::from(slots);
    // A share of nothing, or an estimate of nothing, still leaves something to do.
    let by_work = (work.seconds.max(0.0) / share.max(1.0)).ceil().clamp(1.0, f64::from(u32::MAX)) as u32;
    let by_stages = u32::try_from(work.open.div_ceil(slots as usize)).unwrap_or(u32::MAX);
    by_work.min(by_stages).min(resources.max_jobs).max(1)
}

/// The range of a job array, as `--array` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array {
    /// Jobs.
    pub jobs: u32,
    /// Jobs that run at once, where not all may.
    pub at_once: Option<u32>,
}

impl Array {
    /// As many of the jobs as one array takes: its largest index is `max_array_size` less one.
    pub fn of(jobs: u32, at_once: Option<u32>, max_array_size: u32) -> Self {
        let jobs = jobs.min(max_array_size).max(1);
        Self { jobs, at_once: at_once.map(|most| most.max(1)).filter(|&most| most < jobs) }
    }
}

impl fmt::Display for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0-{}", self.jobs - 1)?;
        self.at_once.map_or(Ok(()), |most| write!(f, "%{most}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    fn resources(text: &str) -> Resources {
        let profile = Profile::parse(&format!("engine: slurm\ndefaults: {{ {text} }}"), "test").unwrap();
        profile.classes[0].resources.clone()
    }

    #[test]
    fn jobs_are_as_many_as_the_work_fills() {
        let hour = |jobs: f64| Work { open: 1000, seconds: jobs * 3600.0 };
        // A job of 70 minutes works for 64: 300 s are for saving, 60 s for an early signal.
        let plain = resources("time: 70min, cpus: 1, max-jobs: 100");
        assert_eq!([0.1, 1.0, 10.0, 1000.0].map(|jobs| wanted(hour(jobs), &plain)), [1, 1, 10, 100]);
        let eager = resources("time: 70min, cpus: 1, max-jobs: 100, work-per-job: 10min");
        assert_eq!(wanted(hour(1.0), &eager), 6);
        let shared = resources("time: 70min, gpus: 4, workers-per-gpu: 2, max-jobs: 100");
        assert_eq!(shared.expected_slots(), 8);
        assert_eq!(wanted(hour(80.0), &shared), 10);
    }

    #[test]
    fn jobs_are_no_more_than_the_stages_occupy() {
        let eight = resources("time: 70min, cpus: 8, max-jobs: 100, work-per-job: 1s");
        let many = |open| wanted(Work { open, seconds: 1e9 }, &eight);
        assert_eq!([0, 1, 8, 9, 17].map(many), [0, 1, 1, 2, 3]);
        assert_eq!(wanted(Work { open: 5, seconds: 0.0 }, &eight), 1);
        assert_eq!(wanted(Work { open: 5, seconds: f64::NAN }, &eight), 1);
    }

    #[test]
    fn arrays_stay_below_what_slurm_takes() {
        let shown = |jobs, at_once, most| Array::of(jobs, at_once, most).to_string();
        assert_eq!(shown(8, None, 1001), "0-7");
        assert_eq!(shown(8, Some(4), 1001), "0-7%4");
        assert_eq!(shown(8, Some(8), 1001), "0-7");
        assert_eq!(shown(5000, Some(4), 1001), "0-1000%4");
        assert_eq!(shown(0, None, 1001), "0-0");
    }
}
