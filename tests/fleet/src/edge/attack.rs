//! The attacks: which there are, and how each is driven.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::sleep};

use super::{abuse, flood, target::Target};

/// One kind of attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attack {
    UnreadLists,
    SilentConnections,
    SilentArrivals,
    CutRevocations,
    StrangerUpgrades,
    SlowDownloads,
    IdleHttp2,
    FailedReports,
    ForeignLists,
    RevokedToken,
    TokenlessDashboards,
    EmptyFrames,
}

impl Attack {
    pub(super) const ALL: [Self; 12] = [
        Self::UnreadLists,
        Self::SilentConnections,
        Self::SilentArrivals,
        Self::CutRevocations,
        Self::StrangerUpgrades,
        Self::SlowDownloads,
        Self::IdleHttp2,
        Self::FailedReports,
        Self::ForeignLists,
        Self::RevokedToken,
        Self::TokenlessDashboards,
        Self::EmptyFrames,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::UnreadLists => "A1 60 viewers that never read",
            Self::SilentConnections => "A2 600 silent connections",
            Self::SilentArrivals => "A2 300 silent ones a second",
            Self::CutRevocations => "A3 DELETE, then RST",
            Self::StrangerUpgrades => "A4 upgrades without a token",
            Self::SlowDownloads => "A5 320 slow downloads",
            Self::IdleHttp2 => "A5 200 of HTTP/2, no request",
            Self::FailedReports => "A6 reports of failure",
            Self::ForeignLists => "A7 16 lists of another tenant",
            Self::RevokedToken => "A8 a revoked token",
            Self::TokenlessDashboards => "A10 1,100 dashboards, no token",
            Self::EmptyFrames => "A11 empty continuation frames",
        }
    }

    /// Goes on until it is aborted; `time` is how long that will be.
    pub(super) async fn run(self, target: Arc<Target>, time: Duration) {
        let mut floods = JoinSet::new();
        match self {
            Self::UnreadLists => {
                abuse::register_loudly(&target).await;
                hold(&target, 60, &abuse::unread_lists(&target)).await;
            }
            Self::SilentConnections => hold(&target, 600, &[]).await,
            Self::SilentArrivals => loop {
                hold(&target, 3, &[]).await;
                sleep(Duration::from_millis(10)).await;
            },
            Self::CutRevocations => {
                (0..8).for_each(|index| {
                    drop(floods.spawn(abuse::cut_revocations(target.clone(), time, index)))
                });
            }
            Self::StrangerUpgrades => {
                (0..3).for_each(|_| drop(floods.spawn(flood::upgrades(target.clone(), None))));
            }
            Self::SlowDownloads => {
                hold(&target, 320, b"GET /releases/v1.0.0/linux-amd64 HTTP/1.1\r\nhost: x\r\n\r\n").await;
            }
            Self::IdleHttp2 => hold(&target, 200, HTTP2).await,
            Self::FailedReports => {
                (0..4).for_each(|index| drop(floods.spawn(flood::failed_reports(target.clone(), index))));
            }
            Self::ForeignLists => {
                (0..16).for_each(|_| drop(floods.spawn(flood::lists(target.clone()))));
            }
            Self::RevokedToken => {
                let revoked = target.enemy.others[0].token.clone();
                for _ in 0..3 {
                    floods.spawn(flood::upgrades(target.clone(), Some(revoked.clone())));
                }
            }
            Self::TokenlessDashboards => hold(&target, 1100, flood::DASHBOARD.as_bytes()).await,
            Self::EmptyFrames => {
                (0..2).for_each(|index| drop(floods.spawn(abuse::empty_frames(target.clone(), 2 + index))));
            }
        }
        pending().await
    }
}

/// The preface and empty settings.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

async fn hold(target: &Target, count: usize, words: &[u8]) {
    for _ in 0..count {
        let what = if target.hold(words).await.is_ok() { "connections held" } else { "connections refused" };
        target.count(what);
    }
}
