//! The stream on a clock of its own.

use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(15);

fn stream() -> (Stream, Instant) {
    let now = Instant::now();
    (Stream::new(7, now + HOUR, PATIENCE, now), now)
}

#[test]
fn a_stream_looks_tells_that_it_is_live_and_then_waits_for_news() {
    let (stream, now) = stream();
    assert_eq!(stream.deadline(), now);
    let (stream, effects) = stream.step(Input::Elapsed, now);
    assert_eq!(effects, [Effect::Look { after: 7 }]);
    let (stream, effects) = stream.step(Input::Sent { last: None, more: false }, now);
    assert_eq!(effects, [Effect::TellLive]);
    assert_eq!(stream.deadline(), now + PING);
    let later = now + SPACING;
    let (stream, effects) = stream.step(Input::NewsCame, later);
    assert_eq!(effects, [Effect::Look { after: 7 }]);
    let (_, effects) = stream.step(Input::Sent { last: Some(9), more: false }, later);
    assert_eq!(effects, [Effect::Ping(1)], "and that it is live is told once");
}

#[test]
fn the_next_batch_waits_for_the_pong_of_the_last() {
    let (stream, now) = stream();
    let (stream, _) = stream.step(Input::Elapsed, now);
    let (stream, effects) = stream.step(Input::Sent { last: Some(40), more: true }, now);
    assert_eq!(effects, [Effect::Ping(1)]);
    let later = now + SPACING;
    assert_eq!(stream.clone().step(Input::NewsCame, later).1, []);
    assert_eq!(stream.clone().step(Input::Ponged(0), later).1, [], "an older one is not it");
    assert_eq!(stream.step(Input::Ponged(1), later).1, [Effect::Look { after: 40 }]);
}

#[test]
fn who_does_not_read_is_closed_and_who_is_only_silent_is_told_so() {
    let (fresh, now) = stream();
    let (stream, _) = fresh.step(Input::Elapsed, now);
    let (stream, _) = stream.step(Input::Sent { last: Some(8), more: true }, now);
    assert_eq!(stream.deadline(), now + PATIENCE);
    assert_eq!(stream.clone().step(Input::Elapsed, now + PATIENCE - SPACING).1, []);
    let closed = |stream: Stream, at| match stream.step(Input::Elapsed, at).1[..] {
        [Effect::Close { code, .. }] => code,
        ref other => panic!("{other:?}"),
    };
    assert_eq!(closed(stream, now + PATIENCE), close::TOO_FAST);

    let (stream, now) = self::stream();
    let (stream, _) = stream.step(Input::Elapsed, now);
    let (stream, _) = stream.step(Input::Sent { last: None, more: false }, now);
    let (stream, effects) = stream.step(Input::Elapsed, now + PING);
    assert_eq!(effects, [Effect::Ping(1)]);
    assert_eq!(closed(stream, now + PING + PATIENCE), close::SILENT);
}

#[test]
fn the_tokens_end_closes_whatever_else_is_due() {
    let (stream, now) = stream();
    assert!(matches!(
        stream.step(Input::Elapsed, now + HOUR).1[..],
        [Effect::Close { code: close::TOKEN_ENDED, .. }]
    ));
}

proptest! {
    /// Events arrive at any time, batches have any size, pongs come late: what is sent is
    /// everything, in order, once.
    #[test]
    fn every_event_is_sent_once_and_in_order(script in prop::collection::vec((0..4_u8, 0..300_u64), 1..200), batch in 1..5_usize) {
        let (mut stream, mut now) = stream();
        let mut inbox: Vec<i64> = vec![8, 9];
        let mut sent = Vec::new();
        let mut pings = Vec::new();
        let drain = |stream: Stream, input, now, inbox: &[i64], sent: &mut Vec<i64>, pings: &mut Vec<u64>| {
            let mut inputs = vec![input];
            let mut stream = stream;
            while let Some(input) = inputs.pop() {
                let (next, effects) = stream.step(input, now);
                stream = next;
                for effect in effects {
                    match effect {
                        Effect::Look { after } => {
                            let found: Vec<_> = inbox.iter().copied().filter(|it| *it > after).take(batch).collect();
                            sent.extend(&found);
                            let more = inbox.last() != found.last() && found.len() == batch;
                            inputs.push(Input::Sent { last: found.last().copied(), more });
                        }
                        Effect::Ping(number) => pings.push(number),
                        Effect::TellLive => {}
                        Effect::Close { .. } => panic!("nobody was that slow"),
                    }
                }
            }
            stream
        };
        for (what, millis) in script {
            now += Duration::from_millis(millis);
            let input = match what {
                0 => { inbox.push(inbox.last().unwrap() + 1); Input::NewsCame }
                1 => Input::Ponged(pings.last().copied().unwrap_or(0)),
                _ => { now = now.max(stream.deadline().min(now + SPACING)); Input::Elapsed }
            };
            // No pong is kept back for as long as the stream is patient.
            if stream.awaited.is_some_and(|awaited| awaited.since + PATIENCE <= now + Duration::from_secs(1)) {
                let pong = Input::Ponged(*pings.last().unwrap());
                stream = drain(stream, pong, now, &inbox, &mut sent, &mut pings);
            }
            stream = drain(stream, input, now, &inbox, &mut sent, &mut pings);
        }
        for _ in 0..inbox.len() * 2 + 2 {
            now += SPACING;
            let pong = Input::Ponged(pings.last().copied().unwrap_or(0));
            stream = drain(stream, pong, now, &inbox, &mut sent, &mut pings);
            stream = drain(stream, Input::Elapsed, now, &inbox, &mut sent, &mut pings);
        }
        prop_assert_eq!(sent, inbox);
    }
}
