//! The rotation against a model of the world, and its judgements one by one.

mod world;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;
use crate::session::setback::Patience;
use world::World;

const NODE: &str = "69396100cd71623c7bbfbfee";
const DAY: i64 = 86_400;

fn token_with(id: u64, iat: i64, change: impl FnOnce(&mut Value)) -> SecretString {
    let mut claims = json!({
        "sub": NODE, "type": "node", "jti": id.to_string(), "iat": iat, "exp": iat + 100 * DAY,
        "ctl": "wss://aiwm.example/ws/node", "api": "https://aiwm.example",
    });
    change(&mut claims);
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part("{}"), part(&claims.to_string()), part("signature")).into()
}

fn held(origin: Origin, token: &SecretString) -> Held {
    Held { origin, offer: Some(Uuid::nil()), token: NodeToken::parse(token).unwrap() }
}

fn offer(token: &SecretString) -> TokenOffer {
    TokenOffer {
        token: token.expose_secret().to_owned(),
        expires_at: Timestamp::from_millis(0),
        offer_id: "offer".into(),
    }
}

fn refusal(code: ErrorCode) -> Setback {
    Setback { patience: Patience::Long, ..Setback::new(code, "said in words") }
}

#[test]
fn an_offer_is_stored_tried_and_kept_and_the_one_before_forgotten() {
    let mut world = World::new();
    world.dial();
    world.offer(true);
    assert!(world.online && world.candidate.is_none());
    let first = world.kept.clone().unwrap();
    assert!(world.accepts(&first) && !world.accepts(&world.installed));
    world.offer(true);
    assert!(world.online && !world.accepts(&first), "a second rotation replaces the first");
    assert_eq!((world.valid.len(), world.given_back), (1, 0));
}

#[test]
fn an_offer_that_is_refused_is_given_back_and_the_one_before_used() {
    let mut world = World::new();
    world.dial();
    world.offer(false);
    assert!(!world.online && world.candidate.is_none(), "the refused one is not tried again");
    assert!(world.rotation.has_another());
    world.dial();
    assert!(world.online);
    assert_eq!(world.given_back, 1);
}

#[test]
fn a_network_that_fails_is_no_verdict() {
    let mut world = World::new();
    world.dial();
    world.fuse = Some(1);
    world.offer(true);
    (world.killed, world.fuse) = (false, None);
    assert!(world.candidate.is_some() && !world.online);
    let files = world.files();
    world.rotation = std::mem::take(&mut world.rotation).dialling(files);
    for code in [
        ErrorCode::ControllerUnreachable,
        ErrorCode::TlsFailed,
        ErrorCode::CaMismatch,
        ErrorCode::RateLimited,
    ] {
        world.lose(&refusal(code));
        assert!(world.candidate.is_some(), "{code}");
    }
    world.dial();
    assert!(world.online && world.kept.is_some());
}

/// Every moment of a rotation that is accepted, and of one that is refused, is one at which the
/// worker is killed.
#[test]
fn a_crash_at_any_moment_ends_with_one_token_that_works() {
    let live = |world: &mut World, accept: bool| {
        world.dial();
        for _ in 0..2 {
            if !world.killed {
                world.offer(accept);
            }
            if !world.killed && !world.online {
                world.dial();
            }
        }
    };
    for accept in [true, false] {
        let mut untroubled = World::new();
        live(&mut untroubled, accept);
        let moments = untroubled.moments;
        assert!(moments > 10, "{moments}");
        for at in 0..moments {
            let mut world = World::new();
            world.fuse = Some(at);
            live(&mut world, accept);
            assert!(world.killed, "moment {at} of {moments} was not reached");
            world.recover();
            // And the next rotation goes as the first did.
            world.offer(true);
            assert!(world.online && world.candidate.is_none() && world.kept.is_some(), "moment {at}");
            assert_eq!(world.valid.len(), 1, "moment {at}: more than one token is left");
        }
    }
}

