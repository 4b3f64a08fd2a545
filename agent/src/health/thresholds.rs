//! From when on something is wrong with a GPU or the machine: the `[health]` table of config.toml as checked
//! values. The defaults are for a fleet that wants to hear of what costs it work, and of nothing else.

use std::time::Duration;

use aio_host::config::HealthTable;

/// From when on something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thresholds {
    /// GPUs that this machine is to have; otherwise as many as it had before.
    pub expected_gpus: Option<u32>,
    /// Memory errors beyond correction, since the driver was loaded.
    pub uncorrected_errors: u64,
    /// Percent of the time that heat may slow a GPU down.
    pub thermal_slowdown_percent: u32,
    /// Percent of the time that a power limit may slow a GPU down. It is all of the time where GPUs
    /// are used well, so nothing is said of it unless asked.
    pub power_slowdown_percent: Option<u32>,
    /// How long a GPU has to be better until that is told.
    pub recovery: Duration,
    /// How long an error of the driver (Xid) counts, unless the GPU was reset or the machine rebooted before.
    pub xid_memory: Duration,
    /// Errors (Xid) that are told and do not count.
    pub ignored_xids: Vec<u64>,
    /// Percent of a file system that may be used. Here and below, 0 is no limit.
    pub disk_percent: u32,
    /// Percent of a file system's inodes that may be used.
    pub inode_percent: u32,
    /// Percent of main memory that may be used.
    pub memory_percent: u32,
    /// °C that a sensor of the machine may report.
    pub temperature_celsius: u32,
}

/// A value that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is {value}, and must be {bounds}", self.key())]
pub struct OutOfRange {
    key: &'static str,
    value: u64,
    bounds: &'static str,
}

impl OutOfRange {
    /// Which key of the configuration it is, with its table.
    pub fn key(&self) -> String {
        format!("health.{}", self.key)
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            expected_gpus: None,
            uncorrected_errors: 1,
            thermal_slowdown_percent: 10,
            power_slowdown_percent: None,
            recovery: Duration::from_secs(60),
            xid_memory: Duration::from_secs(24 * 3600),
            ignored_xids: vec![],
            disk_percent: 90,
            inode_percent: 90,
            memory_percent: 95,
            temperature_celsius: 95,
        }
    }
}

impl Thresholds {
    /// Checks the table; what it leaves out is as usual.
    pub fn of(table: &HealthTable) -> Result<Self, OutOfRange> {
        let usual = Self::default();
        let percent = |key, value: Option<u32>| match value {
            Some(value) if !(1..=100).contains(&value) => {
                Err(OutOfRange { key, value: value.into(), bounds: "1 to 100" })
            }
            value => Ok(value),
        };
        let within = |key, value: Option<u64>, most: u64, bounds| match value {
            Some(value) if value > most => Err(OutOfRange { key, value, bounds }),
            value => Ok(value),
        };
        if table.uncorrected_errors == Some(0) {
            let bounds = "1 or more";
            return Err(OutOfRange { key: "uncorrected_errors", value: 0, bounds });
        }
        let limit = |key, value: Option<u32>, most: u32, bounds, usual: u32| match value {
            Some(value) if value > most => Err(OutOfRange { key, value: value.into(), bounds }),
            value => Ok(value.unwrap_or(usual)),
        };
        let share = |key, value, usual| limit(key, value, 100, "0 to 100", usual);
        let recovery = within("recovery_secs", table.recovery_secs, 86_400, "at most 86400 (a day)")?;
        let xid_memory = within("xid_hours", table.xid_hours, 8760, "at most 8760 (a year)")?;
        Ok(Self {
            expected_gpus: table.expected_gpus,
            uncorrected_errors: table.uncorrected_errors.unwrap_or(usual.uncorrected_errors),
            thermal_slowdown_percent: percent("thermal_slowdown_percent", table.thermal_slowdown_percent)?
                .unwrap_or(usual.thermal_slowdown_percent),
            power_slowdown_percent: percent("power_slowdown_percent", table.power_slowdown_percent)?,
            recovery: recovery.map_or(usual.recovery, Duration::from_secs),
            xid_memory: xid_memory.map_or(usual.xid_memory, |hours| Duration::from_secs(hours * 3600)),
            ignored_xids: table.ignored_xids.clone().unwrap_or_default(),
            disk_percent: share("disk_percent", table.disk_percent, usual.disk_percent)?,
            inode_percent: share("inode_percent", table.inode_percent, usual.inode_percent)?,
            memory_percent: share("memory_percent", table.memory_percent, usual.memory_percent)?,
            temperature_celsius: limit(
                "temperature_celsius",
                table.temperature_celsius,
                200,
                "0 to 200",
                usual.temperature_celsius,
            )?,
        })
    }
}

impl From<&Thresholds> for HealthTable {
    fn from(thresholds: &Thresholds) -> Self {
        Self {
            expected_gpus: thresholds.expected_gpus,
            uncorrected_errors: Some(thresholds.uncorrected_errors),
            thermal_slowdown_percent: Some(thresholds.thermal_slowdown_percent),
            power_slowdown_percent: thresholds.power_slowdown_percent,
            recovery_secs: Some(thresholds.recovery.as_secs()),
            xid_hours: Some(thresholds.xid_memory.as_secs() / 3600),
            ignored_xids: Some(thresholds.ignored_xids.clone()),
            disk_percent: Some(thresholds.disk_percent),
            inode_percent: Some(thresholds.inode_percent),
            memory_percent: Some(thresholds.memory_percent),
            temperature_celsius: Some(thresholds.temperature_celsius),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_table_is_the_usual() {
        assert_eq!(Thresholds::of(&HealthTable::default()), Ok(Thresholds::default()));
        assert_eq!(Thresholds::of(&HealthTable::from(&Thresholds::default())), Ok(Thresholds::default()));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let table = |change: fn(&mut HealthTable)| {
            let mut table = HealthTable::default();
            change(&mut table);
            Thresholds::of(&table).unwrap_err().to_string()
        };
        assert_eq!(
            table(|table| table.thermal_slowdown_percent = Some(0)),
            "`health.thermal_slowdown_percent` is 0, and must be 1 to 100"
        );
        assert!(table(|table| table.power_slowdown_percent = Some(101)).contains("power_slowdown_percent"));
        assert!(table(|table| table.uncorrected_errors = Some(0)).contains("uncorrected_errors"));
        assert!(table(|table| table.recovery_secs = Some(u64::MAX)).contains("recovery_secs"));
        assert!(
            table(|table| table.disk_percent = Some(101))
                .contains("disk_percent` is 101, and must be 0 to 100")
        );
        assert!(table(|table| table.temperature_celsius = Some(201)).contains("temperature_celsius"));
        assert!(table(|table| table.xid_hours = Some(u64::MAX)).contains("xid_hours"));
    }
}
