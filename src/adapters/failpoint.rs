//! Named places at which a test may kill the node, as a power cut or an operator would.
//!
//! Contract: without the feature `failpoints` a point is nothing at all. With it, the environment variable
//! `FAILPOINTS` of crate `fail` says which point kills when: `FAILPOINTS='commit.linked=3*off->1*return'`
//! lets three tasks pass and kills the process (SIGKILL, nothing is cleaned up) at the fourth.

/// All points, in the order in which a task meets them.
pub const POINTS: [&str; 17] = [
    "intake.before",
    "intake.after",
    "sampler.before",
    "sampler.after",
    "scenes.before",
    "scenes.after",
    "pixels.before",
    "pixels.after",
    "rasteriser.before",
    "rasteriser.after",
    "writer.before",
    "writer.after",
    "commit.before",
    "commit.linked",
    "commit.half",
    "settle.before",
    "settle.published",
];

/// A task has come to the point `name`, one of [`POINTS`].
#[cfg(feature = "failpoints")]
pub fn reach(name: &'static str) {
    debug_assert!(POINTS.contains(&name), "{name} is not a point");
    let _ = fail::eval(name, |_| {
        tracing::error!(point = name, "killed on purpose");
        let kill = std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
        // The signal is on its way.
        let _ = kill;
        loop {
            std::thread::park();
        }
    });
}

/// A task has come to the point `name`, one of [`POINTS`].
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reach(_name: &'static str) {}

/// Reads `FAILPOINTS`; to be called once, before anything runs.
pub fn arm() {
    #[cfg(feature = "failpoints")]
    {
        // Kept for the life of the process: dropping it would disarm the points.
        std::mem::forget(fail::FailScenario::setup());
    }
}