#[test]
fn the_newest_token_is_tried_first_and_an_operators_is_forgotten_by_nobody() {
    let [old, new, newest] = [1, 2, 3].map(|id| token_with(id, i64::try_from(id).unwrap() * DAY, |_| {}));
    let choice = |held: Vec<Held>| Rotation::new(false).dialling(held).in_use().unwrap().origin;
    for (installed, kept, candidate, expected) in [
        (&old, &new, &newest, Origin::Candidate),
        (&old, &newest, &new, Origin::Kept),
        (&newest, &old, &new, Origin::Installed),
        (&new, &new, &new, Origin::Candidate),
    ] {
        let held = vec![
            held(Origin::Installed, installed),
            held(Origin::Kept, kept),
            held(Origin::Candidate, candidate),
        ];
        assert_eq!(choice(held), expected);
    }

    let mut world = World::new();
    world.dial();
    world.offer(true);
    let fresh = world.make();
    world.valid = vec![fresh.clone()];
    world.installed = fresh;
    assert!(world.rotation.is_news(world.files()));
    world.dial();
    assert!(world.online && world.kept.is_none(), "the operator's token is the one from now on");
}

#[test]
fn an_offer_never_takes_the_place_of_a_token_that_could_not_be_put_in_order() {
    let mut world = World::new();
    world.dial();
    world.fuse = Some(1);
    world.offer(true);
    // Killed once the candidate was stored; it is welcomed, and the old one revoked, while nothing
    // can be written.
    (world.killed, world.read_only) = (false, true);
    world.dial();
    assert!(world.online && world.candidate.is_some() && world.valid.len() == 1);
    world.read_only = false;
    world.offer(false);
    assert_eq!((world.given_back, world.candidate.is_none(), world.kept.is_some()), (1, true, true));
    world.offer(true);
    assert!(world.online && world.valid.len() == 1, "the next one is taken");
}

#[test]
fn what_was_given_to_the_node_that_this_machine_was_before_counts_no_more() {
    let installed = token_with(1, DAY, |_| {});
    let of_another = token_with(2, 2 * DAY, |claims| claims["sub"] = "ffffffffffffffffffffffff".into());
    let files = vec![held(Origin::Installed, &installed), held(Origin::Kept, &of_another)];
    let rotation = Rotation::new(false).dialling(files.clone());
    assert_eq!(rotation.in_use().unwrap().origin, Origin::Installed);
    assert!(!rotation.is_news(files), "it is no reason to connect anew either");
}

#[test]
fn where_all_tokens_are_refused_each_is_tried_in_its_turn() {
    let mut world = World::new();
    world.dial();
    world.offer(true);
    let (kept, installed) = (world.kept.clone().unwrap(), world.installed.clone());
    let mut rotation = std::mem::take(&mut world.rotation);
    let mut tried = vec![];
    for _ in 0..4 {
        rotation = rotation.dialling(world.files());
        tried.push(rotation.in_use().unwrap().token.secret().expose_secret().to_owned());
        rotation = rotation.lost(&refusal(ErrorCode::TokenRevoked)).0;
    }
    let (kept, installed) = (kept.expose_secret(), installed.expose_secret());
    assert_eq!(tried, [kept, installed, kept, installed]);
    assert!(!rotation.is_news(world.files()), "nothing new is there");
}

#[test]
fn an_offer_that_is_no_better_is_given_back_by_its_code() {
    let present = token_with(1, DAY, |_| {});
    let weigh = |token: SecretString, endpoint_is_given: bool| {
        let rotation = Rotation::new(endpoint_is_given).dialling(vec![held(Origin::Installed, &present)]);
        let wall = Timestamp::from_millis(200 * DAY * 1000);
        let (_, effects) = rotation.offered(Uuid::max(), offer(&token), wall, Instant::now());
        match effects.as_slice() {
            [Effect::Store { offer, .. }] => Ok(*offer),
            [Effect::GiveBack { offer, error }] => {
                assert_eq!(*offer, Uuid::max());
                Err(error.code.clone())
            }
            other => panic!("{other:?}"),
        }
    };
    let later = |change: fn(&mut Value)| token_with(2, 150 * DAY, change);
    assert_eq!(weigh(later(|_| {}), false), Ok(Uuid::max()));
    for (what, token, code) in [
        ("nonsense", "no token".into(), "TOKEN_INVALID"),
        ("another node's", later(|it| it["sub"] = "000000000000000000000000".into()), "TOKEN_FOREIGN"),
        ("ended", token_with(2, 2 * DAY, |_| {}), "TOKEN_EXPIRED"),
        ("ends sooner", later(|it| it["exp"] = (101 * DAY).into()), "TOKEN_EXPIRED"),
        ("older", later(|it| it["iat"] = 0.into()), "OFFER_REFUSED"),
        ("elsewhere", later(|it| it["ctl"] = "wss://evil.example/ws/node".into()), "OFFER_REFUSED"),
        (
            "of another authority",
            later(|it| it["ca"] = format!("sha256:{}", "a".repeat(64)).into()),
            "OFFER_REFUSED",
        ),
    ] {
        assert_eq!(weigh(token, false), Err(code.to_owned()), "{what}");
    }
    let elsewhere = later(|it| it["ctl"] = "wss://other.example/ws/node".into());
    assert_eq!(weigh(elsewhere, true), Ok(Uuid::max()), "where the configuration says where to connect");
}

