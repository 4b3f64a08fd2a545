//! What the storm rages on: one controller on a file of SQLite's, or several on one PostgreSQL server, each
//! behind a network of its own that can be cut.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::Group;
use crate::{
    artifacts::Artifacts,
    controller::{Controller, Enrolled, Settings},
    database::Database,
    relay::Relay,
    wait::wait_for,
};

/// How long the others may take to take one for dead, and how long that one may take to end.
const DEATH: Duration = Duration::from_secs(60);

/// Whoever is killed stays away for less than this.
const LONGEST_ABSENCE: Duration = Duration::from_secs(2);

/// What names a controller that has no address of its own.
const PUBLIC_URL: &str = "http://127.0.0.1:9";

/// What happens to a controller, or to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mishap {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, until it was taken for dead.
    Stop,
    /// Nothing comes from or to it, until it was taken for dead.
    Cut,
    /// The server of the database crashes.
    Crash,
}

/// A mishap that is to be mended.
pub(super) struct Blow {
    mishap: Mishap,
    place: usize,
    absence: Duration,
}

pub(super) struct Ground {
    members: Vec<Member>,
    database: Option<Database>,
}

struct Member {
    controller: Controller,
    network: Option<Network>,
}

struct Network {
    database: Relay,
    clients: Relay,
}

impl Ground {
    pub(super) fn prepare(artifacts: &Artifacts, settings: Settings, group: Option<Group>) -> Result<Self> {
        let Some(group) = group else {
            let controller = Controller::start(artifacts, &settings)?;
            return Ok(Self { members: vec![Member { controller, network: None }], database: None });
        };
        let database = Database::start()?;
        let mut members = Vec::new();
        for _ in 0..group.controllers {
            let network = (group.cuts > 0).then(Network::lay).transpose()?;
            let port = network.as_ref().map_or(database.port(), |network| {
                network.database.carry_to(&format!("http://127.0.0.1:{}", database.port()?))?;
                Ok(network.database.port())
            })?;
            let environment = Database::environment(&Database::url_at(port), PUBLIC_URL);
            let settings = environment
                .iter()
                .fold(settings.clone(), |settings, (name, value)| settings.env(name, value));
            let controller = Controller::start(artifacts, &settings)?;
            if let Some(network) = &network {
                network.clients.carry_to(controller.url())?;
            }
            members.push(Member { controller, network });
        }
        Ok(Self { members, database: Some(database) })
    }

    pub(super) fn enrol(&self, nodes: usize) -> Result<Vec<Enrolled>> {
        self.members.first().context("no controller")?.controller.enrol(nodes)
    }

    /// Where the fleet finds each controller.
    pub(super) fn addresses(&self) -> Vec<String> {
        let address = |member: &Member| match &member.network {
            Some(network) => network.clients.url(),
            None => member.controller.url().to_owned(),
        };
        self.members.iter().map(|member| address(member).trim_start_matches("http://").to_owned()).collect()
    }

    /// The address of the database.
    pub(super) fn database(&self) -> String {
        match (&self.database, self.members.first()) {
            (Some(server), _) => server.url(),
            (None, Some(member)) => format!("sqlite://{}", member.controller.database().display()),
            (None, None) => String::new(),
        }
    }

    pub(super) fn processor_time(&self) -> Result<Duration> {
        self.members.iter().map(|member| member.controller.processor_time()).sum()
    }

    /// What the controllers said last.
    pub(super) fn log_tails(&self) -> String {
        let tails: Vec<_> = self.members.iter().map(|member| member.controller.log_tail()).collect();
        tails.join("\n\n")
    }

    /// Does this to the database, or to a controller that chance names.
    pub(super) fn strike(&mut self, mishap: Mishap, chance: &mut fastrand::Rng) -> Result<Blow> {
        let place = chance.usize(0..self.members.len());
        let absence = LONGEST_ABSENCE.mul_f64(chance.f64());
        let number = match mishap {
            Mishap::Stop | Mishap::Cut => Some(self.number(place)?),
            Mishap::Kill | Mishap::Crash => None,
        };
        let member = self.members.get_mut(place).context("no such controller")?;
        match (mishap, &member.network) {
            (Mishap::Kill, _) => member.controller.kill()?,
            (Mishap::Stop, _) => member.controller.freeze()?,
            (Mishap::Cut, Some(network)) => network.cut(),
            (Mishap::Cut, None) => anyhow::bail!("nothing is there to be cut"),
            (Mishap::Crash, _) => self.server()?.crash()?,
        }
        if let Some(number) = number {
            let present = format!("SELECT COUNT(*) FROM controllers WHERE number = {number}");
            let look = || self.server_ref()?.ask(&present);
            wait_for("the others to take one for dead", DEATH, look, |count| count == "0")?;
        }
        Ok(Blow { mishap, place, absence })
    }

    /// Has whoever was struck serve again. Says how long its start took.
    pub(super) fn mend(&mut self, blow: Blow) -> Result<Duration> {
        let is_alone = self.members.len() == 1;
        let member = self.members.get_mut(blow.place).context("no such controller")?;
        match (blow.mishap, &member.network) {
            (Mishap::Stop, _) => member.controller.thaw()?,
            (Mishap::Cut, Some(network)) => network.mend(),
            // The others go on meanwhile.
            (Mishap::Kill, _) if !is_alone => thread::sleep(blow.absence),
            (Mishap::Kill | Mishap::Cut | Mishap::Crash, _) => {}
        }
        match blow.mishap {
            Mishap::Crash => return Ok(Duration::ZERO),
            Mishap::Kill => {}
            Mishap::Stop | Mishap::Cut => {
                let ended = wait_for(
                    "whoever was taken for dead to end",
                    DEATH,
                    || member.controller.has_ended(),
                    Option::is_some,
                )?;
                ensure!(
                    ended.is_some_and(|status| !status.success()),
                    "whoever was taken for dead ended well"
                );
            }
        }
        let began = Instant::now();
        member.controller.start_again()?;
        Ok(began.elapsed())
    }

    /// Every node that is connected is held by a controller that is there.
    pub(super) fn check_owners(&self) -> Result<()> {
        let Some(server) = &self.database else { return Ok(()) };
        let orphans = "SELECT COUNT(*) FROM nodes WHERE websocket_connected = 1 \
                       AND held_by NOT IN (SELECT number FROM controllers)";
        wait_for("no node that nobody holds", DEATH, || server.ask(orphans), |count| count == "0").map(drop)
    }

    pub(super) fn kill_all(&mut self) -> Result<()> {
        self.members.iter_mut().try_for_each(|member| member.controller.kill())
    }

    /// The number of the controller there.
    fn number(&self, place: usize) -> Result<u64> {
        let address = self.members.get(place).context("no such controller")?.controller.url();
        let address = address.trim_start_matches("http://");
        let number = format!("SELECT MAX(number) FROM controllers WHERE address = '{address}'");
        let number = self.server_ref()?.ask(&number)?;
        number.parse().with_context(|| format!("the controller at {address} has the number {number:?}"))
    }

    fn server_ref(&self) -> Result<&Database> {
        self.database.as_ref().context("no server")
    }

    fn server(&mut self) -> Result<&mut Database> {
        self.database.as_mut().context("no server")
    }
}

impl Network {
    fn lay() -> Result<Self> {
        Ok(Self { database: Relay::bind()?, clients: Relay::bind()? })
    }

    fn cut(&self) {
        self.database.cut();
        self.clients.cut();
    }

    fn mend(&self) {
        self.database.mend();
        self.clients.mend();
    }
}
