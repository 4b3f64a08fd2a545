//! Durable files: after a function returns, its effect survives a power cut; before, the old state does.