#[test]
fn a_controller_that_offers_without_end_is_not_followed_without_end() {
    let now = Instant::now();
    let (first, second, third) =
        (token_with(1, DAY, |_| {}), token_with(2, 2 * DAY, |_| {}), token_with(3, 3 * DAY, |_| {}));
    let rotation = Rotation::new(false)
        .dialling(vec![held(Origin::Installed, &first), held(Origin::Candidate, &second)]);
    let (rotation, _) = rotation.welcomed(now).0.kept();
    let offered = |after: Duration| {
        let (_, effects) =
            rotation.clone().offered(Uuid::nil(), offer(&third), Timestamp::from_millis(0), now + after);
        matches!(effects.as_slice(), [Effect::Store { .. }])
    };
    assert!(!offered(Duration::from_secs(60)));
    assert!(offered(Duration::from_secs(11 * DAY.unsigned_abs())));
}

#[test]
fn no_secret_is_in_what_the_machine_prints() {
    let mut world = World::new();
    world.dial();
    world.offer(true);
    let signature = URL_SAFE_NO_PAD.encode("signature");
    let (_, effects) = world.rotation.clone().offered(
        Uuid::nil(),
        offer(&token_with(9, 90 * DAY, |_| {})),
        Timestamp::from_millis(0),
        Instant::now() + Duration::from_secs(100 * DAY.unsigned_abs()),
    );
    for text in [format!("{:?}", world.rotation), format!("{effects:?}")] {
        assert!(!text.contains(&signature), "{text}");
    }
}

#[derive(Debug, Clone)]
enum Happening {
    Dial,
    Offer { accepted: bool },
    LoseConnection,
    Crash,
    KillAfter(usize),
    ReadOnly(bool),
    Operator,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => Just(Happening::Dial),
        3 => any::<bool>().prop_map(|accepted| Happening::Offer { accepted }),
        1 => Just(Happening::LoseConnection),
        1 => Just(Happening::Crash),
        2 => (0..8_usize).prop_map(Happening::KillAfter),
        1 => any::<bool>().prop_map(Happening::ReadOnly),
        1 => Just(Happening::Operator),
    ]
}

proptest! {
    /// `World::moment` asserts all along that the node is never locked out.
    #[test]
    fn any_life_ends_online_once_the_world_is_well(life in prop::collection::vec(happening(), 0..60)) {
        let mut world = World::new();
        for happening in life {
            world.killed = false;
            match happening {
                Happening::Dial if !world.online => world.dial(),
                Happening::Dial => {}
                Happening::Offer { accepted } => world.offer(accepted),
                Happening::LoseConnection => world.lose(&refusal(ErrorCode::ControllerUnreachable)),
                Happening::Crash => world.crash(),
                Happening::KillAfter(moments) => world.fuse = Some(moments),
                Happening::ReadOnly(read_only) => world.read_only = read_only,
                Happening::Operator => {
                    // regenerate-credentials, and the new token installed.
                    let fresh = world.make();
                    world.valid = vec![fresh.clone()];
                    (world.installed, world.open) = (fresh, None);
                    world.lose(&refusal(ErrorCode::TokenRevoked));
                }
            }
        }
        world.recover();
        world.offer(true);
        prop_assert!(world.online);
        prop_assert_eq!(world.valid.len(), 1, "more than one token is left");
    }
}
