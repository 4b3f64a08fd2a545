//! The daemon against a scripted controller: everything that the session promises, over a real
//! WebSocket on the loopback.

// The attribute says to lints what everybody knows of this folder.
#[cfg(test)]
mod agent {
    mod aiwm;
    mod binary;
    mod command_line;
    mod containers;
    mod controller;
    mod daemon;
    mod download;
    mod growth;
    mod health;
    mod proxy;
    mod rehearsal;
    mod releases;
    mod reload;
    mod rotation;
    mod session;
    mod silent_mount;
    mod status;
    mod tls;
    mod trouble;
    mod undelivered;
    mod updates;
}
