//! Close codes of the WebSockets, the workers' and the dashboards'.

/// The server restarts; come back.
pub const RESTART: u16 = 1012;
/// The server has too much to do; come back later.
pub const TRY_LATER: u16 = 1013;
/// What came was no WebSocket frame, or one that may not come then.
pub const PROTOCOL_ERROR: u16 = 1002;
/// A text was not UTF-8.
pub const NOT_UTF8: u16 = 1007;
/// A frame was larger than [`super::MAX_FRAME_BYTES`].
pub const TOO_LARGE: u16 = 1009;
/// A frame was malformed.
pub const MALFORMED: u16 = 4400;
/// The token ended or was revoked.
pub const TOKEN_ENDED: u16 = 4401;
/// A message spoke for another node than the token's.
pub const FOREIGN: u16 = 4403;
/// The worker did not register in time, or fell silent.
pub const SILENT: u16 = 4408;
/// A dashboard wants to continue behind an event that is not kept.
pub const GONE: u16 = 4410;
/// Another connection of the same node took this one's place.
pub const SUPERSEDED: u16 = 4409;
/// Too many messages; or, of a dashboard, too few that it takes.
pub const TOO_FAST: u16 = 4429;
