//! `/metrics/fleet`: every node in service and every GPU, as Prometheus reads them. A family's series stand
//! together, as the text format wants it, so a scrape first makes a small `Machine` of each node and then
//! writes family by family, piece by piece as the reader takes them. The values are those of the moment at
//! which they are written. What is not known has no series. Of several controllers each shows the nodes that it
//! holds, and the one that leads also those that none does.

mod catalogue;
mod dcgm;
mod machine;
#[cfg(test)]
mod measurement;
pub(crate) mod otlp;
mod own;
mod text;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use aio_protocol::ids::NodeId;
use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::{app::App, clock, store::StoreError};
use catalogue::{Family, Of};
use machine::Machine;
use text::Page;

/// Nodes that are read at once.
const BATCH: usize = 200;

/// A piece is sent once it is this long, in bytes.
const PIECE: usize = 64 * 1024;

/// Pieces that wait for a reader.
const WAITING: usize = 2;

/// Which figures are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// The product's own.
    Own,
    /// GPUs' alone, under the names and labels of dcgm-exporter.
    Dcgm,
    /// OpenTelemetry's, which are not written as text.
    Otlp,
}

/// The names of all families.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    own::FAMILIES.iter().chain(dcgm::FAMILIES).map(|family| family.name)
}

/// A part of the fleet: the nodes whose number falls to `index` of `count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shard {
    pub index: u64,
    pub count: u64,
}

impl Shard {
    pub(crate) const WHOLE: Self = Self { index: 0, count: 1 };

    /// Whether a node is in this part. Nodes that come and go move no other from its part.
    fn has(self, node: &str) -> bool {
        // Ids that were made one after the other differ in their last bits alone.
        let digest = Sha256::digest(node);
        let hash = digest.iter().take(8).fold(0_u64, |hash, byte| (hash << 8) | u64::from(*byte));
        hash % self.count == self.index
    }
}

/// Text that is written while it is read.
pub(crate) struct Pieces(mpsc::Receiver<Result<Bytes, io::Error>>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// The figures of a part of the fleet, which are written as they are read. Waits for its turn.
pub(crate) async fn scrape(app: &Arc<App>, names: Names, shard: Shard) -> Result<Pieces, StoreError> {
    // Nobody closes it.
    let turn = app.fleet_scrapes.clone().acquire_owned().await.ok();
    let machines = machines(app, names, shard).await?;
    let (pieces, body) = mpsc::channel(WAITING);
    let writing = app.clone();
    app.connections.spawn(async move {
        let stop = writing.stop.clone();
        stop.run_until_cancelled(write(&writing, names, &machines, &pieces)).await;
        drop(turn);
    });
    Ok(Pieces(body))
}

/// Writes until the end, or until nobody reads any more.
async fn write(
    app: &App,
    names: Names,
    machines: &[Machine],
    pieces: &mpsc::Sender<Result<Bytes, io::Error>>,
) {
    let families = match names {
        Names::Own | Names::Otlp => own::FAMILIES,
        Names::Dcgm => dcgm::FAMILIES,
    };
    let mut page = Page::with_capacity(PIECE + PIECE / 4);
    for family in families {
        page.begin(family.name, family.kind.as_str(), family.help);
        for machine in machines {
            show(app, family, machine, &mut page);
            if page.len() >= PIECE && pieces.send(Ok(page.take().into())).await.is_err() {
                return;
            }
        }
    }
    let _ = pieces.send(Ok(page.take().into())).await;
}

/// Writes a family's series of one node.
fn show(app: &App, family: &Family, machine: &Machine, page: &mut Page) {
    match family.of {
        Of::Node(show) => show(app, machine, &mut page.series(family.name, [&machine.labels, ""])),
        Of::Reading(show) => app.telemetry.read(&machine.id, clock::now(), |reading| {
            show(reading, &mut page.series(family.name, [&machine.labels, ""]));
        }),
        Of::Gpu(show) => app.telemetry.read(&machine.id, clock::now(), |reading| {
            for gpu in &machine.gpus {
                let told = reading.gpus.iter().find(|told| told.device == gpu.device);
                show(gpu, told, &mut page.series(family.name, [&machine.labels, &gpu.labels]));
            }
        }),
    }
}

/// The nodes that this controller shows.
async fn shown(app: &App) -> Result<Vec<NodeId>, StoreError> {
    app.store.fleet_ids(app.membership.number(), app.membership.leads()).await
}

async fn machines(app: &App, names: Names, shard: Shard) -> Result<Vec<Machine>, StoreError> {
    let mut ids = shown(app).await?;
    ids.retain(|id| shard.has(id.as_str()));
    let mut machines = Vec::with_capacity(ids.len());
    for ids in ids.chunks(BATCH) {
        let nodes = app.store.fleet_nodes(ids).await?;
        machines.extend(nodes.into_iter().map(|node| Machine::of(node, names)));
    }
    Ok(machines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_were_registered_together_are_spread_over_all_parts() {
        // Ids of one second on one controller differ in their counter alone.
        let ids: Vec<_> = (0..8000).map(|counter| format!("69396100cd71623c7b{counter:06x}")).collect();
        for count in [2, 3, 8, 64] {
            let mut all = 0;
            for index in 0..count {
                let shard = Shard { index, count };
                let part = ids.iter().filter(|id| shard.has(id)).count();
                let fair = 8000 / usize::try_from(count).unwrap();
                assert!((fair / 2..fair * 2).contains(&part), "{part} of 8000 in {index} of {count}");
                all += part;
            }
            assert_eq!(all, 8000, "each node is in one part");
        }
    }
}
