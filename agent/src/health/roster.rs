//! Which GPUs there are to be: those of the last time that all were here. One that is missing stays
//! missing until it is back, another is in its place, or a person says how many there are to be.
//! Pure.

use aio_host::gpu::{GpuReport, is_same, name_the_silent};
use aio_protocol::inventory::{Gpu, GpuDriverState};

/// The GPUs that were seen.
#[derive(Debug)]
pub(super) struct Roster {
    known: Vec<Gpu>,
}

/// Who is here and who is not.
#[derive(Debug, PartialEq)]
pub(super) struct Roll {
    pub(super) gpus: Vec<Gpu>,
    pub(super) missing: Vec<Gpu>,
    /// How many there are to be, if that is more than all that are known.
    pub(super) expected: Option<u32>,
}

impl Roster {
    pub(super) fn new(known: Vec<Gpu>) -> Self {
        Self { known }
    }

    pub(super) fn known(&self) -> &[Gpu] {
        &self.known
    }

    /// Compares the report with who is to be here. `expected` is what a person said.
    pub(super) fn compare(&mut self, report: &GpuReport, expected: Option<u32>) -> Roll {
        if report.driver.state == GpuDriverState::Unknown {
            // A driver that does not answer takes no GPU out of the machine, not even over a
            // restart of this daemon.
            let gpus = if report.gpus.is_empty() { self.known.clone() } else { self.linked(report) };
            return Roll { gpus, missing: vec![], expected: None };
        }
        let gpus = self.linked(report);
        let mut missing: Vec<_> =
            self.known.iter().filter(|known| !gpus.iter().any(|gpu| is_same(gpu, known))).cloned().collect();
        let needed = expected.map_or(self.known.len(), |count| usize::try_from(count).unwrap_or(usize::MAX));
        if gpus.len() >= needed {
            missing.clear();
            self.known.clone_from(&gpus);
        } else {
            // Another in the place of one that is missing is not one more.
            missing.truncate(needed.saturating_sub(gpus.len()));
            // One that is here for the first time, or has changed, is known from now on, too.
            self.known.retain(|known| missing.iter().any(|gone| is_same(gone, known)));
            self.known.splice(0..0, gpus.iter().cloned());
        }
        let all = gpus.len().saturating_add(missing.len());
        let expected = expected.filter(|&count| usize::try_from(count).is_ok_and(|count| count > all));
        Roll { gpus, missing, expected }
    }

    /// The GPUs that are here, each with the most NVLinks that it ever had up.
    fn linked(&self, report: &GpuReport) -> Vec<Gpu> {
        let linked = |(index, gpu): (usize, &Gpu)| {
            let before = self.known.iter().find(|known| is_same(known, gpu)).and_then(|known| known.nvlinks);
            let now = report.readings.get(index).and_then(|reading| reading.detail.nvlinks);
            Gpu { nvlinks: before.max(now), ..gpu.clone() }
        };
        // One that was lost before this daemon started cannot say who it is.
        let mut gpus = report.gpus.clone();
        name_the_silent(&mut gpus, &self.known);
        gpus.iter().enumerate().map(linked).collect()
    }
}

#[cfg(test)]
mod tests {
    use aio_host::gpu::Reading;
    use aio_protocol::inventory::GpuDriver;

    use super::*;

    fn report(state: GpuDriverState, names: &[&str]) -> GpuReport {
        let gpu = |(index, name): (usize, &&str)| Gpu {
            device_id: index.to_string(),
            uuid: Some((*name).to_owned()),
            ..Gpu::default()
        };
        GpuReport {
            driver: GpuDriver { state, reason: None, version: None, cuda_version: None },
            gpus: names.iter().enumerate().map(gpu).collect(),
            readings: (0..names.len()).map(|index| Reading::silent(index.to_string())).collect(),
            xids: vec![],
        }
    }

    fn names(gpus: &[Gpu]) -> Vec<&str> {
        gpus.iter().filter_map(|gpu| gpu.uuid.as_deref()).collect()
    }

    /// What each report makes of the roll: who is here, who is missing, how many more are expected.
    fn calls(expected: Option<u32>, reports: &[&[&str]]) -> Vec<(Vec<String>, Vec<String>, Option<u32>)> {
        let mut roster = Roster::new(vec![]);
        let own = |gpus: &[Gpu]| names(gpus).into_iter().map(str::to_owned).collect();
        let call = |names: &&[&str]| {
            let roll = roster.compare(&report(GpuDriverState::Ok, names), expected);
            (own(&roll.gpus), own(&roll.missing), roll.expected)
        };
        reports.iter().map(call).collect()
    }

    #[test]
    fn a_gpu_that_is_gone_is_missed_until_it_is_back_or_replaced() {
        let missing: Vec<_> = calls(
            None,
            &[&["a", "b", "c"], &["a", "c"], &["a", "c"], &["a", "b", "c"], &["a", "c"], &["a", "c", "d"]],
        )
        .into_iter()
        .map(|(_, missing, _)| missing.join(","))
        .collect();
        assert_eq!(missing, ["", "b", "b", "", "b", ""]);
    }

    #[test]
    fn one_in_the_place_of_two_is_one_missing() {
        let last = calls(None, &[&["a", "b", "c"], &["a"], &["a", "d"], &["a", "d"]]).pop().unwrap();
        assert_eq!((last.0.join(","), last.1.len()), ("a,d".to_owned(), 1));
    }

    #[test]
    fn a_person_s_word_is_the_last() {
        // Fewer are to be here than were: one was taken out on purpose.
        let fewer = calls(Some(2), &[&["a", "b", "c"], &["a", "c"]]).pop().unwrap();
        assert_eq!(fewer.1, [""; 0]);
        // More are to be here than ever were.
        assert_eq!(calls(Some(8), &[&["a", "b"]]).pop().unwrap().2, Some(8));
        // One of those is gone again.
        let gone = calls(Some(2), &[&["a", "b"], &["a"]]).pop().unwrap();
        assert_eq!((gone.1, gone.2), (vec!["b".to_owned()], None));
    }

    #[test]
    fn a_silent_driver_takes_no_gpu_away_even_after_a_restart() {
        let mut before = Roster::new(vec![]);
        before.compare(&report(GpuDriverState::Ok, &["a", "b"]), None);
        let mut after = Roster::new(before.known().to_vec());
        let roll = after.compare(&report(GpuDriverState::Unknown, &[]), None);
        assert_eq!((names(&roll.gpus), roll.missing.len()), (vec!["a", "b"], 0));
        // A driver that is taken away does, and the GPUs are missed.
        let roll = after.compare(&report(GpuDriverState::Absent, &[]), None);
        assert_eq!((roll.gpus.len(), names(&roll.missing)), (0, vec!["a", "b"]));
        assert_eq!(after.compare(&report(GpuDriverState::Absent, &[]), Some(0)).missing, []);
        after = Roster::new(before.known().to_vec());
        // Back with one less.
        assert_eq!(names(&after.compare(&report(GpuDriverState::Ok, &["b"]), None).missing), ["a"]);
    }

    #[test]
    fn the_most_links_that_were_up_are_remembered() {
        let mut roster = Roster::new(vec![]);
        let mut links = |count| {
            let mut report = report(GpuDriverState::Ok, &["a"]);
            report.readings[0].detail.nvlinks = count;
            roster.compare(&report, None).gpus[0].nvlinks
        };
        assert_eq!(
            [links(None), links(Some(12)), links(Some(18)), links(Some(17)), links(None)],
            [None, Some(12), Some(18), Some(18), Some(18)]
        );
    }
}
