//! What NVIDIA's numbered errors (Xid) say of a GPU. The source is the "Xid Catalog" of NVIDIA's
//! documentation, columns "Resolution Bucket (Immediate Action)" and "Xid 154 linkage", as of its
//! release for driver 580; the words are ours. What only concerns the program that used the GPU has
//! no health.

use aio_protocol::telemetry::{
    Health::{self, Degraded, Unhealthy},
    RecoveryAction::{self, *},
};

/// What one number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) words: &'static str,
    /// What it says of the GPU; nothing where it is the program's matter, or no matter at all.
    pub(super) health: Option<Health>,
    pub(super) action: RecoveryAction,
    /// Whether a driver that knows recovery actions (since 555) has one for it: where it then asks
    /// for none, the error is over.
    pub(super) linked: bool,
}

/// What `code` means; nothing for one that is not in the catalogue.
pub(super) fn meaning(code: u64) -> Option<Meaning> {
    let gpu = |health, action, linked, words| Meaning { words, health: Some(health), action, linked };
    let program = |words| Meaning { words, health: None, action: RestartApp, linked: false };
    let nothing = |words| Meaning { words, health: None, action: Nothing, linked: false };
    Some(match code {
        8 => program("the GPU stopped processing"),
        11 | 25 | 69 => program("an invalid command of a program"),
        13 => program("an exception in a program's kernel"),
        31 => program("a program read or wrote memory that is not its own"),
        32 | 80 => program("a damaged command buffer"),
        39..=41 | 70..=72 | 75..=77 | 85 | 126..=135 => program("a copy engine failed"),
        60 => program("the video processor's security engine failed"),
        68 | 83 | 84 | 88 | 89 | 96..=98 => program("the video decoder failed"),
        82 | 99..=105 => program("the JPEG decoder failed"),
        86 | 139 => program("the optical flow engine failed"),
        94 => program("a memory error that was contained in one program"),
        14 | 37 | 38 | 66 | 67 | 106 | 107 | 141 => nothing("an internal event without consequences"),
        43 => nothing("a program's work was stopped after an error of its own"),
        44 => nothing("a fault while programs took turns"),
        45 => nothing("a program's work was taken off the GPU"),
        63 => nothing("a bad row or page of memory was recorded"),
        78 => nothing("a virtual GPU could not start: its software has another version"),
        92 => nothing("many corrected memory errors"),
        93 => nothing("the GPU's own records are nearly full"),
        108 | 137 => nothing("a refused access over NVLink"),
        121 => nothing("errors on the link to the processor"),
        154 => nothing("the driver changed what it asks for"),
        157 => nothing("a resource could not be retired"),
        160 | 161 => nothing("a memory channel was retired"),
        46 => gpu(Unhealthy, ResetGpu, false, "the GPU stopped processing"),
        48 => gpu(Unhealthy, ResetGpu, true, "a memory error beyond correction"),
        54 => gpu(Degraded, CheckMechanicals, false, "auxiliary power is missing, and the GPU runs slower"),
        62 => gpu(Unhealthy, ResetGpu, true, "the power management unit halted"),
        64 => gpu(Unhealthy, ResetGpu, true, "a bad row or page of memory could not be recorded"),
        74 => gpu(Degraded, CheckMechanicals, true, "an NVLink failed"),
        79 => gpu(Unhealthy, Reboot, true, "it has fallen off the bus"),
        95 => gpu(Unhealthy, ResetGpu, true, "a memory error that was not contained"),
        109 => gpu(Unhealthy, ResetGpu, true, "programs could no longer take turns"),
        110 => gpu(Unhealthy, ResetGpu, true, "a security fault"),
        119 => gpu(Unhealthy, ResetGpu, false, "the GPU's system processor (GSP) does not answer"),
        120 => gpu(Unhealthy, ResetGpu, true, "the GPU's system processor (GSP) failed"),
        136 => gpu(Unhealthy, ResetGpu, true, "an NVLink could not be trained"),
        140 => gpu(Unhealthy, ResetGpu, false, "a memory error that nothing caught"),
        142 => gpu(Degraded, ContactSupport, false, "the video encoder failed"),
        143 => gpu(Unhealthy, ResetGpu, true, "the GPU could not be initialised"),
        144..=146 | 149 | 150 => gpu(Degraded, ResetGpu, true, "an NVLink failed"),
        147 | 148 => nothing("an NVLink event without consequences"),
        151 => gpu(Unhealthy, Reboot, false, "a key could not be renewed"),
        155 => gpu(Unhealthy, ResetGpu, true, "an NVLink was taken down by software"),
        156 => gpu(Degraded, ResetGpu, true, "a resource was retired, which a reset completes"),
        158 => gpu(Unhealthy, ResetGpu, false, "the GPU ran into a fatal timeout"),
        159 => gpu(Degraded, ResetGpu, false, "an error on the link to the processor's memory"),
        167 => gpu(Unhealthy, Reboot, false, "a fatal timeout on PCIe"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_that_owners_ask_about_are_judged_as_the_catalogue_does() {
        for (code, health, action) in [
            (13, None, RestartApp),
            (31, None, RestartApp),
            (43, None, Nothing),
            (45, None, Nothing),
            (48, Some(Unhealthy), ResetGpu),
            (63, None, Nothing),
            (64, Some(Unhealthy), ResetGpu),
            (74, Some(Degraded), CheckMechanicals),
            (79, Some(Unhealthy), Reboot),
            (92, None, Nothing),
            (94, None, RestartApp),
            (95, Some(Unhealthy), ResetGpu),
            (119, Some(Unhealthy), ResetGpu),
            (120, Some(Unhealthy), ResetGpu),
            (140, Some(Unhealthy), ResetGpu),
            (143, Some(Unhealthy), ResetGpu),
        ] {
            let meaning = meaning(code).unwrap();
            assert_eq!((meaning.health, meaning.action), (health, action), "Xid {code}");
        }
        assert_eq!(meaning(9999), None);
    }

    #[test]
    fn what_says_something_of_the_gpu_says_what_to_do() {
        for code in 0..1000 {
            let Some(meaning) = meaning(code) else { continue };
            assert!(!meaning.words.is_empty());
            assert!(meaning.health.is_none() || !meaning.action.is_nothing(), "Xid {code}");
        }
    }
}
